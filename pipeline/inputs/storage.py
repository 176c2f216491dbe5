"""What a folder, a tar or a table needs of the place where its files lie: this machine, or somewhere behind a URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from pipeline.decoding.limits import ImageError

Kind = Literal["file", "folder"]

_REMOTE = (
    "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "sftp", "ssh", "ftp", "smb", "oss",
    "webdav", "github", "webhdfs",
)  # fmt: skip
"""Schemes that never lead to files of this machine."""
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")  # of Windows: read as a name beside the table it would only mislead
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Stat(NamedTuple):
    """bytes: the size of a file. modified_ns: when it was last changed, nanoseconds since 1970. None where unknown."""

    bytes: int | None
    modified_ns: int | None


UNKNOWN = Stat(None, None)

Walk = Iterator[tuple[str, Callable[[], Stat]]]
"""Files below a folder: POSIX path relative to it, and a call that tells size and time."""


class Troubles:
    """What went wrong while listing: one sentence for each kind of trouble, however often it came.

    unlisted: how the paths begin below which nothing could be listed; empty for those of anywhere.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[int, str]] = {}
        self.unlisted: list[str] = []

    def add(self, one: str, many: str, example: str) -> None:
        """``one`` and ``many``: what to say after the number, such as "folder cannot be listed"."""
        count, first = self._seen.get((one, many), (0, example))
        self._seen[one, many] = (count + 1, first)

    def pass_over(self, folder: str) -> None:
        """Note a folder that a system keeps for itself."""
        self.add("folder that a NAS or a system keeps is passed over", "folders that a NAS or a system keeps are "
                 "passed over", folder)  # fmt: skip

    def sentences(self) -> list[str]:
        return [
            f"1 {one}: {first}" if count == 1 else f"{count:,} {many}, the first is {first}"
            for (one, many), (count, first) in self._seen.items()
        ]


class Storage(Protocol):
    """Files by full name: an absolute path or a URL. Holds nothing, so it is safe in threads."""

    def kind(self, path: str) -> Kind | None:
        """None where there is nothing. Raises LanitError where that cannot be found out."""

    def stat(self, path: str) -> Stat:
        """Of a file; unknown where there is none. Never raises."""

    def walk(self, folder: str, troubles: Troubles, first: Sequence[str] = ()) -> Walk:
        """Every file below ``folder``, those under folders of :mod:`pipeline.inputs.passed_over` left out; the memory
        this takes is bounded by the largest single folder. A folder comes before its subfolders, in it
        the files of the names in ``first`` before all others, and what is below it before its neighbours. Raises
        LanitError where ``folder`` cannot be listed."""

    def open(self, path: str) -> BinaryIO:
        """A file to read and seek in. Raises LanitError."""

    def read(self, path: str) -> bytes:
        """A whole file. Raises ImageError."""

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a file from ``offset`` on. Raises ImageError where there are fewer."""


def is_url(text: str) -> bool:
    return _SCHEME.match(text) is not None


def scheme_of(url: str) -> str:
    """Such as ``s3``; empty for a path."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else ""


def file_name(path: str) -> str:
    """The last part of a path or URL, without the query of a web address."""
    if scheme_of(path) in ("http", "https"):
        path = urlsplit(path).path
    return path.rstrip("/").rsplit("/", 1)[-1]


def parent_of(path: str) -> str:
    """The folder around a file."""
    if scheme_of(path) in ("http", "https"):
        parts = urlsplit(path)
        path = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return path.rstrip("/").rsplit("/", 1)[0] or "/"


def located(folder: str, path: str) -> str:
    """The full name of ``path``: as it is where it is absolute or a URL, else in ``folder``.

    What lies behind a URL may name files of its own server and of others, but none of this machine, nor chains of URLs,
    which could lead here: raises ImageError.
    """
    if is_url(folder) and not _may_be_remote(path, scheme_of(folder)):
        raise ImageError("a table behind a URL may not name files of this machine", path)
    if path.startswith("/") or is_url(path):
        return path
    return f"{folder.rstrip('/')}/{path}"


def _may_be_remote(path: str, scheme: str) -> bool:
    if "::" in path:
        return False
    if is_url(path):
        return scheme_of(path) in _REMOTE or scheme_of(path) == scheme
    return not path.startswith(("/", "\\")) and _DRIVE.match(path) is None
