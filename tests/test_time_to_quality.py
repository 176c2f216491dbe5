"""``benchmarks/time_to_quality.py``: which look reaches a quality, and what a stopped run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.time_to_quality import ARMS, looks, seconds_to, show
from pipeline.training.train_options import options_from


def look(arm: str, seed: int, step: int, recognised: float, kept: float, last: bool = False) -> dict[str, Any]:
    return {
        "arm": arm, "seed": seed, "step": step, "seconds": step / 2, "recognised": recognised, "kept": kept,
        "untouched": 1.0, "last": last,
    }  # fmt: skip


def test_a_quality_is_reached_where_both_shares_are_at_once() -> None:
    group = [look("a", 0, 0, 0.0, 1.0), look("a", 0, 60, 0.9, 0.8), look("a", 0, 90, 0.8, 0.88), look("a", 0, 99, 1, 1)]
    assert seconds_to(group, 0.8, 0.88) == 45
    assert seconds_to(group, 0.95, 0.97) == 49.5
    assert seconds_to(group[:2], 0.8, 0.88) is None


def test_of_a_run_that_was_stopped_the_last_try_counts(tmp_path: Path, capsys: Any) -> None:
    assert looks(tmp_path / "none.jsonl") == []
    first = [look("a", 0, 0, 0, 1), look("a", 0, 10, 0.9, 0.9)]
    again = [look("a", 0, 0, 0, 1), look("b", 0, 0, 0, 1), look("a", 0, 10, 0.85, 0.9, True)]
    lines = tmp_path / "looks.jsonl"
    lines.write_text("".join(json.dumps(each) + "\n" for each in first + again))
    found = looks(lines)
    assert [(each["arm"], each["recognised"]) for each in found] == [("a", 0), ("a", 0.85), ("b", 0)]
    show(found)
    shown = capsys.readouterr().out
    assert "1.00" in shown  # the first arm against itself
    assert "not in" in shown  # the other has not reached it


def test_every_arm_is_of_settings_that_there_are() -> None:
    for arm in ARMS.values():
        assert options_from(arm.preset, dict(arm.changes)).steps > 0
