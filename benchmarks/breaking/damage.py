"""Seeded damage to one file: a bit turned, a block of zeros, a cut, another world's file in its place."""

from __future__ import annotations

import random
import re
from pathlib import Path

KINDS = ("flip", "zero", "cut", "swap")
_BLOCK = 512
_OWN_NAMES = re.compile(r"[0-9a-f]{8,}")


def damage(path: Path, kind: str, chance: random.Random, counterpart: Path | None) -> str | None:
    """Damage the file; a word on how, or none where this kind does not change it.

    counterpart: the same file of another world, for ``swap``.
    """
    before = path.read_bytes()
    if kind == "swap":
        if counterpart is None:
            return None
        after, how = counterpart.read_bytes(), "swapped"
    elif not before:
        return None
    elif kind == "flip":
        at, bit = chance.randrange(len(before)), chance.randrange(8)
        after = before[:at] + bytes([before[at] ^ 1 << bit]) + before[at + 1 :]
        how = f"bit {bit} of byte {at}"
    elif kind == "zero":
        at = chance.randrange(len(before))
        count = min(_BLOCK, len(before) - at)
        after, how = before[:at] + bytes(count) + before[at + count :], f"{count} zeros at {at}"
    else:
        at = chance.randrange(len(before))
        after, how = before[:at], f"cut to {at}"
    if after == before:
        return None
    path.write_bytes(after)
    return f"{how} of {len(before)}"


def same_file_of(folder: Path, name: str) -> Path | None:
    """The file of another world that stands for ``name``: digests in names may differ."""
    if (folder / name).is_file():
        return folder / name
    plain = _OWN_NAMES.sub("#", name)
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    alike = [path for path in found if _OWN_NAMES.sub("#", path.relative_to(folder).as_posix()) == plain]
    return alike[0] if len(alike) == 1 else None
