"""Bounds on figures of a report, for scripts: ``--fail-under coverage=0.9``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lanit.errors import LanitError, UsageError, excerpt

if TYPE_CHECKING:
    from pipeline.inspection.label_statistics import LabelStatistics
    from pipeline.inspection.scores import Scores

_SCORES: dict[str, Callable[[Scores], float | None]] = {
    "f1": lambda scores: scores.macro_f1,
    "micro-f1": lambda scores: scores.micro_f1,
    "precision": lambda scores: scores.macro_precision,
    "recall": lambda scores: scores.macro_recall,
    "ap": lambda scores: scores.mean_average_precision,
}
_FIGURES: dict[str, Callable[[LabelStatistics], float | None]] = {
    "coverage": lambda statistics: statistics.coverage,
    "labels": lambda statistics: statistics.labels_per_image,
    "smallest": lambda statistics: statistics.smallest_count,
    "stability": lambda statistics: statistics.stability.mean if statistics.stability else None,
}
LIMITS = (*_FIGURES, *_SCORES)
"""Figures that can be bounded: share of images with a label, labels per image, images of the smallest domain, mean κ of
two crops; with a truth macro F1, micro F1, macro precision and recall, mean average precision."""


def parse_limits(texts: Sequence[str], *, scored: bool) -> dict[str, float]:
    """``NAME=VALUE`` texts, each of one or more by commas. scored: whether there will be a truth to score against.

    Raises UsageError for an unknown name, for no number, and for a score without a truth.
    """
    limits: dict[str, float] = {}
    for text in (part.strip() for whole in texts for part in whole.split(",")):
        name, _, value = (part.strip() for part in text.partition("="))
        if name not in LIMITS:
            raise UsageError(
                f"--fail-under: there is no figure '{excerpt(name)}'", f"Choose one of {', '.join(LIMITS)}."
            )
        if name in _SCORES and not scored:
            raise UsageError(f"--fail-under {name} needs known labels", "Add --truth FILE, or --truth folders.")
        try:
            limits[name] = float(value)
            if math.isnan(limits[name]):
                raise ValueError(value)
        except ValueError as error:
            raise UsageError(
                f"--fail-under {excerpt(text)}: '{excerpt(value)}' is no number", f"Write it like {name}=0.9"
            ) from error
    return limits


def check_limits(statistics: LabelStatistics, limits: dict[str, float]) -> None:
    """Raise LanitError, one line, naming every figure that lies below its limit or cannot be had."""
    below = []
    for name, limit in limits.items():
        if name in _FIGURES:
            value = _FIGURES[name](statistics)
        else:
            value = _SCORES[name](statistics.scores) if statistics.scores else None
        if value is None or value < limit:
            below.append(f"{name} is {'undefined' if value is None else f'{value:.4g}'}, below {limit:g}")
    if below:
        raise LanitError("; ".join(below), "See the warnings of lanit inspect-labels.")
