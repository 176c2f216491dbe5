"""``lanit runs``: training runs side by side, from the lines that they write; nothing of a model is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lanit.errors import LanitError
from pipeline.files import read_json
from pipeline.models.metric_lines import read_lines
from pipeline.models.run_folder import CONFIG, METRICS, SAMPLES, STATE_FILE, checkpoints, is_run

_DEPTH = 3  # folders below the one that is named


@dataclass(frozen=True)
class RunState:
    """One run. name: its folder, as it was found; title: without what the names of all runs shown begin with. updated:
    when it last wrote a line, seconds since 1970.

    steps, images: done; planned: steps in all, as far as known, else 0; seconds: of training; images_per_second: over
    all of them, none before the first step. label_revision: in use. kid, fid, recognised, kept: of the newest
    evaluation by CLIP; best_by, best, best_step: of the newest checkpoint, none where there is none. stability: mean κ
    of the labels in use, where prompts were checked by it. settings: all its options; differing: those in which not all
    runs agree. lines: all it wrote.
    """

    name: str
    title: str
    updated: float
    steps: int
    planned: int
    images: int
    seconds: float
    images_per_second: float | None
    label_revision: int
    kid: float | None
    fid: float | None
    recognised: float | None
    kept: float | None
    best_by: str
    best: float | None
    best_step: int | None
    stability: float | None
    domains: tuple[str, ...]
    settings: dict[str, Any]
    differing: dict[str, Any]
    lines: tuple[dict[str, Any], ...]
    folder: Path

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == kind]

    def samples(self) -> list[tuple[int, Path]]:
        """Steps and files of its grids of translations, the oldest first."""
        found = sorted((self.folder / SAMPLES).glob("*.png"))
        return [(int(path.stem), path) for path in found if path.stem.isdigit()]

    def to_json(self) -> dict[str, Any]:
        hidden = ("lines", "folder")
        return {name: value for name, value in asdict(self).items() if name not in hidden} | {
            "domains": list(self.domains)
        }


@dataclass(frozen=True)
class RunList:
    """Runs in the order of their names. warnings: sentences about what cannot be read."""

    runs: tuple[RunState, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"runs": [run.to_json() for run in self.runs], "warnings": list(self.warnings)}


def list_runs(folders: Sequence[Path]) -> RunList:
    """The runs that are ``folders``, or lie in them. Raises LanitError where there is none."""
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise LanitError(f"there is no folder {folder}", "Name a run, or a folder of runs: lanit runs runs/")
        for run in _runs_in(folder, _DEPTH):
            found.setdefault(run.resolve(), run)
    if not found:
        named = ", ".join(map(str, folders))
        raise LanitError(f"there is no run in {named}", "Train one: lanit train --out runs/first")
    states, warnings = [], []
    for run in found.values():
        try:
            state, damaged = _state_of(run)
        except LanitError as error:
            warnings.append(f"{run} is left out: {error.message}")
            continue
        states.append(state)
        if damaged:
            warnings.append(f"{run / METRICS} has {damaged} damaged lines, which are left out")
    states.sort(key=lambda state: state.name)
    return RunList(tuple(_with_differences(_with_titles(states))), tuple(warnings))


def _runs_in(folder: Path, depth: int) -> list[Path]:
    if is_run(folder):
        return [folder]
    if not depth:
        return []
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [run for path in inner for run in _runs_in(path, depth - 1)]


def _state_of(run: Path) -> tuple[RunState, int]:
    """A run, and how many of its lines are damaged. Raises LanitError where it says nothing of itself."""
    config = read_json(run / CONFIG, "")
    try:
        options, revision = dict(config["options"]), int(config["label_revision"])
        domains, by = tuple(config["prompt_set"]["domains"]), str(options["best_by"])
        planned = int(options["steps"])
    except (KeyError, TypeError, ValueError) as error:
        raise LanitError(f"{run / CONFIG} is damaged") from error
    lines, damaged = read_lines(run / METRICS)
    last = max(lines, key=lambda line: line["step"], default={"step": 0})
    evaluations = [line for line in lines if line["kind"] == "evaluation" and line["step"] > 0]
    newest = evaluations[-1] if evaluations else {}
    clock = _newest_state(run)
    planned = planned or clock.get("planned", 0)
    best_step = clock.get("best_step") or None
    checked = [line["stability"] for line in lines if line.get("kept", True) and "stability" in line]
    refreshed = [line["label_revision"] for line in lines if line["kind"] == "refresh"]
    images, seconds = last.get("images", 0), last.get("seconds", 0.0)
    state = RunState(
        name=str(run),
        title=str(run),
        updated=(run / METRICS).stat().st_mtime if lines else (run / CONFIG).stat().st_mtime,
        steps=last["step"],
        planned=max(planned, last["step"]) if planned else 0,
        images=images,
        seconds=seconds,
        images_per_second=images / seconds if seconds else None,
        label_revision=refreshed[-1] if refreshed else revision,
        kid=newest.get("kid"),
        fid=newest.get("fid"),
        recognised=newest.get("recognised"),
        kept=newest.get("kept"),
        best_by=by,
        best=clock.get("best") if best_step else None,
        best_step=best_step,
        stability=checked[-1] if checked else None,
        domains=domains,
        settings=options,
        differing={},
        lines=tuple(lines),
        folder=run,
    )
    return state, damaged


def _newest_state(run: Path) -> dict[str, Any]:
    """The state of the newest checkpoint; empty where there is none, or it is damaged, which training will say."""
    for checkpoint in checkpoints(run)[-1:]:
        try:
            return dict(read_json(checkpoint / STATE_FILE))
        except (LanitError, TypeError, ValueError):
            break
    return {}


def _with_titles(states: Sequence[RunState]) -> list[RunState]:
    shared = os.path.commonpath([state.folder.parent for state in states]) if states else ""
    return [replace(state, title=os.path.relpath(state.folder, shared or ".")) for state in states]


def _with_differences(states: Sequence[RunState]) -> list[RunState]:
    """Each with the options, and the domains, in which not all agree."""
    values = [state.settings | {"domains": ", ".join(state.domains)} for state in states]
    names = list(dict.fromkeys(name for each in values for name in each))
    differ = [name for name in names if len({json.dumps(each.get(name)) for each in values}) > 1]
    return [
        replace(state, differing={name: each[name] for name in differ if name in each})
        for state, each in zip(states, values, strict=True)
    ]
