"""Names of files that a run is about to write: after a kill they tell its files from those of others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lanit.errors import cannot_write
from pipeline.files import sha256_bytes

_DIGITS = 8  # of the digest before each line


@dataclass(frozen=True)
class Announcements:
    """A file of lines, each a digest and the names that belong to it, as JSON."""

    path: Path

    def add(self, names: Sequence[str]) -> None:
        """Write ``names`` down, on the disk before this returns. Raises LanitError where the disk refuses."""
        text = json.dumps(list(names))
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{_digest(text)} {text}")  # a line of a killed process may have no end
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def names(self) -> Iterator[str]:
        """All that was written down; a line that is cut short or damaged says nothing."""
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                digest, _, text = line.rstrip("\n").partition(" ")
                if text and digest == _digest(text):
                    yield from json.loads(text)


def _digest(text: str) -> str:
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))[:_DIGITS]
