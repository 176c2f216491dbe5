"""Look-up tables of DICOM: entries of 8 to 16 bits, in bytes or in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Table:
    """entries: uint16 (n). first: the value that the first entry stands for; lower ones get it too, and those above the
    last entry that one. depth: bits of an entry, as the entries themselves bear out."""

    entries: np.ndarray
    first: int
    depth: int

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """The entry of each value, uint16. values: integers, or floats that are rounded."""
        first = self.first
        if first >= 1 << 15 and values.size and values.max() < first:  # a negative number, written without its sign
            first -= 1 << 16
        places = np.rint(values).astype(np.int64) - first
        return self.entries[np.clip(places, 0, len(self.entries) - 1)]


def read_table(descriptor: Sequence[int], data: bytes | Sequence[int] | int, *, little_endian: bool) -> Table:
    """A table as a file holds it. descriptor: number of entries, the first value, bits of an entry.

    pydicom's own functions look the place up in the type of the entries, so that tables of bytes with more than 256
    entries wrap around, and refuse depths such as 12. Raises ValueError for a table without entries.
    """
    count = int(descriptor[0]) % (1 << 16) or 1 << 16  # 0 stands for 65 536; more than 32 767 may be written negative
    if isinstance(data, bytes):
        words = np.frombuffer(data + bytes(len(data) % 2), "<u2" if little_endian else ">u2").astype("<u2")
    else:
        words = np.array([data] if isinstance(data, int) else list(data), "<u2")
    packed = len(words) <= (count + 1) // 2 and count > 1  # two entries of 8 bits in a word
    entries = words.view(np.uint8)[:count].astype(np.uint16) if packed else words[:count]
    if not len(entries):
        raise ValueError("a look-up table without entries")
    return Table(entries, int(descriptor[1]), true_depth(int(descriptor[2]), int(entries.max())))


def true_depth(declared: int, highest: int) -> int:
    """Bits of an entry: as declared, but 8 where no entry needs more, and 16 where one does not fit.

    Writers put 8-bit entries into 16-bit words and say 16: taken at their word, the picture would be black.
    """
    if highest < 1 << 8:
        return 8
    return declared if 8 <= declared <= 16 and highest < 1 << declared else 16
