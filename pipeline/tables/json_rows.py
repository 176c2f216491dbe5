"""Rows of JSON: a line each, or the entries of one list, in a stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

import pyarrow as pa

from lanit.errors import LanitError
from pipeline.tables.annotations import labels_in
from pipeline.tables.cells import Cells, Troubles, column_name, file_text, plain_text, text_array, text_schema

_COLUMN_ROWS = 100  # columns are the keys of this many rows
_BLOCK = 1 << 16  # characters
_BETWEEN = (" ", "\t", "\r", "\n", ",")

Rows = Iterator[tuple[int, Any]]
"""Number and value of each row, from 1 on; what is no JSON object comes as none."""


class JsonTable:
    """A :class:`pipeline.tables.cells.OpenTable` of objects. layout: what it is. rows: gives them, each time anew.

    unit: what a row is called, such as ``line``.
    """

    def __init__(self, name: str, layout: str, rows: Callable[[], Rows], unit: str = "row") -> None:
        self._name, self._rows, self._unit = name, rows, unit
        self.layout = layout
        self.schema = text_schema(self._columns())

    def texts(self, column: str, troubles: Troubles) -> Iterator[str | None]:
        for number, row in self._rows():
            if row is None:
                unit, where = self._unit, f"{self._name}, {self._unit} {number}"
                troubles.add(f"{unit} is not a JSON object", f"{unit}s are not JSON objects", where)
                troubles.unlisted[:] = [""]  # one cut short may have named any image
                continue
            cell = row.get(column)
            if isinstance(cell, dict):  # an image and its path
                yield json.dumps(cell)
            else:
                yield file_text(cell) or None if isinstance(cell, str) else None

    def cells(self, wanted: Callable[[pa.Field], bool]) -> Cells:
        """A column of lists, as a choice of several is, has lists of texts."""
        columns: dict[str, list[Any]] = {}
        count = 0
        for number, row in self._rows():
            if row is None:
                raise self._no_object(number)
            for key, cell in row.items():
                cells = columns.setdefault(column_name(key), [])
                cells.extend([None] * (count - len(cells)))
                cells.append(cell)
            count += 1
        for cells in columns.values():
            cells.extend([None] * (count - len(cells)))
        arrays = {name: _array(cells) for name, cells in columns.items()}
        return [(name, array) for name, array in arrays.items() if wanted(pa.field(name, array.type))]

    def _columns(self) -> dict[str, None]:
        columns: dict[str, None] = {}
        for number, row in self._rows():
            if row is None and not columns:
                raise self._no_object(number)
            columns.update(dict.fromkeys(column_name(name) for name in row or ()))
            if number >= _COLUMN_ROWS:
                break
        return columns

    def _no_object(self, number: int) -> LanitError:
        hint = f'Each {self._unit} is one object, such as {{"image_path": "a.jpg"}}.'
        return LanitError(f"{self._name}, {self._unit} {number} is not a JSON object", hint)


def line_rows(lines: TextIO) -> Rows:
    """The lines that are not empty."""
    lines.seek(0)
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text:
            yield number, parsed_object(text)


def parsed_object(text: str) -> dict[str, Any] | None:
    """The object that ``text`` is; none where it is anything else."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def list_rows(text: TextIO) -> Rows:
    """The entries of a list, of which no more than a few are in memory; an end that was cut off is one that is none."""
    text.seek(0)
    decoder = json.JSONDecoder()
    waiting = text.read(_BLOCK)
    start, number = waiting.index("[") + 1, 0
    while True:
        while waiting[start : start + 1] in _BETWEEN:
            start += 1
        if waiting[start : start + 1] == "]":
            return
        try:
            entry, end = decoder.raw_decode(waiting, start)
        except (ValueError, RecursionError):
            more = text.read(max(_BLOCK, len(waiting)))
            if not more:
                yield number + 1, None
                return
            waiting, start = waiting[start:] + more, 0
            continue
        number += 1
        yield number, entry if isinstance(entry, dict) else None
        start = end
        if start > _BLOCK:
            waiting, start = waiting[start:], 0


def given_rows(rows: Iterable[dict[str, Any]]) -> Callable[[], Rows]:
    """Rows that are in memory, as :class:`JsonTable` takes them."""
    kept = list(rows)
    return lambda: iter(enumerate(kept, 1))


def _array(cells: list[Any]) -> pa.ChunkedArray:
    """Texts, or lists of texts where one is a list; what is neither, such as an object, is null."""
    cells = [_choices(cell) for cell in cells]
    if any(isinstance(cell, list) for cell in cells):
        lists = [[cell] if isinstance(cell, str) and cell else cell for cell in cells]
        kept = [[str(plain_text(item)) for item in cell] if isinstance(cell, list) else None for cell in lists]
        return pa.chunked_array([pa.array(kept, pa.list_(pa.string()))])
    return pa.chunked_array([text_array([plain_text(cell) for cell in cells])])


def _choices(cell: Any) -> Any:
    """Label Studio has several choices of a person as an object, and regions as a list of objects."""
    if isinstance(cell, dict):
        return cell.get("choices")
    if isinstance(cell, list) and any(isinstance(each, dict) for each in cell):
        return [label for each in cell if isinstance(each, dict) for label in labels_in(each)]
    return cell
