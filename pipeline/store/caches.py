"""What a store keeps only to save time: small files that know their own name and content, and room to work in."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lanit.errors import LanitError, cannot_write
from pipeline.files import is_unwritable, sweep_beside, temporary_name, write_bytes

if TYPE_CHECKING:
    from pipeline.store.store import Store

_DIGEST_BYTES = 32


def named_content(name: str, content: bytes) -> bytes:
    """``content`` with a digest of it and of the name of its file behind it, for :func:`content_of`."""
    return content + hashlib.sha256(name.encode() + b"\0" + content).digest()


def content_of(path: Path) -> bytes | None:
    """What :func:`named_content` was given for this file; none where it is missing, damaged or anybody else's."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content = data[:-_DIGEST_BYTES]
    return content if named_content(path.name, content) == data else None


def read_array(path: Path) -> np.ndarray | None:
    """What :func:`keep_array` wrote; none where it is missing, damaged or anybody else's."""
    content = content_of(path)
    if content is None:
        return None
    kept: np.ndarray = np.load(io.BytesIO(content))
    return kept


def keep_array(path: Path, array: np.ndarray) -> bool:
    """Write an array, of numbers or records. Returns whether it is kept: nothing is where nothing can be written."""
    file = io.BytesIO()
    np.save(file, array)
    try:
        write_bytes(path, named_content(path.name, file.getvalue()))
    except (LanitError, OSError):
        return False
    return True


@contextlib.contextmanager
def scratch_folder(store: Store, name: str) -> Iterator[Path]:
    """A folder to work in: beside the caches of ``store``, where there is room for as much again, or among the
    system's temporary files where the store cannot be written. It is gone on leaving, after a kill the next time.

    Raises LanitError where the disk refuses.
    """
    place = store.root / "cache" / name
    folder = temporary_name(place)
    try:
        place.parent.mkdir(exist_ok=True)
        sweep_beside(place)
        folder.mkdir()
    except OSError as error:
        if not is_unwritable(error):
            raise cannot_write(folder, error) from error
        with tempfile.TemporaryDirectory(prefix="lanit-", ignore_cleanup_errors=True) as other:
            yield Path(other)
        return
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
