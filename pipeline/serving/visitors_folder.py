"""The temporary folder of a server: it goes with the server, or where that was killed, with the next one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lanit.errors import LanitError
from pipeline.files import LOCK_NAME, exclusive_lock
from pipeline.folders import Ours, remove_ours


@contextlib.contextmanager
def visitors_folder(prefix: str, ours: Ours) -> Iterator[Path]:
    """A new folder in the system's temporary one, removed on leaving. ours: what the server writes into it.

    Folders of the same ``prefix`` whose servers were killed go first: those of this user, with a lock that nobody
    holds. Nothing but files of ``ours`` is removed from them.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(LanitError, OSError):
            _sweep(left, ours)
    with tempfile.TemporaryDirectory(prefix=prefix) as folder, _held(Path(folder)):
        yield Path(folder)


def _sweep(folder: Path, ours: Ours) -> None:
    """Remove ``folder`` where a killed server left it. Raises LanitError where its server lives."""
    mine = not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()
    if mine and not folder.is_symlink() and (folder / LOCK_NAME).is_file():
        with _held(folder):
            remove_ours(folder, lambda name: name == LOCK_NAME or ours(name))


def _held(folder: Path) -> contextlib.AbstractContextManager[None]:
    busy = LanitError("another server holds this folder", "Run the same command again.")
    return exclusive_lock(folder / LOCK_NAME, busy)
