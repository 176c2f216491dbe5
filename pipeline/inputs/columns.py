"""Which column of a table holds the images."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as types

from lanit.errors import LanitError
from pipeline.tables.cells import is_text

PATH_COLUMNS = (
    "image_path", "file_name", "filename", "path", "filepath", "image", "url", "img_path", "image_file", "image_name",
    "image_url", "file",
)  # fmt: skip
"""Columns of text that are taken for image paths, in this order, in any case."""

NAME_COLUMNS = ("image_id", "id", "name", "img")
"""Columns of text that are taken for image paths where no other is and they hold names with an image's suffix: CelebA's
``image_id`` does."""

KEY_COLUMNS = ("path", "key", "__key__", "file_name", "filename", "image_path", "filepath", "name", "id", "image_id")
"""Columns of text that name the images of a table that holds their bytes, in this order, in any case."""

BYTES_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes")
"""Of several columns of bytes, the one with such a name is taken, if there is just one."""

_SHOWN = 12


@dataclass(frozen=True)
class ImageColumn:
    """name: of the column. bytes: the field that holds image bytes, ``column.bytes`` for Hugging Face's struct; none
    for a column of paths. path: the struct's field of paths. key: the column that names the images
    that the table holds."""

    name: str
    bytes: str | None = None
    path: str | None = None
    key: str | None = None

    @property
    def fields(self) -> list[str]:
        """What to read of a file for the images' bytes."""
        return [field for field in (self.bytes, self.path) if field is not None]


def choose_column(
    schema: pa.Schema, named: str | None, table: str, names_images: Callable[[str], bool] = lambda column: False
) -> ImageColumn:
    """The column of images: ``named``, else the one of bytes, else the first of :data:`PATH_COLUMNS` that is text, else
    of :data:`NAME_COLUMNS`, where ``names_images`` says of a column of text that there are names of images in it.

    Raises LanitError, naming ``table``: no such column, none that could be it, or several columns of bytes.
    """
    if named is not None:
        return _named(schema, named, table)
    images = [field.name for field in schema if _holds_bytes(field.type)]
    if len(images) > 1:
        usual = [name for name in images if name.lower() in BYTES_COLUMNS]
        if len(usual) != 1:
            message = f"{table} has several columns of image bytes: {_listed(images)}"
            raise LanitError(message, f"Choose one, such as --image-column {shlex.quote((usual or images)[0])}")
        images = usual
    if images:
        return _bytes_column(schema, images[0])
    name = _first_text(schema, PATH_COLUMNS)
    if name is None:
        others = filter(None, (_first_text(schema, [other]) for other in NAME_COLUMNS))
        name = next(filter(names_images, others), None)
    if name is None:
        message = f"{table} has no column of image paths or image bytes; its columns are {_listed(schema.names)}"
        raise LanitError(message, "Name the column: --image-column NAME")
    return _text_column(schema, name)


def _named(schema: pa.Schema, name: str, table: str) -> ImageColumn:
    if name not in schema.names:
        message = f"{table} has no column {name}; its columns are {_listed(schema.names)}"
        raise LanitError(message, "Choose one of them: --image-column NAME")
    kind = schema.field(schema.names.index(name)).type  # by number, since a name may come twice
    if _holds_bytes(kind):
        return _bytes_column(schema, name)
    if is_text(kind):
        return _text_column(schema, name)
    message = f"the column {name} of {table} holds {kind}, neither image paths nor image bytes"
    raise LanitError(message, f"Choose another of {_listed(schema.names)}: --image-column NAME")


def _text_column(schema: pa.Schema, name: str) -> ImageColumn:
    return ImageColumn(name, key=_first_text(schema, [key for key in KEY_COLUMNS if key != name.lower()]))


def _bytes_column(schema: pa.Schema, name: str) -> ImageColumn:
    kind = schema.field(schema.names.index(name)).type
    key = _first_text(schema, KEY_COLUMNS)
    if not types.is_struct(kind):
        return ImageColumn(name, bytes=name, key=key)
    has_path = any(field.name == "path" and is_text(field.type) for field in kind.fields)
    return ImageColumn(name, f"{name}.bytes", f"{name}.path" if has_path else None, key)


def _first_text(schema: pa.Schema, names: Sequence[str]) -> str | None:
    by_name: dict[str, str] = {}
    for field in schema:
        if is_text(field.type):
            by_name.setdefault(field.name.lower(), field.name)
    return next((by_name[name] for name in names if name in by_name), None)


def _holds_bytes(kind: pa.DataType) -> bool:
    if types.is_struct(kind):
        return any(field.name == "bytes" and _is_binary(field.type) for field in kind.fields)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    if types.is_dictionary(kind):
        return _is_binary(kind.value_type)
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(str(name) for name in names[:_SHOWN])
    return f"{shown}, and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown or "none"
