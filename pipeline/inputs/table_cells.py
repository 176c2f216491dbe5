"""Columns and cells of tables by name, wherever they lie: :mod:`pipeline.tables` reads them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pyarrow as pa

from lanit.errors import LanitError
from pipeline.decoding.images import is_image_name
from pipeline.decoding.limits import ImageError
from pipeline.inputs.storage import Troubles, is_url, located
from pipeline.inputs.storages import storage_of
from pipeline.path_names import one_spelling, with_slashes
from pipeline.stand_ins import refusal, stand_in
from pipeline.tables.cells import OpenTable
from pipeline.tables.tables import open_table

_HEAD = 4096  # bytes that tell whether it is a table at all
_WINDOWS_ROOT = re.compile(r"\\|[A-Za-z]:\\")


@contextlib.contextmanager
def opened_table(path: str) -> Iterator[OpenTable]:
    """The table at a path or URL, for as long as the block lasts. Raises LanitError."""
    try:
        with storage_of(path).open(path) as file:
            if found := stand_in(file.read(_HEAD)):
                raise refusal(path, found)
            file.seek(0)
            yield open_table(file, path)
    except OSError as error:
        raise LanitError(f"cannot read {path}: {error.strerror or error}", "Try again, or copy it.") from error


def table_schema(path: str) -> pa.Schema:
    """Names and types of a table's columns; in CSV and JSON all are text. Raises LanitError."""
    with opened_table(path) as table:
        return table.schema


def path_cells(path: str, column: str, troubles: Troubles) -> Iterator[str | None]:
    """The texts of one column, row by row, none for empty cells; bytes that are not UTF-8 as surrogate escapes.

    Raises LanitError where the table cannot be read on.
    """
    with opened_table(path) as table:
        yield from table.texts(column, troubles)


def listed_path(cell: str, folder: str) -> str:
    """A path of a table in the one spelling, relative to ``folder`` as it is.

    Backslashes separate folders, as Windows writes them, unless a file of this machine has them in its name, or the
    path begins at a drive or server of Windows, which leads nowhere here.
    """
    path = one_spelling(cell)
    if "\\" not in path or is_url(path) or _WINDOWS_ROOT.match(path):
        return path
    with contextlib.suppress(ImageError):
        full = located(folder, path)
        if not is_url(full) and storage_of(full).kind(full) == "file":
            return path
    return with_slashes(path)


def names_images(path: str, column: str) -> bool:
    """Whether the first text of a column has the suffix of an image."""
    first = next(filter(None, path_cells(path, column, Troubles())), "")
    return is_image_name(first)
