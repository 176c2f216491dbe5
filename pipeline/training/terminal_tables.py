"""What ``lanit train`` prints: the resolved options, and what a run came to."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.prompts.terminal_tables import show_learned_words
from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.training.training import TrainReport


_LARGE = 128  # pixels; at this size and above, a step on a CPU takes tens of seconds


def show_options(title: str, options: Mapping[str, object], device: str) -> None:
    """Resolved options on stderr, written as ``--set`` takes them; a warning where the device is no match for them."""
    values = (f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in options.items())
    console.note(f"{title}: {' '.join(values)}")
    size = options["size"]
    if device == "cpu" and isinstance(size, int) and size >= _LARGE:
        console.warn(f"{size} px on a CPU takes days; try --preset small-32, minutes for drawings, or --device cuda")


def show_train(report: TrainReport) -> None:
    begun = f" ({report.started_at:,} of them before)" if report.started_at else ""
    where = report.device if report.processes == 1 else f"{report.processes} processes"
    console.say(f"{report.steps:,} steps{begun}, {report.images:,} images, {report.seconds:,.0f} s on {where}")
    console.say(f"{report.seconds_per_step:.3f} s a step; trained on label revision {report.label_revision}")
    console.say(f"the model of this run is in {report.run}/model")
    if report.best is not None and report.best_step != report.steps:
        console.say(f"the best by {report.best_by} ({report.best:.4g}, step {report.best_step:,}) in {report.run}/best")
    if report.stability is not None:
        until = "; prompts were learned until labels got less stable" if report.settled else ""
        console.say(f"labels of two crops agree {console.percent(report.stability)} beyond chance{until}")
    if report.learned:
        show_learned_words(report.learned)
        console.say(f"its prompts, as learned, are for: lanit label --prompts {shlex.quote(report.run)}")
