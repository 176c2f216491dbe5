"""Class folders: a folder for each group of images, as ImageFolder and CycleGAN-like tools read."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from lanit.errors import LanitError
from pipeline.exports.destination import OWN_NAMES
from pipeline.exports.inventory import Writes, Written
from pipeline.exports.layouts import ExportRequest
from pipeline.exports.naming import FileNames, folder_names
from pipeline.exports.selection import Advance, Chunk, Missing, Record, Selection, read_ahead, read_record
from pipeline.store.store_images import StoreImages

UNLABELLED = "_unlabelled"
PAIR = ("trainA", "trainB")
_CHUNK = 1000


class Folders:
    """``GROUP/NAME.jpg``: an image in the folder of each group that it belongs to, named by its path.

    Images are copied, or linked where that is asked for and they are files of this machine; from a tar or a table they
    are always copied, as they were found.
    """

    READ_BY: ClassVar[str] = 'torchvision.datasets.ImageFolder("{out}")'
    TAKES: ClassVar[frozenset[str]] = frozenset({"files", "pairs"})
    READ_PAIRS_BY = "a CycleGAN's --dataroot {shell}"

    def __init__(self, selection: Selection, request: ExportRequest, advance: Advance) -> None:
        self._selection, self._files, self._advance = selection, request.files or "copy", advance
        self._folders = folder_names(selection.groups, reserved=OWN_NAMES)
        self._names = FileNames(pa.concat_tables(selection.tables(["path"]))["path"])
        self._images = StoreImages(selection.store)

    @property
    def writes(self) -> Writes:
        return Writes({name: ["*"] for name in self._folders}, links=self._files == "symlink")

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        for name in self._folders:
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

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> tuple[Written, ...]:
        """A folder without an image stops ImageFolder, so none is left."""
        for name in self._folders:
            if not any((folder / name).iterdir()):
                (folder / name).rmdir()
        return ()

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
        """Make a file in the folder of each group. kind: what is made, but for its name."""
        made = []
        for group in record.groups:
            name = f"{self._folders[group]}/{self._names.name(record.path, record.image_id, data)}"
            path = folder / name
            path.unlink(missing_ok=True)  # of an interrupted run: to write through a link would change the original
            make(path)
            made.append(replace(kind, name=name))
        return made


def domain_groups(
    domains: tuple[str, ...], active: np.ndarray, *, only_labelled: bool
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the groups, and which images belong to each, bool (n×G): the domains, and the rest unless
    ``only_labelled``. active: bool (n×N)."""
    if only_labelled:
        return domains, active
    rest = ~active.any(axis=1, keepdims=True)
    name = UNLABELLED
    while name.casefold() in {domain.casefold() for domain in domains}:
        name = f"_{name}"
    return (*domains, name), np.hstack([active, rest])


def pair_groups(
    domains: tuple[str, ...], active: np.ndarray, names: tuple[str, ...]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Two groups, bool (n×2): of one name, the images without and with it; of two, those with only the first and those
    with only the second. Raises LanitError for a name that is no domain, and for a side without an image."""
    numbers = [_number(name, domains) for name in names]
    second = active[:, numbers[-1]]
    first = active[:, numbers[0]] if len(numbers) == 2 else np.ones_like(second)
    members = np.stack([first & ~second, second & ~first if len(numbers) == 2 else second], axis=1)
    for side, name in zip(members.T, PAIR, strict=True):
        if not side.any():
            raise LanitError(f"no image is left for {name} of '{', '.join(names)}'", "See: lanit inspect-labels")
    return PAIR, members


def _number(name: str, domains: tuple[str, ...]) -> int:
    for number, domain in enumerate(domains):
        if domain.casefold() == name.casefold():
            return number
    raise LanitError(f"'{name}' is no domain of these labels", f"Choose one of {', '.join(domains)}.")
