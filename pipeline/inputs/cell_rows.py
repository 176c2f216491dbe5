"""Cells of a column of text by row number, a few of them at a time."""

from __future__ import annotations

import threading
from collections import deque

from lanit.errors import LanitError
from pipeline.decoding.limits import ImageError
from pipeline.inputs.parquet_rows import note_open
from pipeline.inputs.storage import Troubles
from pipeline.inputs.table_cells import path_cells

_LEAST_CELLS = 64
_KEPT_CHARACTERS = 16 << 20  # threads ask for rows almost in order


class CellRows:
    """One column of one table. Safe in threads.

    Rows that are asked for in order are read once. An earlier row that is not kept any more costs reading the table
    from its beginning.
    """

    def __init__(self, source: str, column: str) -> None:
        self._source, self._column = source, column
        self._lock = threading.Lock()
        self._cursor: _Cursor | None = None

    def cell(self, row: int) -> str:
        """Raises ImageError."""
        with self._lock:
            cursor = self._cursor
            try:
                if cursor is None or row < cursor.first:
                    cursor = self._cursor = _Cursor(self._source, self._column)
                    note_open(self)
                cell = cursor.cell(row)
            except LanitError as error:
                raise ImageError(error.message, self._source) from error
        if cell is None:
            raise ImageError("the row holds no image by now", f"row {row} of {self._source}")
        return cell

    def release(self) -> None:
        """Close the table and forget its cells, once no thread uses them; the next row opens it again."""
        self._cursor = None  # without the lock: the caller may hold that of another table


class _Cursor:
    """A position in an open table, and the cells before it. first: the row of the first cell that is kept."""

    def __init__(self, source: str, column: str) -> None:
        self._cells = path_cells(source, column, Troubles())
        self._kept: deque[str | None] = deque()
        self._size = self.first = 0

    def cell(self, row: int) -> str | None:
        while row >= self.first + len(self._kept):
            self._keep(next(self._cells, None))
        return self._kept[row - self.first]

    def _keep(self, cell: str | None) -> None:
        self._kept.append(cell)
        self._size += len(cell or "")
        while len(self._kept) > _LEAST_CELLS and self._size > _KEPT_CHARACTERS:
            self._size -= len(self._kept.popleft() or "")
            self.first += 1
