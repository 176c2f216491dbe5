"""Tables as text: what stands between their cells, in which encoding, and their rows in a stream."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, TextIO

import pyarrow as pa

from lanit.errors import LanitError
from pipeline.decoding.images import is_image_name
from pipeline.tables.annotations import is_label_studio_min, is_of_persons
from pipeline.tables.cells import Cells, Troubles, column_name, text_array, text_schema

_SAMPLE_LINES = 24  # by which the layout is told
_BATCH_ROWS = 8192
_NAMES = {",": "comma", "\t": "tab", ";": "';'", None: "white space"}

csv.field_size_limit(1 << 26)  # captions may be long; the limit of the csv module is 128 KiB


def encoding_of(head: bytes) -> str:
    """Of a text that begins so: UTF-16, as spreadsheets write Unicode, or else UTF-8."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" in head[:2] and len(head) > 1:
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def open_text(file: BinaryIO, head: bytes, newline: str) -> io.TextIOWrapper:
    """``file`` as text from its beginning. Bytes that are not UTF-8 become surrogate escapes: a file name in another
    encoding stays the name that it is."""
    encoding = encoding_of(head)
    errors = "replace" if encoding.startswith("utf-16") else "surrogateescape"
    return io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=newline)


@dataclass(frozen=True)
class _Layout:
    """delimiter: none for white space. before: lines before the header, if it has one. padded: whether a blank follows
    each delimiter."""

    delimiter: str | None
    names: tuple[str, ...]
    before: int = 0
    has_header: bool = True
    padded: bool = False

    @property
    def words(self) -> str:
        words = f"{_NAMES[self.delimiter]}-separated" if len(self.names) > 1 else "one column"
        return words if self.has_header else f"{words} without a header"

    def rows(self, lines: TextIO, name: str) -> Iterator[list[str]]:
        """Rows of cells below the header; empty lines are none."""
        for _ in range(self.before):
            lines.readline()
        if self.delimiter is None:
            reader: Iterator[list[str]] = (line.split() for line in lines)
        else:
            reader = _csv_rows(lines, self.delimiter, self.padded, name)
        rows = (row for row in reader if row)
        yield from islice(rows, int(self.has_header), None)


class TextTable:
    """A :class:`pipeline.tables.cells.OpenTable` of lines: CSV by commas, tabs or semicolons, and the attribute lists
    of CelebA, a count of rows, a line of names, then rows with the file before."""

    def __init__(self, file: BinaryIO, name: str, head: bytes, tabs: bool) -> None:
        """head: how the file begins. tabs: whether its name says that tabs separate its cells."""
        self._name = name
        self._lines = open_text(file, head, newline="")
        sample = [self._lines.readline() for _ in range(_SAMPLE_LINES)]
        self._layout = _layout_of(sample, "\t,;" if tabs else ",\t;")
        letters = set("".join(self._layout.names)) - set("\t\r\n")
        if any(unicodedata.category(letter) == "Cc" for letter in letters):
            raise LanitError(f"{name} is no table", "Give CSV, TSV, JSON Lines or Parquet, or what a tool exports.")
        self._hidden = is_of_persons if is_label_studio_min(self._layout.names) else lambda name: False
        kind = "TSV" if self._layout.delimiter == "\t" else "CSV"
        self.layout = f"Label Studio's {kind}" if self._hidden is is_of_persons else self._layout.words
        self.schema = text_schema(name for name in self._layout.names if not self._hidden(name))

    def texts(self, column: str, troubles: Troubles) -> Iterator[str | None]:
        index = self._layout.names.index(column)
        for row in self._rows():
            yield row[index] or None if index < len(row) else None

    def cells(self, wanted: Callable[[pa.Field], bool]) -> Cells:
        names = self._layout.names
        shown = (number for number, name in enumerate(names) if not self._hidden(name))
        chosen = [number for number, field in zip(shown, self.schema, strict=True) if wanted(field)]
        chunks: list[list[pa.Array]] = [[] for _ in chosen]
        rows, done = self._rows(), 0
        while batch := list(islice(rows, _BATCH_ROWS)):
            columns = _columns(batch, len(names), done, self._name)
            for chunk, number in zip(chunks, chosen, strict=True):
                chunk.append(text_array(columns[number]))
            done += len(batch)
        return [(names[n], pa.chunked_array(chunk, pa.string())) for n, chunk in zip(chosen, chunks, strict=True)]

    def _rows(self) -> Iterator[list[str]]:
        self._lines.seek(0)
        return self._layout.rows(self._lines, self._name)


def _columns(rows: list[list[str]], width: int, before: int, name: str) -> list[Sequence[str | None]]:
    """The cells of ``rows`` column by column; a short row lacks its last ones. Raises LanitError for a row that has
    more than ``width``, empty ones apart."""
    if all(len(row) == width for row in rows):
        return list(zip(*rows, strict=True))
    for number, row in enumerate(rows, before + 1):
        if any(row[width:]):
            message = f"cannot read {name}: row {number} has {len(row)} cells, and the header {width}"
            raise LanitError(message, "Mend the row, or put quotes around a cell that holds what separates cells.")
    return [[row[n] if n < len(row) else None for row in rows] for n in range(width)]


def _csv_rows(lines: TextIO, delimiter: str, padded: bool, name: str) -> Iterator[list[str]]:
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=padded)
    try:
        yield from rows
    except csv.Error as error:
        raise LanitError(f"{name}, line {rows.line_num}: {error}", "Mend the table.") from error


def _layout_of(sample: list[str], order: str) -> _Layout:
    """order: what may separate cells, the likeliest first: that is taken which fits the rows as it fits the header."""
    found = _of_celeba(sample)
    if found is not None:
        return found
    layouts = [(delimiter, _sample_rows(sample, delimiter)) for delimiter in order]
    several = [(delimiter, rows) for delimiter, rows in layouts if rows and len(rows[0]) > 1]
    even = [(delimiter, rows) for delimiter, rows in several if len({len(row) for row in rows}) == 1]
    delimiter, rows = (even or several or layouts)[0]
    header = rows[0] if rows else []
    padded = any(cell.startswith(" ") for cell in header[1:])
    header = [cell.strip() for cell in header] if padded else header
    if any(is_image_name(cell) for cell in header):
        return _Layout(delimiter, _made_up_names(header), has_header=False, padded=padded)
    return _Layout(delimiter, tuple(map(column_name, header)), padded=padded)


def _sample_rows(lines: list[str], delimiter: str) -> list[list[str]]:
    """The first rows; the last of several may be cut short inside of quotes, and is left out."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return []
    return rows[:-1] if lines[-1] and len(rows) > 1 else rows


def _of_celeba(sample: list[str]) -> _Layout | None:
    lines = [line.split() for line in sample[:3]]
    if len(lines[0]) != 1 or not lines[0][0].isdigit() or len(lines[2]) != len(lines[1]) + 1:
        return None
    return _Layout(None, ("path", *map(column_name, lines[1])), before=1)


def _made_up_names(cells: Sequence[str]) -> tuple[str, ...]:
    """The first column that has an image is ``path``, the others go by their number."""
    first = next(number for number, cell in enumerate(cells) if is_image_name(cell))
    return tuple("path" if number == first else f"column {number + 1}" for number in range(len(cells)))
