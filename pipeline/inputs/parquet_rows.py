"""Image bytes of a Parquet file by row number, a few decoded batches at a time."""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.decoding.limits import ImageError
from pipeline.inputs.columns import ImageColumn
from pipeline.inputs.storages import storage_of
from pipeline.tables.parquet import open_parquet, texts

_BATCH_BYTES = 8 << 20
_LEAST_ROWS, _MOST_ROWS = 16, 4096
_LARGE_PAGE = 256 << 20
_BATCHES = 4  # kept: threads ask for rows almost in order
_OPEN_FILES = 4  # hold decoded batches at a time, however many tables a run reads


class ParquetRows:
    """The image column of one file. Safe in threads.

    Rows that are asked for in order are decoded once. An earlier row that is not kept any more costs decoding its row
    group from the beginning. In memory are some batches, and the pages that the next one comes from: a page can only be
    read as a whole, and writers that know no better make one of a thousand images (:func:`of_large_pages`).
    """

    def __init__(self, source: str, column: ImageColumn) -> None:
        self._source = source
        self._column = column
        self._lock = threading.Lock()
        self._cursor: _Cursor | None = None

    def cell(self, row: int) -> tuple[bytes | None, str | None]:
        """The image bytes of a row; where there are none, the path beside them, if any. Raises ImageError."""
        with self._lock:
            cursor = self._cursor
            try:
                if cursor is None:
                    cursor = self._cursor = _Cursor(self._source, self._column)
                    note_open(self)
                start, batch = cursor.batch(row)
            except LanitError as error:
                raise ImageError(error.message, self._source) from error
            except (pa.ArrowException, OSError) as error:
                self._cursor = None
                raise ImageError(f"the table is damaged ({error})", self._source) from error
        column = batch.column(0).slice(row - start, 1)
        if not isinstance(column, pa.StructArray):
            return column[0].as_py(), None
        parts = dict(zip((field.name for field in column.type.fields), column.flatten(), strict=True))
        data: bytes | None = parts["bytes"][0].as_py()
        return data, next(texts(parts["path"])) if data is None and "path" in parts else None

    def release(self) -> None:
        """Close the file and forget its batches, once no thread uses them; the next row opens it again."""
        self._cursor = None  # without the lock: the caller may hold that of another file


class _Cursor:
    """A position in an open file, and the batches before it."""

    def __init__(self, source: str, column: ImageColumn) -> None:
        self._file: BinaryIO = storage_of(source).open(source)
        self._table: pq.ParquetFile = open_parquet(self._file, source)
        self._column = column
        metadata = self._table.metadata
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        self._starts = [0, *accumulate(group.num_rows for group in groups)]
        self._batch_rows = [_batch_rows(group, column) for group in groups]
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._next = self._end = 0  # the row that the next batch begins with, and where its row group ends
        self._kept: deque[tuple[int, pa.RecordBatch]] = deque(maxlen=_BATCHES)

    def __del__(self) -> None:
        self._file.close()

    def batch(self, row: int) -> tuple[int, pa.RecordBatch]:
        """The batch around a row, and the number of its first row."""
        if not 0 <= row < self._starts[-1]:
            raise LanitError(f"the table has {self._starts[-1]} rows by now, and no row {row}", "Embed it again.")
        for start, batch in self._kept:
            if start <= row < start + len(batch):
                return start, batch
        if not self._next <= row < self._end:
            self._enter(bisect_right(self._starts, row) - 1)
        while True:
            start, batch = self._next, next(self._batches, None)
            if batch is None:
                raise OSError("a row group is shorter than the file says")
            self._next += len(batch)
            self._kept.append((start, batch))
            if row < self._next:
                return start, batch

    def _enter(self, group: int) -> None:
        self._next, self._end = self._starts[group : group + 2]
        self._batches = self._table.iter_batches(
            self._batch_rows[group], row_groups=[group], columns=self._column.fields, use_threads=False
        )


def _batch_rows(group: Any, column: ImageColumn) -> int:
    """Rows that take about :data:`_BATCH_BYTES`, by the mean of the row group."""
    chunks = (group.column(index) for index in range(group.num_columns))
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column.bytes)
    return max(_LEAST_ROWS, min(_MOST_ROWS, _BATCH_BYTES * group.num_rows // max(1, size)))


def of_large_pages(metadata: Any, column: ImageColumn, source: str) -> list[str]:
    """What a person should know of a table whose row groups fill the memory: nothing of most.

    pyarrow's defaults make a dictionary of the first 1 024 images of a row group, and one page of all the others.
    metadata: of the file, as pyarrow has it.
    """
    chunks = [metadata.row_group(group).column(index)
              for group in range(metadata.num_row_groups) for index in range(metadata.num_columns)]  # fmt: skip
    sizes = [chunk.total_uncompressed_size for chunk in chunks
             if chunk.path_in_schema == column.bytes and chunk.has_dictionary_page]  # fmt: skip
    if max(sizes, default=0) <= _LARGE_PAGE:
        return []
    advice = "pyarrow writes smaller ones with write_table(..., use_dictionary=False, write_batch_size=16)"
    size = f"up to {max(sizes) / 1e9:.1f} GB"
    return [
        f"{source} is written in pieces of {size}, which take as much memory, or twice, while they are read; {advice}"
    ]


class Releasable(Protocol):
    """What holds an open table and a part of it in memory."""

    def release(self) -> None: ...


_open: deque[weakref.ref[Releasable]] = deque()
_open_lock = threading.Lock()


def note_open(rows: Releasable) -> None:
    """Release the table that was opened longest ago, where there are too many."""
    with _open_lock:
        _open.append(weakref.ref(rows))
        oldest = _open.popleft()() if len(_open) > _OPEN_FILES else None
    if oldest is not None and oldest is not rows:
        oldest.release()
