"""The YAML head of a model card, which the Hugging Face hub reads: what a model is, of what, and how good."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from lanit.errors import UsageError
from pipeline.clip.presets import repository_of
from pipeline.evaluation.measures import BY_NAME
from pipeline.models.bundle import Bundle

_TASK = "image-to-image"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_DATASET = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")


@dataclass(frozen=True)
class Publication:
    """What only its owner can say of a model. licence: an identifier of the hub, such as ``apache-2.0``; datasets:
    repositories of the hub that it learned from. Raises UsageError for what can be neither."""

    licence: str | None = None
    datasets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.licence is not None and not _LICENCE.fullmatch(self.licence):
            raise UsageError(
                f"'{self.licence}' is no identifier of a licence", "Write it as the hub does: --license apache-2.0"
            )
        for name in self.datasets:
            if not _DATASET.fullmatch(name):
                raise UsageError(f"'{name}' is no data set of the hub", "Write it like --dataset owner/name")


def card_header(bundle: Bundle, metrics: Mapping[str, Any], title: str, publication: Publication) -> str:
    """The head, between its lines of dashes. base_model: the CLIP that guided the training, where the hub has it."""
    results = _results(metrics.get("evaluation", {}), publication)
    data = ModelCardData(
        library_name="lanit",
        pipeline_tag=_TASK,
        license=publication.licence,
        base_model=repository_of(bundle.clip_spec),
        datasets=list(publication.datasets) or None,
        tags=[_TASK, "image-translation", "lanit"],
        model_name=title if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n"


def _results(evaluation: Mapping[str, Any], publication: Publication) -> list[EvalResult]:
    """The means over domains of ``lanit evaluate``, each with its interval and with what it is of."""
    found = [
        (guide, name, figure)
        for guide, figures in evaluation.get("guides", {}).items()
        for name, figure in figures["mean"].items()
        if figure is not None and not BY_NAME[name].before
    ]
    if not found:
        return []
    images, options, extractor = evaluation["images"], evaluation["options"], evaluation["extractor"]
    settings = {key: options[key] for key in ("sources", "styles", "seed")} | {"features": extractor["name"]}
    return [
        EvalResult(
            task_type=_TASK,
            task_name="Image translation",
            dataset_type=publication.datasets[0] if publication.datasets else "images",
            dataset_name=f"{images:,} images",
            metric_type=name,
            metric_name=f"{BY_NAME[name].title}, styles from {guide}s, mean over domains",
            metric_value=figure["value"],
            metric_args=settings | {"low": figure["low"], "high": figure["high"]},
        )
        for guide, name, figure in found
    ]
