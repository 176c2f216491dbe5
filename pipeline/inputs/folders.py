"""A folder of images with its subfolders, or the images that its Hugging Face metadata file lists."""

from __future__ import annotations

import posixpath
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

import numpy as np

from lanit.errors import LanitError
from pipeline.decoding.dicom import HEAD_BYTES, is_dicom, may_be_dicom
from pipeline.decoding.images import IMAGE_SUFFIXES, is_image_name
from pipeline.decoding.limits import ImageError
from pipeline.files import storable
from pipeline.inputs.formats import format_of
from pipeline.inputs.local import is_empty
from pipeline.inputs.places import NoImagesError, Place
from pipeline.inputs.storage import UNKNOWN, Stat, Troubles, file_name, is_url, located
from pipeline.inputs.storages import storage_of
from pipeline.inputs.table_cells import path_cells, path_column

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""The names of the metadata file of Hugging Face's imagefolder, the first that is there counting."""

_PATTERNS = 100  # of a folder without images no more patterns of archives than this are counted


class Folder:
    """An :class:`pipeline.inputs.places.Input`. A path is relative to the folder; one that a metadata file lists may
    also be absolute or a URL.

    With a metadata file the images are those that it lists, once each, missing ones too; the others are ignored.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.image_column: str | None = None
        self.ignored = 0
        self.warnings: list[str] = []
        self.unlisted: list[str] = []

    def places(self) -> Iterator[Place]:
        self.ignored, self.warnings, self.unlisted = 0, [], []
        troubles = Troubles()
        metadata = self._metadata()
        yield from self._listed(metadata, troubles) if metadata else self._all(troubles)
        self.warnings.extend(troubles.sentences())
        self.unlisted = troubles.unlisted

    def read(self, path: str, offset: int | None, size: int | None) -> bytes:
        full = located(self.source, path)
        return storage_of(full).read(full)

    def exists(self) -> bool:
        if storage_of(self.source).kind(self.source) != "folder":
            return False
        return is_url(self.source) or not is_empty(self.source)

    def _all(self, troubles: Troubles) -> Iterator[Place]:
        found = False
        archives: Counter[str] = Counter()  # patterns of tars and tables
        for path, describe in storage_of(self.source).walk(self.source, troubles):
            if is_image_name(path) or self._is_dicom(path):
                found = True
                yield Place(self.source, path, None, *describe())
            else:
                self.ignored += 1
                if not found and len(archives) < _PATTERNS:
                    archives.update(_pattern_of_archive(path))
        if not found:
            raise self._bare(archives)

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

    def _bare(self, archives: Counter[str]) -> NoImagesError:
        others = f", only {self.ignored:,} other files" if self.ignored else ""
        hint = f"Names of images end in {' '.join(sorted(IMAGE_SUFFIXES))}."
        if archives:
            [(pattern, _)] = archives.most_common(1)
            hint = f"Tars and tables are inputs of their own: give '{storable(located(self.source, pattern))}'."
        return NoImagesError(f"there are no images in {self.source}{others}", hint)

    def _metadata(self) -> str:
        """The full name of the metadata file, empty where there is none with file names."""
        storage = storage_of(self.source)
        for name in METADATA_FILES:
            full = located(self.source, name)
            if storage.kind(full) != "file":
                continue
            try:
                if path_column(full, "file_name") is not None:
                    return full
            except LanitError:  # not a table after all: another file like any
                continue
        return ""

    def _listed(self, metadata: str, troubles: Troubles) -> Iterator[Place]:
        """The walk tells size and time of what is listed, and what is not; what it did not meet is looked for last."""
        # 9 bytes an image: names as 64-bit hashes, sorted, and whether each has been met
        hashes = np.fromiter((hash(path) for path in self._names(metadata, Troubles())), np.int64)
        listed = array("q", np.unique(hashes).tobytes())
        met = bytearray(len(listed))
        unlisted = 0
        for path, describe in storage_of(self.source).walk(self.source, troubles):
            if _meet(listed, met, path):
                yield Place(self.source, path, None, *describe())
            else:
                self.ignored += 1
                unlisted += is_image_name(path)
        unlistable = tuple(troubles.unlisted)
        for path in self._names(metadata, troubles):
            if _meet(listed, met, path) and not path.startswith(unlistable):
                yield Place(self.source, path, None, *self._stat(path))
        if not listed:
            raise LanitError(f"{metadata} lists no images", f"Fill in its column file_name, or remove {metadata}.")
        if unlisted:
            some = "1 image is" if unlisted == 1 else f"{unlisted:,} images are"
            self.warnings.append(f"{some} not listed in {file_name(metadata)} and ignored")

    def _stat(self, path: str) -> Stat:
        try:
            full = located(self.source, path)
        except ImageError:  # reading it will say why
            return UNKNOWN
        return storage_of(full).stat(full)

    def _names(self, metadata: str, troubles: Troubles) -> Iterator[str]:
        """The listed names as a walk would give them; empty cells left out."""
        for cell in path_cells(metadata, "file_name", troubles):
            if cell:
                yield cell if is_url(cell) else posixpath.normpath(cell)


def _pattern_of_archive(path: str) -> list[str]:
    """A pattern that fits a tar or table and its neighbours; none for other files."""
    folder, name = posixpath.split(path)
    suffix = posixpath.splitext(name)[1]
    return [posixpath.join(folder, f"*{suffix}")] if format_of(path) else []


def _meet(listed: array[int], met: bytearray, path: str) -> bool:
    """Whether ``path`` is listed and met for the first time; ``met`` then says so."""
    value = hash(path)
    index = bisect_left(listed, value)
    if index == len(listed) or listed[index] != value or met[index]:
        return False
    met[index] = 1
    return True
