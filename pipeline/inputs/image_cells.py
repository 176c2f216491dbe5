"""Cells of text that hold an image themselves: base64, ``data:`` URLs, and Hugging Face's {bytes, path} as text."""

from __future__ import annotations

import ast
import base64
import binascii
import json
import re
import urllib.parse
from typing import Any, NamedTuple

from lanit.errors import excerpt
from pipeline.decoding.limits import ImageError

_LONGEST_PATH = 4096  # characters; nothing longer names a file
_BEGINNING = re.compile(
    r"\s*([/_]9j[/_]|iVBORw0KGgo|R0lGOD|UklGR|Qk[0-9A-Za-z]|SUkq|TU0AK|AAAA[0-9A-Za-z+/_-]{3}0eXB)[0-9A-Za-z+/_\s-]{50,}"
)  # JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF and HEIC in base64; names of files have dots
_STRUCT = re.compile(r"\s*\{\s*(['\"])(bytes|path)\1\s*:")
_PYTHON_BYTES = re.compile(r"\s*\{\s*'bytes': b['\"]")  # as Hugging Face's datasets writes CSV
_PYTHON_PATH = re.compile(r"'path': (None|'[^']*'|\"[^\"]*\")\}\s*")


class ImageCell(NamedTuple):
    """held: whether the cell holds an image, which :func:`held_bytes` gives. path: the one in or beside it, if any."""

    held: bool
    path: str | None


def image_cell(cell: str) -> ImageCell:
    """What a cell of a column of images is; nothing is decoded."""
    if cell[:5].lower() == "data:" or (_BEGINNING.match(cell) and "." not in cell[:_LONGEST_PATH]):
        return ImageCell(True, None)
    if _STRUCT.match(cell):
        if _PYTHON_BYTES.match(cell) and (found := _PYTHON_PATH.fullmatch(cell, max(0, cell.rfind("'path': ")))):
            return ImageCell(True, ast.literal_eval(found[1]))
        content, path = _struct(cell)
        return ImageCell(content is not None, path)
    return ImageCell(True, None) if len(cell) > _LONGEST_PATH else ImageCell(False, cell)


def held_bytes(cell: str) -> bytes:
    """The data of the image that a cell holds. Raises ImageError where it is no image in a known form."""
    try:
        if cell[:5].lower() == "data:":
            kind, _, text = cell.partition(",")
            return _base64(text) if kind.lower().endswith(";base64") else urllib.parse.unquote_to_bytes(text)
        if _STRUCT.match(cell):
            content, _ = _struct(cell)
            return _base64(content) if isinstance(content, str) else bytes(content)
        return _base64(cell)
    except (ValueError, TypeError, OverflowError) as error:  # binascii.Error is a ValueError
        raise ImageError(f"the cell holds neither a path nor an image ({excerpt(cell, 40)})") from error


def _struct(cell: str) -> tuple[Any, str | None]:
    """Bytes, base64, a list of numbers or none; and a path or none. What is no struct after all has neither."""
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
    if not isinstance(value, dict):
        return None, None
    path = value.get("path")
    return value.get("bytes"), path if isinstance(path, str) and path else None


def _base64(text: str) -> bytes:
    """Of either alphabet, with white space, padded or not. Raises binascii.Error."""
    plain = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError as error:
        raise binascii.Error(str(error)) from error
