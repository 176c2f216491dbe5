"""The folder of a run: what lies in it, whose it is, and its only writer."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from lanit.errors import LanitError
from lanit.methods.table import STATE_GROUPS
from pipeline.files import read_json, sweep_folder
from pipeline.folders import check_folder, check_replaceable, is_free, locked_folder, remove_ours, restore_folders
from pipeline.prompts.learned_prompts import FILE_NAME as PROMPTS_FILE

CONFIG = "config.json"
METRICS = "metrics.jsonl"
SAMPLES = "samples"
CHECKPOINTS = "checkpoints"
MODEL = "model"
BEST = "best"
RESULT_NAME = "evaluation.json"
"""In the folder of a run: its own figures, as ``--json`` prints them, sealed."""

STATE_FILE = "state.json"
CHECKPOINT_FILES = (STATE_FILE, *(f"{name}.safetensors" for name in STATE_GROUPS))
"""All that a checkpoint can consist of."""
BUNDLE_FILES = ("model.json", "model.safetensors")
"""What every model consists of; one with learned prompts has their file besides."""
MODEL_FILES = (*BUNDLE_FILES, PROMPTS_FILE)

_INNER = (SAMPLES, CHECKPOINTS, MODEL, BEST)

_STEP = re.compile(r"step-(\d{8,})")
_SAMPLE = re.compile(r"samples/\d{8,}\.png")


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / CHECKPOINTS / f"step-{step:08d}"


def step_of(checkpoint: Path) -> int | None:
    """The step of a checkpoint, by the name of its folder; none for other names."""
    found = _STEP.fullmatch(checkpoint.name)
    return int(found[1]) if found else None


def checkpoints(run: Path) -> list[Path]:
    """Oldest first; a folder without ``state.json`` never is one."""
    found = [(step_of(path.parent), path.parent) for path in (run / CHECKPOINTS).glob(f"step-*/{STATE_FILE}")]
    return [folder for _, folder in sorted((step, folder) for step, folder in found if step is not None)]


def is_run(folder: Path) -> bool:
    """Whether ``folder`` is one that lanit train began, by its ``config.json``, even where that is damaged."""
    try:
        config = read_json(folder / CONFIG)
    except LanitError:
        return find_run(str(folder)) is not None
    return isinstance(config, dict) and "prompt_set" in config


def is_ours(name: str) -> bool:
    """Whether lanit train writes a file of this name, relative to its run; what others keep there is not meant."""
    folder, _, rest = name.partition("/")
    if folder in (MODEL, BEST):
        return rest in MODEL_FILES
    if folder == CHECKPOINTS:
        step, _, file = rest.partition("/")
        return _STEP.fullmatch(step) is not None and file in CHECKPOINT_FILES
    return name in (CONFIG, METRICS) or _SAMPLE.fullmatch(name) is not None


def check_run_folder(folder: Path) -> None:
    """Raise LanitError, as :func:`locked_run` does, where no run can be written to ``folder`` now."""
    with locked_run(folder):
        return


@contextlib.contextmanager
def locked_run(folder: Path, option: str = "--out") -> Iterator[None]:
    """Hold a run's folder, or one where a run can begin, as its only writer; left-overs of killed ones go.

    Raises LanitError where the folder is somebody else's, where a file of theirs lies in a folder that a run replaces,
    and where another process is writing there.
    """
    check_folder(folder, option, "run", lambda found: is_run(found) or _is_bare(found))
    with locked_folder(folder, option):
        for inner in (folder / CHECKPOINTS, folder / SAMPLES):
            restore_folders(inner)
            sweep_folder(inner)
        for checkpoint in (folder / CHECKPOINTS).glob("step-*"):
            if step_of(checkpoint) is not None and not (checkpoint / STATE_FILE).exists():
                remove_ours(checkpoint, CHECKPOINT_FILES.__contains__)  # its removal was cut short
        for whole in (folder / MODEL, folder / BEST):
            check_replaceable(whole, MODEL_FILES.__contains__)
        for checkpoint in checkpoints(folder):
            check_replaceable(checkpoint, CHECKPOINT_FILES.__contains__)
        yield


def _is_bare(folder: Path) -> bool:
    """Whether nothing is left of a run but what a killed one was just writing."""
    return is_free(folder, besides=_INNER) and all(is_free(folder / name) for name in _INNER)


def find_run(run: str) -> Path | None:
    """The folder of a training run, where its evaluation is kept; none for a model by itself, which has a
    ``config.json`` of its own where it was exported."""
    folder = Path(run)
    return folder if (folder / CONFIG).is_file() and not (folder / BUNDLE_FILES[0]).is_file() else None
