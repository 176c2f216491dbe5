"""JSON documents of any length, written piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pipeline.exports.destination import flush_to_disk
from pipeline.exports.inventory import Written


def write_pieces(folder: Path, name: str, pieces: Iterable[str]) -> Written:
    """Write a file of text, UTF-8, on the disk before this returns."""
    with (folder / name).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(pieces)
    flush_to_disk(folder / name)
    return Written.of(folder, name)


def as_array(items: Iterable[object]) -> Iterable[str]:
    """A JSON array, a line for each item."""
    yield "["
    for number, item in enumerate(items):
        yield f"{',' if number else ''}\n{as_json(item)}"
    yield "\n]"


def as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
