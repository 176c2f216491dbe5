"""What a WebDataset tar says of its images beside them: ``KEY.json``, ``KEY.cls`` and ``KEY.txt``, as a table."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterator
from typing import Any, BinaryIO

from lanit.errors import LanitError
from pipeline.inputs.columns import KEY_COLUMNS, NAME_COLUMNS, PATH_COLUMNS
from pipeline.inputs.passed_over import is_image_member
from pipeline.inputs.storages import storage_of
from pipeline.inputs.tars import members
from pipeline.tables.cells import OpenTable
from pipeline.tables.json_rows import JsonTable, given_rows, parsed_object

_TEXTS = ("cls", "txt")
_LARGEST = 1 << 20  # bytes of a member that says something


@contextlib.contextmanager
def opened_tar(path: str) -> Iterator[OpenTable]:
    """A row for each image, by its member's name in the column ``path``; its columns are the keys of ``.json``, ``cls``
    and ``txt``. Raises LanitError."""
    try:
        with storage_of(path).open(path) as file:
            rows = _rows(file, path)
    except OSError as error:
        raise LanitError(f"cannot read {path}: {error.strerror or error}", "Try again, or copy it.") from error
    yield JsonTable(path, "WebDataset", given_rows(rows))


def _rows(file: BinaryIO, path: str) -> list[dict[str, Any]]:
    """The image of a sample and what is said of it, in the order of the images."""
    images: list[tuple[str, str]] = []
    said: dict[str, dict[str, Any]] = {}
    warnings: list[str] = []
    for member in members(file, path, warnings):
        folder, name = posixpath.split(member.name)
        stem, _, suffix = name.partition(".")
        key = posixpath.join(folder, stem)
        if not member.is_file or (member.size > _LARGEST and not is_image_member(member.name)):
            continue
        if is_image_member(member.name):
            images.append((key, member.name))
        elif suffix.lower() in ("json", *_TEXTS):
            file.seek(member.offset)
            text = file.read(member.size).decode("utf-8", "replace").strip()
            of_key = said.setdefault(key, {})
            of_key.update(parsed_object(text) or {} if suffix.lower() == "json" else {suffix.lower(): text})
    if warnings:
        raise LanitError(warnings[0].removesuffix("; the images before were taken"), "Copy or download it again.")
    return [_without_names(said.get(key, {})) | {"path": name} for key, name in images]


def _without_names(row: dict[str, Any]) -> dict[str, Any]:
    """A row without other names of its image, such as those that it had before it came into the tar."""
    named = {*PATH_COLUMNS, *KEY_COLUMNS, *NAME_COLUMNS}
    return {key: cell for key, cell in row.items() if key.lower() not in named}
