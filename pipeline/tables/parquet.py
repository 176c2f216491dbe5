"""Parquet files in small pieces; what Hugging Face says in them of its columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.tables.cells import Cells, Troubles, damaged, is_list

_BATCH_ROWS, _BATCH_BYTES = 8192, 8 << 20
_BUFFER_BYTES = 1 << 20
_AGAIN = "Copy or download it again."


class ParquetTable:
    """A :class:`pipeline.tables.cells.OpenTable`. Where Hugging Face's metadata name the classes of a column of
    numbers, or of lists of them, its cells are these names, and its type in ``schema`` is that of texts."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._name = name
        self._table: pq.ParquetFile = open_parquet(file, name)
        stored = self._table.schema_arrow
        self._classes = class_names(stored)
        self.layout = "Parquet"
        self.schema = pa.schema([_named(field) if field.name in self._classes else field for field in stored])

    def texts(self, column: str, troubles: Troubles) -> Iterator[str | None]:
        return parquet_texts(self._table, column, self._name)

    def cells(self, wanted: Callable[[pa.Field], bool]) -> Cells:
        return [(field.name, self._column(field.name)) for field in self.schema if wanted(field)]

    def _column(self, name: str) -> pa.ChunkedArray:
        """The first of its name."""
        if not self._table.metadata.num_rows:
            return pa.chunked_array([], pa.string())
        try:
            table = self._table.read([name])
        except (pa.ArrowException, OSError) as error:
            raise damaged(self._name, error) from error
        column = table.column(table.schema.names.index(name))
        return _with_names(column, self._classes[name]) if name in self._classes else column


def open_parquet(file: BinaryIO, name: str) -> pq.ParquetFile:
    """A Parquet file that is read in small pieces; ``name`` is its in errors. Raises LanitError."""
    try:
        return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise LanitError(f"{name} is not a whole Parquet file ({' '.join(str(error).split())})", _AGAIN) from error


def parquet_texts(
    table: pq.ParquetFile, field: str, name: str, groups: list[int] | None = None
) -> Iterator[str | None]:
    """The texts of a column, or of a struct's field as ``column.field``, of all row groups or of some."""
    try:
        for group in range(table.metadata.num_row_groups) if groups is None else groups:
            rows = _rows_at_a_time(table.metadata.row_group(group), field)
            for batch in table.iter_batches(rows, row_groups=[group], columns=[field], use_threads=False):
                yield from texts(_leaf(batch.column(0)))
    except (pa.ArrowException, OSError) as error:
        raise damaged(name, error) from error


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


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """By column the names of its classes, as Hugging Face's ``datasets`` writes them into a file; damage counts as
    none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: _names_of(feature) for name, feature in features.items()}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return {}
    return {field.name: found[field.name] for field in schema if found.get(field.name) and _holds_numbers(field.type)}


def _names_of(feature: Any) -> list[str]:
    """Of a ClassLabel, or of a list of them, in the spellings of several versions."""
    if isinstance(feature, list):
        return _names_of(feature[0]) if len(feature) == 1 else []
    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []
    return _names_of(feature["feature"]) if isinstance(feature, dict) and "feature" in feature else []


def _holds_numbers(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind.value_type if is_list(kind) else kind)


def _named(field: pa.Field) -> pa.Field:
    return pa.field(field.name, pa.list_(pa.string()) if is_list(field.type) else pa.string())


def _with_names(column: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Numbers, or lists of them, as the names of their classes; another number, such as −1, is none."""
    name_of = dict(enumerate(names))
    cells = column.to_pylist()
    if pa.types.is_integer(column.type):
        return pa.chunked_array([pa.array(map(name_of.get, cells), pa.string())])
    found = [None if cell is None else [name_of[n] for n in cell if n in name_of] for cell in cells]
    return pa.chunked_array([pa.array(found, pa.list_(pa.string()))])


def _leaf(column: pa.Array) -> pa.Array:
    """A struct of which one field was read, as that field; null where the struct is."""
    return column.flatten()[0] if isinstance(column, pa.StructArray) else column
