"""What training leaves on disk: checkpoints to continue from, and the model bundle to use.

Tensors are safetensors, the rest is JSON; a folder appears whole, by one rename. Everything loads strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lanit.errors import LanitError
from pipeline.folders import remove_ours
from pipeline.models.run_folder import (
    CHECKPOINT_FILES,
    MODEL,
    STATE_FILE,
    checkpoint_folder,
    checkpoints,
    step_of,
)
from pipeline.models.tensor_folders import check_files, read_document, write_folder


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run, or none."""
    found = checkpoints(run)
    return found[-1] if found else None


def newest_whole_checkpoint(
    run: Path, run_digest: str | None, warn: Callable[[str], None]
) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint of a run that is as it was written, with its state; none where the run has no checkpoint.

    warn: told of newer ones that are damaged. Raises LanitError where all are.
    """
    damaged: list[LanitError] = []
    for checkpoint in reversed(checkpoints(run)):
        try:
            found = checkpoint, read_state(checkpoint, run_digest)
        except LanitError as error:
            damaged.append(error)
            continue
        for reason in damaged:
            warn(f"{reason.message}; going on from {checkpoint.name}, and the steps since then are done again")
        return found
    if damaged:
        raise damaged[0]
    return None


def read_state(checkpoint: Path, run_digest: str | None) -> dict[str, Any]:
    """The state of a checkpoint, all of whose files are those that it was written with; run_digest: of its run.

    Raises LanitError where it is damaged, or of another run. One of an older lanit has no digests to compare.
    """
    anew = f"Train in another --out; a model in {checkpoint.parents[1] / MODEL} can still be used."
    state, digests = read_document(checkpoint / STATE_FILE, anew)
    if state.pop("run", None) != run_digest or state.get("step") != step_of(checkpoint):
        raise LanitError(f"the checkpoint {checkpoint} is of another run or another step", anew)
    missing = [name for name in digests if not (checkpoint / name).is_file()]
    if missing:
        raise LanitError(f"the checkpoint {checkpoint} is damaged: {missing[0]} is missing", anew)
    check_files(checkpoint, CHECKPOINT_FILES, digests, anew)
    return state


def save_checkpoint(
    run: Path,
    step: int,
    groups: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, object],
    keep: int,
    besides: Collection[int] = (),
) -> Path:
    """Write ``run/checkpoints/step-…``, and forget older ones as :func:`forget_checkpoints` does."""
    folder = checkpoint_folder(run, step)
    tensors = {f"{name}.safetensors": group for name, group in groups.items()}
    write_folder(folder, CHECKPOINT_FILES, (STATE_FILE, state), tensors)
    forget_checkpoints(run, step, keep, besides)
    return folder


def forget_checkpoints(run: Path, step: int, keep: int, besides: Collection[int] = ()) -> None:
    """Remove all checkpoints up to ``step`` but the newest ``keep`` and those of the steps ``besides``.

    Later ones are damaged, or the run would have gone on from them; it replaces them as it comes to them.
    """
    past = [folder for folder in checkpoints(run) if (step_of(folder) or 0) <= step]
    for old in past[: -max(keep, 1)]:
        if step_of(old) not in besides:
            remove_ours(old, CHECKPOINT_FILES.__contains__)
