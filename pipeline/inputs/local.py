"""Files on this machine."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from lanit.errors import LanitError
from pipeline.decoding.images import is_image_name, read_image_bytes
from pipeline.decoding.limits import ImageError
from pipeline.files import storable
from pipeline.inputs.passed_over import is_system_folder
from pipeline.inputs.storage import UNKNOWN, Kind, Stat, Troubles, Walk


class LocalStorage:
    """See :class:`pipeline.inputs.storage.Storage`. Paths are strings: a walk by pathlib takes ten times as long."""

    def kind(self, path: str) -> Kind | None:
        if Path(path).is_dir():
            return "folder"
        return "file" if Path(path).exists() else None

    def stat(self, path: str) -> Stat:
        try:
            status = Path(path).stat()
        except (OSError, ValueError):  # ValueError: a zero byte, or a surrogate that stands for no byte
            return UNKNOWN
        return _described(status)

    def walk(self, folder: str, troubles: Troubles, first: Sequence[str] = ()) -> Walk:
        """Links to folders are followed once. Subfolders come in sorted order, so that of two ways to a folder the same
        one is taken each time; files come as the system lists them."""
        seen: set[int] = set()
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            here = f"{folder.rstrip('/')}/{prefix}"
            folders: list[str] = []
            try:
                with os.scandir(here) as entries:
                    status = Path(here).stat()
                    identity = status.st_dev << 64 | status.st_ino
                    if identity in seen:  # a link back up the tree, or a second way here
                        continue
                    seen.add(identity)
                    ahead = [name for name in first if Path(here, name).is_file()]
                    for name in ahead:
                        yield prefix + name, functools.partial(self.stat, f"{here}{name}")
                    for entry in entries:
                        if entry.name in ahead:
                            continue
                        if not _is_folder(entry):
                            if _may_lead_to_folder(entry):
                                troubles.unlisted.append(f"{prefix}{entry.name}/")
                            yield prefix + entry.name, functools.partial(_stat_of, entry)
                        elif is_system_folder(entry.name):
                            troubles.pass_over(entry.path)
                        elif not entry.name.startswith("."):
                            folders.append(f"{prefix}{entry.name}/")
            except OSError as error:
                _refuse(folder, prefix, error, troubles)
            waiting.extend(sorted(folders, reverse=True))

    def open(self, path: str) -> BinaryIO:
        try:
            return Path(path).open("rb")
        except (OSError, ValueError) as error:
            raise LanitError(f"cannot read {storable(path)}: {_reason(error)}", "Check the path.") from error

    def read(self, path: str) -> bytes:
        try:
            return read_image_bytes(Path(path))
        except ValueError as error:
            raise ImageError("no file can have this name", ascii(path)) from error

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        # Opened each time, which costs microseconds: thousands of tars then need no descriptors, and a tar that was
        # replaced is noticed.
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except (OSError, OverflowError) as error:
            raise ImageError(_reason(error), storable(path)) from error
        if len(data) < size:
            raise ImageError("the file has become shorter since it was listed", storable(path))
        return data


def _refuse(root: str, prefix: str, error: OSError, troubles: Troubles) -> None:
    folder = storable(f"{root.rstrip('/')}/{prefix}".rstrip("/"))
    if not prefix:
        raise LanitError(f"cannot list {folder}: {_reason(error)}", "Check its permissions.") from error
    troubles.add("folder cannot be listed", "folders cannot be listed", f"{folder} ({_reason(error)})")
    troubles.unlisted.append(prefix)


def is_empty(folder: str) -> bool:
    """Whether nothing at all lies in a folder. Raises LanitError where that cannot be found out."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError as error:
        raise LanitError(f"cannot list {storable(folder)}: {_reason(error)}", "Check its permissions.") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops, or leads where we may not look: reading it will say why
        return False


def _may_lead_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link whose target is away, and not by its name to an image."""
    return entry.is_symlink() and not is_image_name(entry.name) and not Path(entry.path).exists()


def _stat_of(entry: os.DirEntry[str]) -> Stat:
    try:
        return _described(entry.stat())
    except OSError:
        return UNKNOWN


def _described(status: os.stat_result) -> Stat:
    return Stat(status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else UNKNOWN


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
