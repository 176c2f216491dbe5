"""The page of training runs: their curves together, and of each its losses and its grids over time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.runs.run_list import RunList, RunState, list_runs
from pipeline.showing.line_charts import Chart, Series, line_chart
from pipeline.showing.pages import png_uri, render_page, write_page

_CURVES = 4  # colours there are
_GRIDS = 6  # of a run, evenly spread over its steps, the newest among them
_FIGURES = (
    ("kid", "KID", "of CLIP embeddings: lower is better"),
    ("fid", "Fréchet distance", "of CLIP embeddings: lower is better"),
    ("recognised", "Recognised", "share of translations in which {judge} sees what was asked for"),
    ("kept", "Kept", "share of the other labels that stay"),
)


@dataclass(frozen=True)
class _Grid:
    step: int
    uri: str


@dataclass(frozen=True)
class _Card:
    run: RunState
    charts: list[tuple[Chart, Markup]]
    grids: list[_Grid]


def runs_page(found: RunList, *, reload: float | None = None) -> str:
    """The page as HTML, which loads nothing from anywhere. reload: seconds after which the browser reads it again."""
    judge = _judge(found.runs)
    compared = (_compared(found.runs, name, title, text.format(judge=judge)) for name, title, text in _FIGURES)
    together = [chart for chart in compared if chart is not None]
    values = {
        "runs": found.runs,
        "warnings": found.warnings,
        "judge": judge,
        "together": [_drawn(chart) for chart in together],
        "cards_of_runs": [_card(run) for run in found.runs],
        "reload": None if reload is None else max(1, round(reload)),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }
    return render_page("runs.html", values)


def _judge(runs: Sequence[RunState]) -> str:
    """Who says what translations show: CLIP, or the networks of runs that label images themselves."""
    judges = {line.get("judge", "clip") for run in runs for line in run.of_kind("evaluation")}
    guided = "the guiding network that learned with it"
    return "CLIP" if "guide" not in judges else f"CLIP or {guided}" if len(judges) > 1 else guided


def keep_writing(
    folders: Sequence[Path], page: Path, seconds: float, wait: Callable[[float], None] = time.sleep
) -> None:
    """Write the page of the runs in ``folders`` every so many ``seconds``, until interrupted."""
    while True:
        wait(seconds)
        write_page(page, runs_page(list_runs(folders), reload=seconds))


def _compared(runs: Sequence[RunState], name: str, title: str, caption: str) -> Chart | None:
    """A curve of each of the first runs, of evaluations by CLIP; none where there is nothing to see."""
    series = [_series(run.title, run.of_kind("evaluation"), name) for run in runs[:_CURVES]]
    bounds = (0.0, 1.0) if name in ("recognised", "kept") else None
    return Chart(title, tuple(series), caption, bounds) if any(len(each.x) > 1 for each in series) else None


def _card(run: RunState) -> _Card:
    losses = run.of_kind("losses")
    names = sorted({name for line in losses for name in line} - {"step", "images", "seconds", "kind"})
    charts = [Chart(name.replace("_", " "), (_series(name, losses, name),)) for name in names]
    refreshes = _series("stability", [line for line in run.lines if "stability" in line], "stability")
    if len(refreshes.x) > 1:
        charts.append(Chart("stability of the labels", (refreshes,), "κ of two crops, at each refresh"))
    samples = run.samples()
    shown = sorted({round(n * (len(samples) - 1) / max(_GRIDS - 1, 1)) for n in range(_GRIDS)}) if samples else []
    grids = [_Grid(samples[n][0], png_uri(samples[n][1].read_bytes())) for n in shown]
    return _Card(run, [_drawn(chart) for chart in charts if len(chart.series[0].x) > 1], grids)


def _series(name: str, lines: Sequence[dict[str, Any]], key: str) -> Series:
    found = [(line["step"], line[key]) for line in lines if key in line]
    return Series(name, [step for step, _ in found], [value for _, value in found])


def _drawn(chart: Chart) -> tuple[Chart, Markup]:
    return chart, Markup(line_chart(chart))
