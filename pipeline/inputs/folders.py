"""A folder of images with its subfolders, or the images that its Hugging Face metadata file lists."""

from __future__ import annotations

import posixpath
from array import array
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from lanit.errors import LanitError, listed
from pipeline.decoding.dicom import HEAD_BYTES, is_dicom, may_be_dicom
from pipeline.decoding.images import IMAGE_SUFFIXES, is_image_name
from pipeline.decoding.limits import ImageError
from pipeline.files import storable
from pipeline.inputs.local import is_empty
from pipeline.inputs.places import BaseInput, NoImagesError, Place
from pipeline.inputs.storage import UNKNOWN, Stat, Troubles, file_name, is_url, located, parent_of
from pipeline.inputs.storages import storage_of
from pipeline.inputs.table_cells import listed_path, path_cells, table_schema
from pipeline.stand_ins import StandInError
from pipeline.tables.cells import is_text
from pipeline.tables.tables import TABLE_SUFFIXES

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""The names of the metadata file of Hugging Face's imagefolder, the first that is there counting."""


class Folder(BaseInput):
    """An :class:`pipeline.inputs.places.Input`. A path is relative to the folder; one that a metadata file lists may
    also be absolute or a URL.

    Where a metadata file lies, in the folder or in a subfolder such as ``train``, the images there and below are those
    that it lists, once each, missing ones too; the others are ignored.
    """

    def places(self) -> Iterator[Place]:
        self._begin_listing()
        troubles = Troubles()
        found, table = False, ""
        listing: _Listing | None = None
        for path, describe in storage_of(self.source).walk(self.source, troubles, METADATA_FILES):
            if listing is not None and not path.startswith(listing.folder):
                yield from self._missing(listing, troubles)
                listing = None
            if listing is None and path.endswith(METADATA_FILES) and file_name(path) in METADATA_FILES:
                listing = self._listing(path)
                found = found or listing is not None
            if listing.meets(path) if listing else is_image_name(path) or self._is_dicom(path):
                found = True
                yield Place(self.source, path, None, *describe())
            else:
                self.ignored += 1
                table = table or (path if posixpath.splitext(path)[1].lower() in TABLE_SUFFIXES else "")
                if listing is not None:
                    listing.passed_over += is_image_name(path)
        if listing is not None:
            yield from self._missing(listing, troubles)
        if not found:
            raise self._bare(table)
        self.warnings.extend(troubles.sentences())
        self.unlisted = troubles.unlisted

    def read(self, path: str, offset: int | None, size: int | None) -> bytes:
        full = located(self.source, path)
        return storage_of(full).read(full)

    def exists(self) -> bool:
        if storage_of(self.source).kind(self.source) != "folder":
            return False
        return is_url(self.source) or not is_empty(self.source)

    def _is_dicom(self, path: str) -> bool:
        """Whether a file is DICOM that its name does not tell, as on the CDs of hospitals: its beginning decides. Files
        behind URLs are not looked into, where each look is a request."""
        if is_url(self.source) or not may_be_dicom(path):
            return False
        full = located(self.source, path)
        try:
            return is_dicom(storage_of(full).read_range(full, 0, HEAD_BYTES))
        except ImageError:  # shorter, or not to be read
            return False

    def _bare(self, table: str) -> NoImagesError:
        """table: the path of a table in the folder, if there is one."""
        others = f", only {self.ignored:,} other files" if self.ignored else ""
        hint = f"Names of images end in {' '.join(sorted(IMAGE_SUFFIXES))}."
        if table:
            folder, name = posixpath.split(table)
            pattern = located(self.source, posixpath.join(folder, f"*{posixpath.splitext(name)[1]}"))
            hint = f"Tables of image paths are inputs of their own: give '{storable(pattern)}'."
        return NoImagesError(f"there are no images in {self.source}{others}", hint)

    def _listing(self, path: str) -> _Listing | None:
        """Of a file that is a metadata file by its name; none where it lists no names of files after all."""
        full = located(self.source, path)
        try:
            columns = names_columns(table_schema(full))
        except StandInError:
            raise
        except LanitError:  # not a table after all: another file like any
            return None
        if not columns:
            return None
        if len(columns) > 1:
            self.warnings.append(f"of the columns {listed(columns)} of {full}, the first is taken")
        return _Listing(full, path, columns[0])

    def _missing(self, listing: _Listing, troubles: Troubles) -> Iterator[Place]:
        """What a metadata file lists and the walk, which tells size and time, did not meet is looked for last."""
        unlistable = tuple(troubles.unlisted)
        for path in listing.names(troubles):
            if listing.meets(path) and not path.startswith(unlistable):
                yield Place(self.source, path, None, *self._stat(path))
        if not len(listing):
            raise LanitError(
                f"{listing.file} lists no images", f"Fill in its column {listing.column}, or remove {listing.file}."
            )
        if listing.passed_over:
            some = "1 image is" if listing.passed_over == 1 else f"{listing.passed_over:,} images are"
            self.warnings.append(f"{some} not listed in {listing.path} and ignored")

    def _stat(self, path: str) -> Stat:
        try:
            full = located(self.source, path)
        except ImageError:  # reading it will say why
            return UNKNOWN
        return storage_of(full).stat(full)


class _Listing:
    """What a metadata file lists: 9 bytes an image, names as 64-bit hashes, sorted, and whether each has been met.

    file: its full name; path: in the folder that is the input; folder: around it there, empty or ending in a slash.
    """

    def __init__(self, file: str, path: str, column: str) -> None:
        self.file, self.path, self.column = file, path, column
        self.folder = path.removesuffix(file_name(path))
        self.passed_over = 0
        hashes = np.fromiter((hash(name) for name in self.names(Troubles())), np.int64)
        self._hashes = array("q", np.unique(hashes).tobytes())
        self._met = bytearray(len(self._hashes))

    def __len__(self) -> int:
        return len(self._hashes)

    def names(self, troubles: Troubles) -> Iterator[str]:
        """The listed names as a walk would give them; empty cells left out."""
        for cell in path_cells(self.file, self.column, troubles):
            if cell:
                path = cell if is_url(cell) else listed_path(cell, parent_of(self.file))
                yield path if is_url(path) else posixpath.normpath(posixpath.join(self.folder, path))

    def meets(self, path: str) -> bool:
        """Whether ``path`` is listed and met for the first time."""
        value = hash(path)
        index = bisect_left(self._hashes, value)
        if index == len(self._hashes) or self._hashes[index] != value or self._met[index]:
            return False
        self._met[index] = 1
        return True


def names_columns(schema: pa.Schema) -> list[str]:
    """The columns of text that name images, by the rule of Hugging Face's imagefolder: ``file_name``, else those that
    end in ``_file_name``, ``image_file_name`` before others."""
    texts = [field.name for field in schema if is_text(field.type)]
    if "file_name" in texts:
        return ["file_name"]
    return sorted((name for name in texts if name.endswith("_file_name")), key=lambda name: name != "image_file_name")
