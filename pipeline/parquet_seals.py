"""Parquet files that notice a change of any of their bytes: a digest of the file, in its own footer."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pyarrow.parquet as pq

_KEY = "lanit_seal"
_OPEN = "0" * 64
_TAIL = 8  # bytes behind the footer: its length, and PAR1
_SEAL = re.compile(re.escape(_KEY.encode()) + rb"..([0-9a-f]{64})", re.DOTALL)
_BLOCK = 1 << 20


def close_sealed(writer: pq.ParquetWriter, path: Path) -> None:
    """Close ``writer``, which wrote ``path``, and put the digest of all its other bytes into its footer."""
    writer.add_key_value_metadata({_KEY: _OPEN})
    writer.close()
    place = _place(path)
    if place is None:
        raise ValueError(f"{path} has no room for a seal")
    with path.open("rb+") as file:
        file.seek(place)
        file.write(_digest(path, place).encode())


def is_whole(path: Path) -> bool:
    """Whether a file that :func:`close_sealed` wrote is as it was then; not so of one without a seal.

    Raises OSError where it cannot be read.
    """
    place = _place(path)
    if place is None:
        return False
    with path.open("rb") as file:
        file.seek(place)
        return file.read(len(_OPEN)) == _digest(path, place).encode()


def _place(path: Path) -> int | None:
    """Where in the file the seal begins."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL))
        length = min(int.from_bytes(file.read(4), "little"), max(0, size - _TAIL))
        start = size - _TAIL - length
        file.seek(max(0, start))
        found = list(_SEAL.finditer(file.read(length)))
    return start + found[-1].start(1) if found else None


def _digest(path: Path, place: int) -> str:
    """SHA-256 of the file with an open seal, so that the seal is not part of what it seals."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = place
        while left:
            block = file.read(min(_BLOCK, left))
            if not block:
                break
            digest.update(block)
            left -= len(block)
        digest.update(_OPEN.encode())
        file.seek(place + len(_OPEN))
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
