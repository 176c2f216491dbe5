"""Class folders: a folder for each group of images, as ImageFolder and CycleGAN-like tools read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from lanit.errors import LanitError
from pipeline.exports.destination import OWN_NAMES
from pipeline.exports.image_files import ImageFiles
from pipeline.exports.inventory import Writes, Written
from pipeline.exports.layouts import ExportRequest
from pipeline.exports.naming import FileNames, folder_names
from pipeline.exports.selection import Advance, Chunk, Selection

UNLABELLED = "_unlabelled"
PAIR = ("trainA", "trainB")


class Folders:
    """``GROUP/NAME.jpg``: an image in the folder of each group that it belongs to, named by its path."""

    READ_BY: ClassVar[str] = 'torchvision.datasets.ImageFolder("{out}")'
    TAKES: ClassVar[frozenset[str]] = frozenset({"files", "pairs"})
    NEEDS_LABELS: ClassVar[bool] = True
    READ_PAIRS_BY = "a CycleGAN's --dataroot {shell}"

    def __init__(self, selection: Selection, request: ExportRequest, advance: Advance) -> None:
        folders = folder_names(selection.groups, reserved=OWN_NAMES)
        names = FileNames(selection.paths())
        self._files = ImageFiles(selection, request.files, names, advance, folders, lambda record: record.groups)

    @property
    def writes(self) -> Writes:
        return Writes(self._files.patterns, self._files.links)

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        return self._files.chunks(folder, start)

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> tuple[Written, ...]:
        """A folder without an image stops ImageFolder, so none is left."""
        for name in self._files.folders:
            if not any((folder / name).iterdir()):
                (folder / name).rmdir()
        return ()


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
