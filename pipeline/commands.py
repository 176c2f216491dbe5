"""Commands of lanit as messages write them: what they say can be typed as it stands."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

DEFAULT_STORE = Path("manifests")
STORE_VARIABLE = "LANIT_STORE"
"""Of the environment: the store of commands that are given none."""


def store_above(name: Path = DEFAULT_STORE) -> Path:
    """The store ``name`` here or, as git finds its own, in the nearest folder above that has one; ``name`` where
    none has."""
    here = Path.cwd()
    if name.is_absolute() or _is_store(name):
        return name
    return next((folder / name for folder in here.parents if _is_store(folder / name)), name)


def _is_store(folder: Path) -> bool:
    return any((folder / file).is_file() for file in ("store.json", "images/unfinished.jsonl"))


def store_option(root: Path) -> str:
    """What names the store ``root`` after a command: `` --store DIR``, or nothing where it is the default."""
    named = os.environ.get(STORE_VARIABLE)
    return "" if root == (Path(named) if named else store_above()) else f" --store {shlex.quote(str(root))}"
