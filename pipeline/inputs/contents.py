"""What a folder without loose images holds: tars, zips and tables of images, as data sets are published."""

from __future__ import annotations

import posixpath

from lanit.errors import LanitError, listed
from pipeline.decoding.images import is_image_name
from pipeline.inputs.folders import METADATA_FILES
from pipeline.inputs.storage import Troubles, file_name, located
from pipeline.inputs.storages import storage_of
from pipeline.inputs.tables import Table

_SPLITS = {"", "train", "training", "test", "testing", "eval", "evaluation", "dev", "valid", "validation", "val"}
_LOOSE = 100  # images of a data set of the hub that may be pictures of its page, and no part of it


def archives_in(folder: str, *, is_data_set: bool) -> list[str]:
    """Full names of the Parquet tables of images in ``folder`` and below, else of the tars and zips; none where there
    are loose images.

    is_data_set: whether it is one of the Hugging Face hub, where some loose images may belong to its page.
    Raises LanitError where the folder cannot be listed, or has tables of several configurations of a data set.
    """
    loose, tables, archives = 0, list[str](), list[str]()
    for path, _ in storage_of(folder).walk(folder, Troubles()):
        suffix = posixpath.splitext(path)[1].lower()
        loose += is_image_name(path)
        if loose > (_LOOSE if is_data_set else 0):
            return []
        if suffix == ".parquet" and file_name(path) not in METADATA_FILES:
            tables.append(path)
        elif suffix in (".tar", ".zip"):
            archives.append(path)
    tables.sort()
    if tables and _holds_images(located(folder, tables[0])):
        _refuse_configurations(folder, tables)
        return [located(folder, path) for path in tables]
    return [located(folder, path) for path in sorted(archives)]


def _holds_images(table: str) -> bool:
    try:
        return Table(table, None).column().bytes is not None
    except LanitError:
        return False


def _refuse_configurations(folder: str, tables: list[str]) -> None:
    """Hugging Face keeps each configuration of a data set in a folder of its own, often of the same images."""
    tops = sorted({path.partition("/")[0] if "/" in path else "" for path in tables} - _SPLITS)
    if len(tops) > 1:
        raise LanitError(
            f"{folder} has several configurations: {listed(tops)}", f"Give one: {located(folder, tops[0])}"
        )
