"""Images as files of an export: copied, or linked to where they lie."""

from __future__ import annotations

import csv
import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lanit.errors import LanitError
from pipeline.exports.destination import INVENTORY_NAME, MISSING_NAME
from pipeline.exports.inventory import Written, listed_names
from pipeline.exports.layouts import Files
from pipeline.exports.naming import FileNames
from pipeline.exports.selection import Advance, Chunk, Missing, Record, Selection, read_ahead, read_record
from pipeline.store.store_images import StoreImages

IMAGES_FOLDER = "images"
_CHUNK = 1000


class ImageFiles:
    """Puts each image of a selection into some folders of an export, as it was found.

    It is copied, or linked where that is asked for and it is a file of this machine; from a tar or a table it is always
    copied. folders: their names, of which ``folders_of`` gives the numbers for an image; by default it goes to all.
    """

    def __init__(
        self,
        selection: Selection,
        files: Files | None,
        names: FileNames,
        advance: Advance,
        folders: Sequence[str] = (IMAGES_FOLDER,),
        folders_of: Callable[[Record], Sequence[int]] | None = None,
    ) -> None:
        self.folders = tuple(folders)
        self._selection, self._files, self._names, self._advance = selection, files or "copy", names, advance
        everywhere = range(len(self.folders))
        self._folders_of = folders_of or (lambda record: everywhere)
        self._images = StoreImages(selection.store)

    @property
    def patterns(self) -> dict[str, list[str]]:
        """See :class:`pipeline.exports.inventory.Writes`."""
        return {name: ["*"] for name in self.folders}

    @property
    def links(self) -> bool:
        return self._files == "symlink"

    def chunks(self, folder: Path, start: int) -> Iterator[Chunk]:
        """See :meth:`pipeline.exports.layouts.Target.chunks`."""
        for name in self.folders:
            (folder / name).mkdir(exist_ok=True)
        records = self._selection.records(start)
        placed = self._copies(folder, records) if self._files == "copy" else self._links(folder, records)
        written, missing = list[Written](), list[Missing]()
        for record, outcome in placed:
            if isinstance(outcome, Missing):
                missing.append(outcome)
            else:
                written += outcome
            stop = record.position + 1
            self._advance(stop)
            if stop % _CHUNK == 0 or stop == len(self._selection):
                yield Chunk(stop, tuple(written), tuple(missing))
                written, missing = [], []

    def _copies(self, folder: Path, records: Iterator[Record]) -> Iterator[tuple[Record, list[Written] | Missing]]:
        for record, data in read_ahead(self._images, records):
            yield record, data if isinstance(data, Missing) else self._write(folder, record, data)

    def _links(self, folder: Path, records: Iterator[Record]) -> Iterator[tuple[Record, list[Written] | Missing]]:
        for record in records:
            if record.file is not None and Path(record.file).is_file():
                yield record, self._link(folder, record, Path(record.file))
            else:
                data = read_record(self._images, record)
                yield record, data if isinstance(data, Missing) else self._write(folder, record, data)

    def _write(self, folder: Path, record: Record, data: bytes) -> list[Written]:
        plain = Written("", len(data), record.sha256)
        return self._place(folder, record, data, plain, lambda path: path.write_bytes(data))

    def _link(self, folder: Path, record: Record, original: Path) -> list[Written] | Missing:
        found = original.stat()
        if (found.st_size, found.st_mtime_ns) != (record.bytes, record.modified_ns):
            data = read_record(self._images, record)  # its time may have changed alone
            if isinstance(data, Missing):
                return data
        if self._files == "symlink":
            link = Written("", symlink=str(original))
            return self._place(folder, record, None, link, lambda path: path.symlink_to(original))
        try:
            link = Written("", record.bytes, record.sha256, hardlink=str(original))
            return self._place(folder, record, None, link, lambda path: path.hardlink_to(original.resolve()))
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
            message = f"no hard link to {original} can be made from {folder.parent}: {error.strerror}"
            raise LanitError(message, "Use --files symlink or --files copy.") from error

    def _place(
        self, folder: Path, record: Record, data: bytes | None, kind: Written, make: Callable[[Path], object]
    ) -> list[Written]:
        """Make a file in each of its folders. kind: what is made, but for its name."""
        made = []
        for number in self._folders_of(record):
            name = f"{self.folders[number]}/{self._names.name(record.path, record.image_id, data)}"
            path = folder / name
            path.unlink(missing_ok=True)  # of an interrupted run: to write through a link would change the original
            make(path)
            made.append(replace(kind, name=name))
        return made


def placed_images(selection: Selection, folder: Path) -> Iterator[tuple[Record, str]]:
    """Each image that :class:`ImageFiles` placed in ``folder``, once each, and the POSIX name of its file there."""
    missing: set[str] = set()
    if (folder / MISSING_NAME).exists():
        with (folder / MISSING_NAME).open(newline="", encoding="utf-8") as file:
            missing = {row["image_id"] for row in csv.DictReader(file)}
    names = listed_names(folder / INVENTORY_NAME)
    for record in selection.records():
        if record.image_id not in missing:
            yield record, next(names)
