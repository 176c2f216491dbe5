"""Digests of Parquet files: of a file, sealed into its own footer, and of a footer, which tells files apart."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq

_KEY = "lanit_seal"
_OPEN = "0" * 64
_MAGIC = b"PAR1"
_TAIL = 8  # bytes behind the footer: its length, and the magic
_SEAL = re.compile(re.escape(_KEY.encode()) + rb"..([0-9a-f]{64})", re.DOTALL)
_BLOCK = 1 << 20


def close_sealed(writer: pq.ParquetWriter, written: Path | BinaryIO) -> None:
    """Close ``writer``, which wrote to ``written``, and put the digest of all its other bytes into its footer."""
    writer.add_key_value_metadata({_KEY: _OPEN})
    writer.close()
    with written.open("rb+") if isinstance(written, Path) else contextlib.nullcontext(written) as file:
        place = _place(file)
        if place is None:
            raise ValueError(f"{written} has no room for a seal")
        digest = _digest(file, place)
        file.seek(place)
        file.write(digest.encode())


def is_whole(path: Path) -> bool:
    """Whether a file that :func:`close_sealed` wrote is as it was then; not so of one without a seal.

    Raises OSError where it cannot be read.
    """
    with path.open("rb") as file:
        place = _place(file)
        if place is None:
            return False
        file.seek(place)
        return file.read(len(_OPEN)) == _digest(file, place).encode()


def footer_sha256(path: Path) -> str:
    """SHA-256 (hex) of the footer of a file, with its length and the magic; no page is read.

    Sealed files of different content differ in it. Raises OSError where it cannot be read, ValueError where it does not
    end as a Parquet file does.
    """
    with path.open("rb") as file:
        data = _footer(file)
    if not data.endswith(_MAGIC):
        raise ValueError("it does not end as a Parquet file does")
    return hashlib.sha256(data).hexdigest()


def _footer(file: BinaryIO) -> bytes:
    """The footer with what stands behind it; as much of that as there is."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _TAIL))
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(0, size - _TAIL - length))
    return file.read()


def _place(file: BinaryIO) -> int | None:
    """Where in the file the seal begins."""
    footer = _footer(file)
    found = list(_SEAL.finditer(footer, 0, max(0, len(footer) - _TAIL)))
    return file.tell() - len(footer) + found[-1].start(1) if found else None


def _digest(file: BinaryIO, place: int) -> str:
    """SHA-256 of the file with an open seal, so that the seal is not part of what it seals."""
    digest = hashlib.sha256()
    file.seek(0)
    left = place
    while left and (block := file.read(min(_BLOCK, left))):
        digest.update(block)
        left -= len(block)
    digest.update(_OPEN.encode())
    file.seek(place + len(_OPEN))
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
