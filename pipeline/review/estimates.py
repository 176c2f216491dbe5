"""What answers tell of a phrase: precision, recall and F1 of CLIP's labels, honestly; and a better offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.review.samples import SHARES, Sample

LEAST_SAMPLE = 16
"""Images of the random sample below which nothing is estimated."""

_DRAWS = 4000
_LEVELS = (0.0125, 0.5, 0.9875)
_PRIOR = 0.2  # Beta(0.2, 0.2): Jeffreys' half an answer would find too many missed among the many surest not


@dataclass(frozen=True)
class Figure:
    """An estimate, and an interval that holds the truth nine times in ten or more (the ends are those of 97.5 % of the
    draws, since which images are asked about next depends on the answers)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimates:
    """Of CLIP's labels of one phrase, at an offset, over all images. sample: images that they rest on.
    positives: share of the images that truly have it."""

    precision: Figure
    recall: Figure
    f1: Figure
    positives: Figure
    sample: int

    def to_json(self) -> dict[str, Any]:
        figures = {name: getattr(self, name) for name in ("precision", "recall", "f1", "positives")}
        return {name: [each.value, each.low, each.high] for name, each in figures.items()} | {"sample": self.sample}


def estimate(sample: Sample, said: np.ndarray, labelled: np.ndarray, seed: int = 0) -> Estimates | None:
    """By the random sample alone, stratum by stratum, each by its share of the images; none where it is too small.

    said: int8 (n), 1 and 0 where people answered. labelled: bool (n), what is judged, at any offset. Within each
    stratum and label the share of true ones has a Beta posterior; values and intervals are quantiles over draws.
    """
    if sample.size < LEAST_SAMPLE:
        return None
    rng = np.random.default_rng(seed)
    true = {True: np.zeros(_DRAWS), False: np.zeros(_DRAWS)}
    cells, known = 2 * sample.strata + labelled, np.flatnonzero(sample.taken)
    sizes, taken, positive = (
        np.bincount(each, minlength=2 * len(SHARES)).tolist()
        for each in (cells, cells[known], cells[known[said[known] == 1]])
    )
    for stratum in range(len(SHARES)):
        for label in (True, False):
            cell = 2 * stratum + label
            size, seen, having = sizes[cell], taken[cell], positive[cell]
            if size:
                share = rng.beta(having + _PRIOR, seen - having + _PRIOR, _DRAWS)
                true[label] += having + rng.binomial(size - seen, share)
    on, hits, missed = int(labelled.sum()), true[True], true[False]
    return Estimates(
        precision=_figure(hits / max(on, 1)),
        recall=_figure(hits / np.maximum(hits + missed, 1)),
        f1=_figure(2 * hits / np.maximum(on + hits + missed, 1)),
        positives=_figure((hits + missed) / max(len(labelled), 1)),
        sample=sample.size,
    )


def _figure(draws: np.ndarray) -> Figure:
    low, value, high = np.quantile(draws, _LEVELS)
    return Figure(float(value), float(low), float(high))
