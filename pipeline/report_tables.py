"""What each command prints about the report that its stage returned: tables and a line or two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline import console
from pipeline.label_table import show_statistics

if TYPE_CHECKING:
    from pipeline.embed import EmbedReport
    from pipeline.inspect_labels import LabelStatistics
    from pipeline.label import LabelReport
    from pipeline.training import TrainReport
    from pipeline.translation import TranslateReport


def show_embed(report: EmbedReport) -> None:
    """images = embedded + failed + skipped."""
    entries = {"images found": report.found, "embedded": report.ok, "failed": report.failed}
    console.counts(f"Images of {report.source}", entries | {"skipped (unchanged)": report.skipped})
    speed = f"{report.seconds:.1f} s, {report.images_per_second:.1f} images/s on {report.device}"
    console.say(f"{speed}: {report.waiting:.0%} of it waiting for images to decode, {report.model:.0%} in CLIP")
    if report.dropped or report.kept:
        console.say(f"{report.dropped:,} rows of files that are gone dropped, {report.kept:,} of other folders kept")
    console.say(f"the store {report.store} holds {report.stored:,} embeddings; index {report.index}")


def show_label(report: LabelReport) -> None:
    """The new labels, then images = labelled + without a label + failed."""
    if not report.created:
        console.note(f"revision {report.revision} already has these labels: nothing written")
    show_statistics(report.statistics)
    entries = {"images": report.images, "labelled": report.labelled, "without a label": report.unlabelled}
    console.counts("Images of the store", entries | {"failed to embed": report.failed})


def warn_of_words(words: tuple[str, ...]) -> None:
    """A warning that names words which CLIP never saw, if there are any."""
    if words:
        names = ", ".join(f"'{word}'" for word in words)
        console.warn(f"this CLIP never saw {names}: expect nothing of prompts with such words")


_LARGE = 128  # pixels; at this size and above, a step on a CPU takes tens of seconds


def show_options(title: str, options: Mapping[str, object], device: str) -> None:
    """Resolved options on stderr, written as ``--set`` takes them; a warning where the device is no match for them."""
    values = (f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in options.items())
    console.note(f"{title}: {' '.join(values)}")
    size = options["size"]
    if device == "cpu" and isinstance(size, int) and size >= _LARGE:
        console.warn(f"{size} px on a CPU takes days; try --preset small-32, minutes for drawings, or --device cuda")


def show_coverage(statistics: LabelStatistics) -> None:
    """What training is about to learn from, on stderr, with a warning for each prompt that teaches nothing."""
    console.note(f"label revision {statistics.revision}: {console.percent(statistics.coverage)} of images have a label")
    for warning in statistics.warnings:
        console.warn(warning)


def show_train(report: TrainReport) -> None:
    begun = f" ({report.started_at:,} of them before)" if report.started_at else ""
    console.say(f"{report.steps:,} steps{begun}, {report.images:,} images, {report.seconds:,.0f} s on {report.device}")
    console.say(f"{report.seconds_per_step:.3f} s a step; trained on label revision {report.label_revision}")
    console.say(f"the model of this run is in {report.run}/model")


def show_translate(report: TranslateReport) -> None:
    """images = translated + failed."""
    console.counts(
        f"Images to {report.out}", {"images found": report.found, "translated": report.ok, "failed": report.failed}
    )
    console.say(f"one row for each in {report.table}")
    if report.grid is not None:
        console.say(f"sources and translations side by side in {report.grid}")
