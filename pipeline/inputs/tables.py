"""A table of image paths, of any kind that :mod:`pipeline.tables` reads, or of image bytes in Parquet."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from itertools import islice, repeat
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.decoding.limits import ImageError
from pipeline.inputs.cell_rows import CellRows
from pipeline.inputs.columns import ImageColumn, choose_column
from pipeline.inputs.image_cells import held_bytes, image_cell
from pipeline.inputs.parquet_rows import ParquetRows, of_large_pages
from pipeline.inputs.places import BaseInput, Place
from pipeline.inputs.storage import UNKNOWN, Troubles, file_name, is_url, located, parent_of
from pipeline.inputs.storages import storage_of
from pipeline.inputs.table_cells import listed_path, names_images, opened_table, path_cells, table_schema
from pipeline.path_names import one_spelling
from pipeline.tables.parquet import open_parquet, parquet_texts

_LONGEST_KEY = 4096  # characters; a column that is no name after all may hold anything
_FEW_ROWS = 64  # read at a time where only the bytes themselves tell which rows have any


class Table(BaseInput):
    """An :class:`pipeline.inputs.places.Input`. The images are in the column that
    :func:`pipeline.inputs.columns.choose_column` chooses.

    A path is as the table has it, in the one spelling: absolute, a URL, or relative to the table's folder; an image
    that it names has no offset. An image that the table holds, as bytes or as text
    (:mod:`pipeline.inputs.image_cells`), has its row for an offset and its key for a path: the text of a key column,
    else the path of Hugging Face's struct, else such as ``row-000000012``. A row of the struct without bytes is a path.
    """

    def __init__(self, source: str, image_column: str | None) -> None:
        super().__init__(source, image_column)
        self._rows: ParquetRows | CellRows | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Table], tuple[str, str | None]]:
        return Table, (self.source, self.image_column)  # locks and open files stay here

    def column(self) -> ImageColumn:
        """The column of images. Raises LanitError where there is none, or the table cannot be read."""
        return self._chosen(table_schema(self.source))

    def understood(self) -> str:
        """What the table was taken for, in one line. Raises LanitError as :meth:`column`."""
        with opened_table(self.source) as table:
            return f"{file_name(self.source)}: {table.layout}, images in {self._chosen(table.schema).name}"

    def _chosen(self, schema: pa.Schema) -> ImageColumn:
        return choose_column(schema, self.image_column, self.source, partial(names_images, self.source))

    def places(self) -> Iterator[Place]:
        self._begin_listing()
        troubles = Troubles()
        column = self.column()
        found = False
        for place in self._held(column) if column.bytes else self._named(column, troubles):
            found = True
            yield place
        if self.ignored:
            some = "1 row names" if self.ignored == 1 else f"{self.ignored:,} rows name"
            self.warnings.append(f"{some} no image in the column {column.name} of {self.source}")
        if not found:
            self.warnings.append(f"there are no images in {self.source}")
        self.warnings.extend(troubles.sentences())
        self.unlisted = troubles.unlisted

    def read(self, path: str, offset: int | None, size: int | None) -> bytes:
        if offset is None:
            return self._read_path(path)
        rows = self._held_rows()
        if isinstance(rows, CellRows):
            return held_bytes(rows.cell(offset))
        data, named = rows.cell(offset)
        if data is not None:
            return data
        if named:
            return self._read_path(named)
        raise ImageError("the row holds no image", f"row {offset} of {self.source}")

    def exists(self) -> bool:
        return storage_of(self.source).kind(self.source) == "file"

    def _read_path(self, path: str) -> bytes:
        full = located(parent_of(self.source), path)
        return storage_of(full).read(full)

    def _held_rows(self) -> ParquetRows | CellRows:
        with self._lock:
            if self._rows is None:
                try:
                    column = self.column()
                    kind = ParquetRows(self.source, column) if column.bytes else CellRows(self.source, column.name)
                    self._rows = kind
                except LanitError as error:
                    raise ImageError(error.message, self.source) from error
            return self._rows

    def _named(self, column: ImageColumn, troubles: Troubles) -> Iterator[Place]:
        modified = storage_of(self.source).stat(self.source).modified_ns
        keys = _Keys(self.source, column.key)
        for row, cell in enumerate(path_cells(self.source, column.name, troubles)):
            held, path = image_cell(cell) if cell else (False, None)
            if held:
                yield Place(self.source, keys.of(row) or path or f"row-{row:09d}", row, None, modified)
            elif path:
                yield self._named_place(path)
            else:
                self.ignored += 1

    def _named_place(self, cell: str) -> Place:
        known, path = UNKNOWN, listed_path(cell, parent_of(self.source))
        if not is_url(self.source) and not is_url(path):  # a request for each row would cost as much as the image
            full = located(parent_of(self.source), path)
            known = storage_of(full).stat(full)
        return Place(self.source, path, None, *known)

    def _held(self, column: ImageColumn) -> Iterator[Place]:
        modified = storage_of(self.source).stat(self.source).modified_ns
        with storage_of(self.source).open(self.source) as file:
            table = open_parquet(file, self.source)
            self.warnings += of_large_pages(table.metadata, column, self.source)
            row = 0
            for group in range(table.metadata.num_row_groups):
                keys = self._texts(table, column.key, group)
                paths = self._texts(table, column.path, group)
                for held, key, path in zip(_has_bytes(table, column, group), keys, paths, strict=False):
                    if held or not path:
                        name = one_spelling(key or path or f"row-{row:09d}")
                        yield Place(self.source, name, row, None, modified)
                    else:
                        yield self._named_place(path)
                    row += 1

    def _texts(self, table: pq.ParquetFile, field: str | None, group: int) -> Iterator[str | None]:
        return repeat(None) if field is None else parquet_texts(table, field, self.source, [group])


class _Keys:
    """The names of the images that a column of text holds; the table is read again where there are such."""

    def __init__(self, source: str, column: str | None) -> None:
        self._cells = iter(()) if column is None else path_cells(source, column, Troubles())
        self._next = 0

    def of(self, row: int) -> str | None:
        """Of rows that rise from call to call."""
        cell = next(islice(self._cells, row - self._next, None), None)
        self._next = row + 1
        return cell[:_LONGEST_KEY] if cell else None


def _has_bytes(table: pq.ParquetFile, column: ImageColumn, group: int) -> Iterator[bool]:
    """For each row of a row group, whether it holds bytes; their count of nulls tells, where it was written."""
    metadata = table.metadata.row_group(group)
    if column.path is None:  # then a row without bytes has nothing else either
        return repeat(True, metadata.num_rows)
    chunks: list[Any] = [metadata.column(index) for index in range(metadata.num_columns)]
    [chunk] = [chunk for chunk in chunks if chunk.path_in_schema == column.bytes]
    nulls = chunk.statistics.null_count if chunk.is_stats_set and chunk.statistics.has_null_count else None
    if nulls in (0, metadata.num_rows):
        return repeat(nulls == 0, metadata.num_rows)
    return _looked_at(table, column, group)


def _looked_at(table: pq.ParquetFile, column: ImageColumn, group: int) -> Iterator[bool]:
    batches = table.iter_batches(_FEW_ROWS, row_groups=[group], columns=[column.bytes], use_threads=False)
    for batch in batches:
        values: pa.Array = batch.column(0).flatten()[0]
        yield from values.is_valid().to_pylist()
