"""The folder of an exported model: which files it holds, and how it takes its place."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lanit.errors import LanitError
from pipeline.labelling.learned_prompts import FILE_NAME
from pipeline.training.checkpoints import BUNDLE_FILES

CARD_NAME = "README.md"
PROMPTS_NAME = "prompts.json"
LEARNED_NAME = FILE_NAME
DOMAINS_NAME = "domains.csv"
METRICS_NAME = "metrics.json"
ONNX_FOLDER = "onnx"
ONNX_NAMES = ("generator.onnx", "style_encoder.onnx", "mapping.onnx", "networks.json")

FILES = (
    *BUNDLE_FILES,
    CARD_NAME,
    PROMPTS_NAME,
    LEARNED_NAME,
    DOMAINS_NAME,
    METRICS_NAME,
    *(f"{ONNX_FOLDER}/{name}" for name in ONNX_NAMES),
)
"""POSIX paths of all that an exported model can consist of; the first ones, and the card, always."""


def files_of(folder: Path) -> list[str]:
    """Those of :data:`FILES` that are there."""
    return [name for name in FILES if (folder / name).is_file()]


def is_export(folder: Path) -> bool:
    """Whether the folder is an exported model, and nothing else lies in it."""
    if not all((folder / name).is_file() for name in (*BUNDLE_FILES, CARD_NAME)):
        return False
    return all(path.relative_to(folder).as_posix() in (*FILES, ONNX_FOLDER) for path in folder.rglob("*"))


def check_out(out: Path, force: bool) -> None:
    """Raises LanitError where ``out`` is taken: by an export, unless ``force`` replaces it, or by anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise LanitError(f"--out {out} is a file", "Give a new folder.")
    if not is_export(out):
        raise LanitError(f"--out {out} holds other files", "Give a new folder; only an exported model is replaced.")
    if not force:
        raise LanitError(f"--out {out} already holds an exported model", "Add --force to replace it.")


@contextlib.contextmanager
def appearing_folder(out: Path, force: bool) -> Iterator[Path]:
    """Yield a folder to be made and filled, which takes the name of ``out`` on leaving; after an exception it is gone.

    Raises LanitError as :func:`check_out`, and where the disk refuses.
    """
    check_out(out, force)
    out = out.resolve()
    filling = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    retired = out.with_name(f".{out.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(filling, ignore_errors=True)
        yield filling
        for path in filling.rglob("*"):
            if path.is_file():
                path.chmod(0o644)
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        if out.exists():
            out.replace(retired)
        filling.replace(out)
    except OSError as error:
        raise LanitError(
            f"cannot write {out}: {error.strerror or error}", "Check the disk and its permissions."
        ) from error
    finally:
        shutil.rmtree(filling, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)
