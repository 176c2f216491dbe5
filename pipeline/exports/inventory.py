"""What an export wrote, file by file: so it is known what it may remove, and whether all is as it was written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.files import sha256_file
from pipeline.folders import first_link, plain_file


@dataclass(frozen=True, slots=True)
class Written:
    """A file of an export. name: POSIX, below its folder. bytes, sha256: of its content; none of a symbolic link.

    symlink, hardlink: the original, of a link; else none.
    """

    name: str
    bytes: int | None = None
    sha256: str | None = None
    symlink: str | None = None
    hardlink: str | None = None

    @classmethod
    def of(cls, folder: Path, name: str) -> Written:
        """Of a file that was written just now."""
        return cls(name, (folder / name).stat().st_size, sha256_file(folder / name))

    def is_there(self, folder: Path) -> bool:
        """Whether it is in ``folder``, as it was written; a hard link is, too, while it is the original."""
        path = folder / self.name
        if self.symlink is not None:
            parent = self.name.rpartition("/")[0]
            is_reached = not parent or first_link(folder, parent) is None
            return is_reached and path.is_symlink() and str(path.readlink()) == self.symlink
        status = plain_file(folder, self.name)
        if status is None:
            return False
        if self.hardlink is not None and Path(self.hardlink).is_file() and path.samefile(self.hardlink):
            return True
        return status.st_size == self.bytes and sha256_file(path) == self.sha256


@dataclass(frozen=True)
class Writes:
    """What an export may write. patterns: of file names, by folder, "" for its own; links: whether they may be
    symbolic links."""

    patterns: dict[str, list[str]]
    links: bool = False

    def has(self, folder: Path, name: str) -> bool:
        """Whether the file or link ``name``, POSIX, in ``folder`` can be one of these."""
        parent, _, file = name.rpartition("/")
        named = any(fnmatchcase(file, pattern) for pattern in self.patterns.get(parent, ()))
        return named and (self.links or not (folder / name).is_symlink())


@dataclass(frozen=True)
class LogState:
    """How much of a file of lines counts: its bytes, and their SHA-256."""

    bytes: int = 0
    sha256: str = hashlib.sha256().hexdigest()


class Log:
    """A file of lines that grows; what a killed run wrote beyond ``state`` goes."""

    def __init__(self, path: Path, state: LogState | None = None) -> None:
        self.path = path
        self._digest = hashlib.sha256()
        self._bytes = 0
        if state is not None:
            self._take_up(state)

    @property
    def state(self) -> LogState:
        return LogState(self._bytes, self._digest.hexdigest())

    def add(self, text: str) -> None:
        """Append ``text``, on the disk before this returns. Nothing, and there is no file."""
        data = text.encode()
        if not data:
            return
        with self.path.open("ab" if self._bytes else "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._digest.update(data)
        self._bytes += len(data)

    def _take_up(self, state: LogState) -> None:
        """Raises ValueError where the file is not as it was."""
        if not state.bytes:
            self.path.unlink(missing_ok=True)
            return
        with self.path.open("rb") as file:
            self._digest.update(file.read(state.bytes))
        self._bytes = state.bytes
        if self.state != state:
            raise ValueError(f"{self.path} was changed since it was written")
        os.truncate(self.path, state.bytes)


def lines(files: Iterable[Written]) -> str:
    """As :func:`read_inventory` reads them: JSON, a line for each."""
    return "".join(
        json.dumps({key: value for key, value in asdict(each).items() if value is not None}, ensure_ascii=False) + "\n"
        for each in files
    )


def read_inventory(path: Path, state: LogState) -> list[Written]:
    """Raises OSError or ValueError where it is not as ``state`` says."""
    with path.open("rb") as file:
        data = file.read(state.bytes)
    if LogState(len(data), hashlib.sha256(data).hexdigest()) != state:
        raise ValueError(f"{path} was changed since it was written")
    return [Written(**json.loads(line)) for line in data.decode().split("\n") if line]


def listed_names(path: Path) -> Iterator[str]:
    """Names of the files that a list has so far, in the order in which they were written."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)["name"]


def entries(folder: Path, below: str = "") -> Iterator[str]:
    """Names, POSIX, of the files and links below ``folder``; links are not followed."""
    with os.scandir(folder) as found:
        ordered = sorted(found, key=lambda entry: entry.name)
    for entry in ordered:
        name = f"{below}{entry.name}"
        if entry.is_symlink() or not entry.is_dir():
            yield name
        else:
            yield from entries(folder / entry.name, f"{name}/")


def remove(folder: Path, names: Iterable[str]) -> None:
    """Remove these files and links, and the folders, ``folder`` too, that nothing is left in."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
