"""Files that are inputs of their own, by suffix: all that is known of a format outside of its module."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.decoding.images import IMAGE_SUFFIXES
from pipeline.inputs.image_files import ImageFile
from pipeline.inputs.places import Input
from pipeline.inputs.storage import file_name, parent_of
from pipeline.inputs.tables import Table
from pipeline.inputs.tars import Tar
from pipeline.inputs.zips import Zip
from pipeline.tables.tables import MAYBE_SUFFIXES, TABLE_SUFFIXES


@dataclass(frozen=True)
class Format:
    """noun: as messages call such a file. suffixes: in small letters. open: from its name and ``--image-column``.

    names_files: whether paths of its images are relative to the folder it lies in. also: suffixes that files of other
    kinds have too, and so are not looked out for.
    """

    noun: str
    suffixes: tuple[str, ...]
    open: Callable[[str, str | None], Input]
    names_files: bool = False
    also: tuple[str, ...] = ()


FORMATS = (
    Format("a tar", (".tar",), lambda source, image_column: Tar(source)),
    Format("a zip", (".zip",), lambda source, image_column: Zip(source)),
    Format("a table", TABLE_SUFFIXES, Table, names_files=True, also=MAYBE_SUFFIXES),
    Format("an image", tuple(sorted(IMAGE_SUFFIXES)), lambda source, image_column: ImageFile(source), names_files=True),
)


def format_of(name: str) -> Format | None:
    """By the suffix of a path or URL; none for a folder or a file of another kind."""
    suffix = posixpath.splitext(file_name(name))[1].lower()
    return next((each for each in FORMATS if suffix in (*each.suffixes, *each.also)), None)


def folder_of(source: str) -> str:
    """What the paths of an input's images that are files of their own are relative to."""
    found = format_of(source)
    return parent_of(source) if found and found.names_files and not Path(source).is_dir() else source
