"""The folder that visitors' files go to: which of it may be read, and how much lies there in all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lanit.errors import LanitError
from pipeline.serving.refusal import Refusal


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    when: float


class Uploads:
    """What lies under ``folder``: at most ``most_files`` files of ``most_bytes`` bytes together, the oldest give way.

    Whatever is sent is reserved before its first byte is taken, so requests at the same time cannot pass the bounds
    together. one_file: bytes that a single request may send. All calls but :meth:`path` belong to one thread.
    """

    def __init__(self, folder: Path, *, one_file: int, most_bytes: int, most_files: int) -> None:
        self.folder = folder
        self.one_file = one_file
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._kept: frozenset[Path] = frozenset()
        self._coming: list[int] = []

    def keep_present(self) -> None:
        """What lies there now stays, and may be read: the pictures of the page itself. It counts as well."""
        self._kept = frozenset(entry.path for entry in self._entries())

    def holds(self, path: str) -> bool:
        """Whether ``path``, as somebody wrote it, names a file that lies here, links followed."""
        try:
            self.path(path)
        except LanitError:
            return False
        return True

    def path(self, path: str) -> Path:
        """The file that ``path`` names. Raises LanitError where it does not lie here, whether or not there is one."""
        gone = LanitError("this picture is not here (any more)", "Give it again.")
        try:
            if not Path(path).is_absolute() or os.path.normpath(path) != path:
                raise gone
            found, folder = Path(path).resolve(strict=True), self.folder.resolve(strict=True)
            if not found.is_relative_to(folder) or not found.is_file():
                raise gone
        except (OSError, ValueError, RuntimeError):  # not there; a zero byte; links in a circle
            raise gone from None
        return found

    @contextlib.contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """Take a request of ``size`` bytes in: oldest files are removed until it fits. Raises Refusal where
        it cannot."""
        if size > self.one_file:
            raise Refusal(413, f"A file may have {self.one_file >> 20} MB at most.")
        self._make_room(size)
        self._coming.append(size)
        try:
            yield
        finally:
            self._coming.remove(size)
            with contextlib.suppress(Refusal):  # a request may have held several files
                self._make_room(0)

    def _make_room(self, size: int) -> None:
        entries = sorted(self._entries(), key=lambda entry: entry.when)
        files = len(entries) + len(self._coming) + (size > 0)
        total = sum(entry.size for entry in entries) + sum(self._coming) + size
        for entry in entries:
            if total <= self._most_bytes and files <= self._most_files:
                return
            if entry.path in self._kept or (self._coming and entry.path.parent == self.folder):
                continue  # files right in the folder are on their way to one of their own
            with contextlib.suppress(OSError):
                entry.path.unlink()
                total, files = total - entry.size, files - 1
                entry.path.parent.rmdir()
        if total > self._most_bytes or files > self._most_files:
            raise Refusal(503, "Too many files are being sent at the moment. Try again in a minute.")

    def _entries(self) -> list[_Entry]:
        found = []
        for folder, _, names in os.walk(self.folder):
            for path in (Path(folder, name) for name in names):
                with contextlib.suppress(OSError):  # gone meanwhile
                    status = path.lstat()
                    found.append(_Entry(path, status.st_size, status.st_mtime))
        return found
