"""``lanit runs``: what training runs wrote, side by side, as a table, as JSON and as a page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import app
from lanit.errors import LanitError
from pipeline.models.bundle import load_bundle
from pipeline.models.metric_lines import add_line
from pipeline.runs.page import keep_writing, runs_page
from pipeline.runs.run_list import list_runs
from pipeline.runs.terminal_tables import since
from tests.training_world import TINY, changed, copy_of, draw_store, go, labelled, metrics

STEPS = 4
OPTIONS = changed(TINY, steps=STEPS, log_every=1, evaluate_every=1, sample_every=2, refresh_every=0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Any) -> Path:
    """Two runs that differ in seed and learning rate, in a folder of runs."""
    folder = tmp_path_factory.mktemp("listed")
    labelled(copy_of(draw_store(folder, tiny_clip), folder / "runs" / "store"))
    go(folder / "runs" / "first", tiny_clip, OPTIONS)
    go(folder / "runs" / "second", tiny_clip, changed(OPTIONS, seed=7, learning_rate=2e-3))
    return folder / "runs"


def test_the_figures_are_those_that_the_runs_wrote(runs: Path) -> None:
    found = list_runs([runs])
    assert [run.name for run in found.runs] == [str(runs / "first"), str(runs / "second")]
    assert [run.title for run in found.runs] == ["first", "second"]
    for run in found.runs:
        lines = metrics(run.folder)
        newest = [line for line in lines if line["kind"] == "evaluation"][-1]
        assert (run.steps, run.planned, run.images) == (STEPS, STEPS, STEPS * 2)
        assert run.images_per_second == pytest.approx(STEPS * 2 / run.seconds)
        assert (run.kid, run.recognised, run.kept) == (newest["kid"], newest["recognised"], newest["kept"])
        best = load_bundle(run.folder / "best").training["steps"]
        assert run.best_step == best
        of_best = next(line for line in lines if line["kind"] == "evaluation" and line["step"] == best)
        assert run.best == pytest.approx(of_best["kid"], abs=1e-6)
        assert [step for step, _ in run.samples()] == [0, 2, 4]


def test_runs_say_in_which_options_they_differ_and_in_no_others(runs: Path) -> None:
    first, second = list_runs([runs]).runs
    assert first.differing == {"seed": 0, "learning_rate": 1e-3}
    assert second.differing == {"seed": 7, "learning_rate": 2e-3}
    assert list_runs([runs / "first"]).runs[0].differing == {}


def test_a_run_named_twice_is_shown_once(runs: Path) -> None:
    assert len(list_runs([runs, runs / "first"]).runs) == 2


def test_the_table_and_the_json_are_of_the_same_runs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.parent)
    shown = CliRunner().invoke(app, ["runs"])
    assert shown.exit_code == 0
    assert "seed=7, learning_rate=0.002" in shown.stdout
    done = CliRunner().invoke(app, ["runs", "runs", "--json"])
    printed = json.loads(done.stdout)
    assert [run["name"] for run in printed["runs"]] == ["runs/first", "runs/second"]
    assert printed["runs"][1]["differing"] == {"seed": 7, "learning_rate": 0.002}


def test_a_page_has_a_curve_of_each_run_and_its_grids_and_loads_nothing(runs: Path) -> None:
    page = runs_page(list_runs([runs]))
    assert page.count("data:image/png") == 6
    assert "http" not in re.sub(r"data:[^\"]+", "", page)
    kid = re.search(r"<b>KID</b>.*?</figure>", page, re.DOTALL)
    assert kid is not None
    assert kid[0].count('class="curve curve-') == 2
    assert 'http-equiv="refresh"' not in page
    assert '<meta http-equiv="refresh" content="30">' in runs_page(list_runs([runs]), reload=30)


def test_a_watched_page_is_written_again_as_runs_go_on(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "first", tmp_path / "run")
    page, waits = tmp_path / "runs.html", []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt
        line = {"step": STEPS + len(waits), "images": 99, "seconds": 9.0, "kind": "losses", "total": 1.0}
        add_line(tmp_path / "run" / "metrics.jsonl", line)

    with pytest.raises(KeyboardInterrupt):
        keep_writing([tmp_path], page, 5.0, wait)
    assert waits == [5.0, 5.0, 5.0]
    assert f">{STEPS + 2} of {STEPS + 2}<" in page.read_text(encoding="utf-8")


def test_a_damaged_run_is_left_out_with_a_warning_and_damaged_lines_too(runs: Path, tmp_path: Path) -> None:
    for name in ("whole", "torn", "bad"):
        shutil.copytree(runs / "first", tmp_path / name)
    with (tmp_path / "torn" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "kind": "los\n')
    (tmp_path / "bad" / "config.json").write_text('{"prompt_set": {}}')
    found = list_runs([tmp_path])
    assert [run.folder.name for run in found.runs] == ["torn", "whole"]
    assert len(found.warnings) == 2
    assert any("bad is left out" in warning for warning in found.warnings)
    assert any("1 damaged line" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none"], "there is no folder none"),
        (["."], "there is no run in ."),
        (["--watch", "5"], "--watch writes a page again and again"),
        (["--html", "runs.txt"], "not the name of a page"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["runs", *arguments])
    assert done.exit_code != 0
    assert says in " ".join(done.stderr.split())


def test_how_long_ago_is_said_in_one_unit() -> None:
    said = [since(seconds) for seconds in (-1, 59, 121, 7200, 200_000)]
    assert said == ["0 s ago", "59 s ago", "2 min ago", "2 h ago", "2 days ago"]


def test_no_folder_of_runs_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(LanitError, match="no folder"):
        list_runs([tmp_path / "runs"])
