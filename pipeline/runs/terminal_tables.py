"""What ``lanit runs`` prints."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.runs.run_list import RunList, RunState


def show_runs(found: RunList) -> None:
    """A row a run; below, the options in which they differ."""
    columns = ("run", "steps", "images/s", "hours", "KID", "recognised", "kept", "best", "at step", "last line")
    console.table(f"Training runs: {len(found.runs):,}", columns, [_row(run) for run in found.runs])
    if any(run.differing for run in found.runs):
        console.say("They differ in")
        for run in found.runs:
            settings = ", ".join(f"{name}={value}" for name, value in run.differing.items())
            console.say(f"  {run.title}: {settings}")


def _row(run: RunState) -> list[str]:
    return [
        run.title,
        f"{run.steps:,}" + (f" of {run.planned:,}" if run.planned else ""),
        number(run.images_per_second, 1),
        f"{run.seconds / 3600:.2f}",
        number(run.kid, 4),
        console.percent(run.recognised),
        console.percent(run.kept),
        "-" if run.best is None else f"{run.best_by} {run.best:.4f}",
        "-" if run.best_step is None else f"{run.best_step:,}",
        since(time.time() - run.updated),
    ]


def number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:,.{places}f}"


def since(seconds: float) -> str:
    """How long ago: "40 s ago", "3 min ago", "5 h ago", "2 days ago"."""
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name} ago"
    return f"{max(seconds, 0):.0f} s ago"
