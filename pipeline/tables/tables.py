"""Opening a table: what it is by what is in it, whatever it is called."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO, TextIO
from urllib.parse import urlsplit

from lanit.errors import LanitError
from pipeline.path_names import is_address
from pipeline.tables.annotations import (
    is_coco,
    is_label_studio,
    is_label_studio_min,
    of_coco,
    of_cvat,
    of_label_studio,
    without_persons,
)
from pipeline.tables.cells import OpenTable
from pipeline.tables.json_rows import JsonTable, Rows, line_rows, list_rows, parsed_object
from pipeline.tables.parquet import ParquetTable
from pipeline.tables.texts import TextTable, encoding_of, open_text

TABLE_SUFFIXES = (".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson")
"""Of files that are tables for certain."""
MAYBE_SUFFIXES = (".tab", ".txt", ".json", ".xml")
"""Of files that are tables where somebody says so."""

_HEAD = 4096  # bytes
_JSON = re.compile(r'\s*(\[\s*[\[{\]]|\{\s*["}])')
_XML = re.compile(r"\s*<(\?xml|annotations)\b")
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


def open_table(file: BinaryIO, name: str) -> OpenTable:
    """The table in ``file``, which can seek: Parquet; text whose cells are separated by commas, tabs or semicolons, in
    UTF-8 or UTF-16; CelebA's lists; JSON Lines or a list; COCO; Label Studio's JSON and JSON-MIN; CVAT's XML.

    name: of the file, in errors; its suffix counts where its content leaves a doubt. Raises LanitError.
    """
    suffix = posixpath.splitext(urlsplit(name).path if is_address(name) else name)[1].lower()
    head = file.read(_HEAD)
    file.seek(0)
    if head.startswith(b"PAR1") or suffix in (".parquet", ".pq"):
        return ParquetTable(file, name)
    start = head.decode(encoding_of(head), "replace")
    if _XML.match(start):
        return of_cvat(file, name)
    if _JSON.match(start) or (suffix in _JSON_SUFFIXES and start.strip()):
        text = open_text(file, head, newline="\n")
        return _list(text, name) if start.lstrip().startswith("[") else _objects(text, name)
    return TextTable(file, name, head, tabs=suffix in (".tsv", ".tab"))


def _list(text: TextIO, name: str) -> OpenTable:
    rows = partial(list_rows, text)
    entry = next((row for _, row in rows()), None)
    if is_label_studio(entry):
        return of_label_studio(rows(), name)
    if is_label_studio_min(entry):
        return JsonTable(name, "Label Studio's JSON-MIN", partial(_without_persons, rows))
    return JsonTable(name, "a JSON list", rows)


def _objects(text: TextIO, name: str) -> OpenTable:
    """One object a line, or one in all."""
    document = _document(text)
    if document is None:
        return JsonTable(name, "JSON Lines", partial(line_rows, text), "line")
    if is_coco(document):
        return of_coco(document, name)
    hint = "Give a table, a list of objects, or an export of COCO, Label Studio or CVAT."
    raise LanitError(f"{name} is JSON, but neither rows nor annotations of images", hint)


def _document(text: TextIO) -> dict[str, Any] | None:
    """The one object that the file is; none where each line is one."""
    first = next((line for line in text if line.strip()), "")
    row = parsed_object(first)
    if row is not None:
        return row if is_coco(row) else None
    if first.rstrip().endswith("}"):
        return None
    text.seek(0)
    return parsed_object(text.read())


def _without_persons(rows: Callable[[], Rows]) -> Rows:
    return ((number, without_persons(row)) for number, row in rows())
