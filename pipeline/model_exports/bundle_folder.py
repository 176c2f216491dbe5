"""The folder of an exported model: which files it holds, and how it takes its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lanit.errors import LanitError
from pipeline.folders import appearing_folder, foreign_files, locked_beside
from pipeline.models.run_folder import BUNDLE_FILES
from pipeline.prompts.learned_prompts import FILE_NAME as LEARNED_NAME

CARD_NAME = "README.md"
CONFIG_NAME = "config.json"
"""By requests for a file of this name the Hugging Face hub counts downloads."""
EXAMPLES_NAME = "examples.png"
PROMPTS_NAME = "prompts.json"
DOMAINS_NAME = "domains.csv"
METRICS_NAME = "metrics.json"
ONNX_FOLDER = "onnx"
PAGE_NAME = "translate.html"
ONNX_NAMES = ("generator.onnx", "style_encoder.onnx", "mapping.onnx", "networks.json", PAGE_NAME)

FILES = (
    *BUNDLE_FILES,
    CARD_NAME,
    CONFIG_NAME,
    EXAMPLES_NAME,
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
    return not foreign_files(folder, FILES.__contains__)


def check_out(out: Path, overwrite: bool) -> None:
    """Raises LanitError where ``out`` is taken: by an export, unless ``overwrite`` replaces it, or by anything else."""
    if out.exists() and not out.is_dir():
        raise LanitError(f"--out {out} is a file", "Give a new folder.")
    if is_export(out.resolve()):
        if not overwrite:
            raise LanitError(f"--out {out} already holds an exported model", "Add --overwrite to replace it.")
    elif foreign_files(out.resolve(), frozenset[str]().__contains__):
        raise LanitError(f"--out {out} holds other files", "Give a new folder; only an exported model is replaced.")


@contextlib.contextmanager
def appearing_export(out: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a folder to fill, which takes the name of ``out`` on leaving; after an exception it is gone.

    Raises LanitError as :func:`check_out`, where another command writes ``out``, and where the disk refuses.
    """
    check_out(out, overwrite)
    whole = out.resolve()
    with locked_beside(whole, "--out"):
        check_out(out, overwrite)
        with appearing_folder(whole, FILES.__contains__) as folder:
            yield folder
