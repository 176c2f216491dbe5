"""What every kind of table gives: its columns, one of them as texts in a stream, or several whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.types as types

from lanit.errors import LanitError
from pipeline.files import storable

Cells = list[tuple[str, pa.ChunkedArray]]
"""Columns by name, in their order; two may have one name."""


class Troubles(Protocol):
    """Takes note of what cannot be read, while the rest is."""

    unlisted: list[str]

    def add(self, one: str, many: str, example: str) -> None:
        """``one`` and ``many``: what to say after the number of such troubles."""


class OpenTable(Protocol):
    """A table that was opened (:func:`pipeline.tables.tables.open_table`). layout: what it is, in a few words.

    schema: names and types of its columns; where nothing else says what they are, all are text.
    """

    layout: str
    schema: pa.Schema

    def texts(self, column: str, troubles: Troubles) -> Iterable[str | None]:
        """The texts of one column, row by row, none for empty cells; bytes that are not UTF-8 as surrogate escapes.

        Rows that are none are left out, and added to ``troubles``. Raises LanitError where the table cannot be read on.
        """

    def cells(self, wanted: Callable[[pa.Field], bool]) -> Cells:
        """The columns that are ``wanted``, whole. Raises LanitError where a row cannot be read."""


def text_schema(columns: Iterable[str]) -> pa.Schema:
    """The schema of a table in which all is text."""
    return pa.schema([(name, pa.string()) for name in columns])


def is_text(kind: pa.DataType) -> bool:
    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def is_list(kind: pa.DataType) -> bool:
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def text_array(values: Sequence[str | None]) -> pa.Array:
    """Texts as a table holds them: bytes that are not UTF-8 as ``\\xNN``."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([None if value is None else storable(file_text(value)) for value in values], pa.string())


def file_text(text: str) -> str:
    """``text`` as the name of a file: a lone ``\\ud800``, which none can hold, becomes bytes that are not UTF-8."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    return text


def column_name(name: str) -> str:
    """As a schema can hold it."""
    return name.encode("utf-8", "backslashreplace").decode()


def damaged(name: str, error: Exception | str) -> LanitError:
    """The refusal of a table that cannot be read on."""
    return LanitError(f"{name} is damaged ({' '.join(str(error).split())})", "Copy or download it again.")


def plain_text(value: Any) -> str | None:
    """A cell of JSON as text: ``true`` and ``1`` as they stand there; none for null."""
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)
