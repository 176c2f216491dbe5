"""Columns and cells of Parquet, CSV, TSV and JSON Lines tables, read in a stream."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import posixpath
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.inputs.columns import text_schema
from pipeline.inputs.storage import Troubles, file_name
from pipeline.inputs.storages import storage_of
from pipeline.stand_ins import refusal, stand_in

TABLE_SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")

_AGAIN = "Copy or download it again."
_BATCH_ROWS, _BATCH_BYTES = 8192, 8 << 20
_BUFFER_BYTES = 1 << 20
_HEAD = 512  # bytes that tell whether it is a table at all
_JSON_ROWS = 100  # columns of JSON Lines are the keys of this many rows

csv.field_size_limit(1 << 26)  # captions may be long; the limit of the csv module is 128 KiB


def table_suffix(path: str) -> str:
    """Such as ``.csv``, in lower case; empty for a file that is no table by its name."""
    suffix = posixpath.splitext(file_name(path))[1].lower()
    return suffix if suffix in TABLE_SUFFIXES else ""


def table_schema(path: str) -> pa.Schema:
    """Names and types of a table's columns; in CSV and JSON Lines all are text. Raises LanitError."""
    with _opened(path) as file:
        if table_suffix(path) == ".parquet":
            return open_parquet(file, path).schema_arrow
        return text_schema(list(_json_columns(file, path) if _is_json(path) else _csv_header(file, path)))


def path_cells(path: str, column: str, troubles: Troubles) -> Iterator[str | None]:
    """The texts of one column, row by row, none for empty cells; bytes that are not UTF-8 as surrogate escapes.

    Raises LanitError where the table cannot be read on.
    """
    with _opened(path) as file:
        if table_suffix(path) == ".parquet":
            yield from parquet_texts(open_parquet(file, path), column, path)
        elif _is_json(path):
            yield from _json_cells(file, column, path, troubles)
        else:
            yield from _csv_cells(file, column, path)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    try:
        with storage_of(path).open(path) as file:
            if found := stand_in(file.read(_HEAD)):
                raise refusal(path, found)
            file.seek(0)
            yield file
    except OSError as error:
        raise LanitError(f"cannot read {path}: {error.strerror or error}", "Try again, or copy it.") from error


def open_parquet(file: BinaryIO, path: str) -> pq.ParquetFile:
    """A Parquet file that is read in small pieces; ``path`` names it in errors. Raises LanitError."""
    try:
        return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise LanitError(f"{path} is not a whole Parquet file ({_line(error)})", _AGAIN) from error


def parquet_texts(
    table: pq.ParquetFile, field: str, path: str, groups: list[int] | None = None
) -> Iterator[str | None]:
    """The texts of a column, or of a struct's field as ``column.field``, of all row groups or of some."""
    try:
        for group in range(table.metadata.num_row_groups) if groups is None else groups:
            rows = _rows_at_a_time(table.metadata.row_group(group), field)
            for batch in table.iter_batches(rows, row_groups=[group], columns=[field], use_threads=False):
                yield from texts(_leaf(batch.column(0)))
    except (pa.ArrowException, OSError) as error:
        raise LanitError(f"{path} is damaged ({_line(error)})", _AGAIN) from error


def _rows_at_a_time(group: Any, field: str) -> int:
    """Fewer where the texts are long, as images in base64 are."""
    chunks = (group.column(index) for index in range(group.num_columns))
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == field)
    return max(16, min(_BATCH_ROWS, _BATCH_BYTES * group.num_rows // max(1, size)))


def texts(column: pa.Array) -> Iterator[str | None]:
    """Python strings of an array of text; a text that is not UTF-8 keeps its bytes as surrogate escapes."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    for value in column.cast(pa.large_binary()).to_pylist():
        yield None if value is None else value.decode("utf-8", "surrogateescape")


def _leaf(column: pa.Array) -> pa.Array:
    """A struct of which one field was read, as that field; null where the struct is."""
    return column.flatten()[0] if isinstance(column, pa.StructArray) else column


def _is_json(path: str) -> bool:
    return table_suffix(path) in (".jsonl", ".ndjson")


def _csv_reader(file: BinaryIO, path: str) -> Iterator[list[str]]:
    """Rows of texts; an empty file has none."""
    # surrogate escapes: a file name in another encoding stays the name that it is
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    delimiter = "\t" if table_suffix(path) == ".tsv" else ","
    if delimiter == ",":
        header = lines.readline()
        lines.seek(0)
        delimiter = "," if "," in header or ";" not in header else ";"  # as spreadsheets write in half of Europe
    rows = csv.reader(lines, delimiter=delimiter)
    try:
        yield from rows
    except csv.Error as error:
        raise LanitError(f"{path}, line {rows.line_num}: {error}", "Mend the table.") from error


def _csv_header(file: BinaryIO, path: str) -> list[str]:
    return [_column_name(name) for name in next(_csv_reader(file, path), [])]


def _csv_cells(file: BinaryIO, column: str, path: str) -> Iterator[str | None]:
    rows = _csv_reader(file, path)
    index = [_column_name(name) for name in next(rows, [])].index(column)
    for row in rows:
        if row:  # an empty line is no row
            yield row[index] or None if index < len(row) else None


def _json_rows(file: BinaryIO) -> Iterator[tuple[int, Any]]:
    """Line numbers and rows; what is not a JSON object comes as none."""
    for number, line in enumerate(file, 1):
        text = line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape").strip()
        if not text:
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        yield number, row if isinstance(row, dict) else None


def _json_columns(file: BinaryIO, path: str) -> dict[str, None]:
    columns: dict[str, None] = {}
    for number, row in _json_rows(file):
        if row is None and not columns:
            hint = 'Each line is one object, such as {"image_path": "a.jpg"}.'
            raise LanitError(f"{path}, line {number} is not a JSON object", hint)
        columns.update(dict.fromkeys(_column_name(name) for name in row or ()))
        if number >= _JSON_ROWS:
            break
    return columns


def _json_cells(file: BinaryIO, column: str, path: str, troubles: Troubles) -> Iterator[str | None]:
    for number, row in _json_rows(file):
        if row is None:
            troubles.add("line is not a JSON object", "lines are not JSON objects", f"{path}, line {number}")
            troubles.unlisted[:] = [""]  # a line cut short may have named any image
            continue
        cell = row.get(column)
        if isinstance(cell, dict):
            yield json.dumps(cell)
        else:
            yield _name(cell) if isinstance(cell, str) else None


def _column_name(name: str) -> str:
    """As a schema can hold it."""
    return name.encode("utf-8", "backslashreplace").decode()


def _name(cell: str) -> str | None:
    """None where it is empty; a lone ``\\ud800``, which no file's name can hold, becomes bytes that are not UTF-8."""
    try:
        cell.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return cell.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    return cell or None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
