"""Where one image lies, and what every kind of input can do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from lanit.errors import LanitError


class NoImagesError(LanitError):
    """An input that can be listed has no images."""


@dataclass(frozen=True, slots=True)
class Place:
    """One image of an input.

    source: the input, as :class:`Input` names it. path: POSIX path in a folder; name of a member in a tar or zip; in a
    table, the image path, or the key of a row that holds bytes; all as :func:`pipeline.path_names.one_spelling` has
    them. A name that is not UTF-8 keeps surrogate escapes. offset: none for a file of its own; in a tar, where the
    image's data begins, in bytes; in a zip, where its member does; in a table, its row. bytes: size of the image's
    data, where the listing tells it. modified_ns: when the file, or the tar, zip or table around it, was last changed,
    nanoseconds since 1970; none where nothing tells.
    """

    source: str
    path: str
    offset: int | None = None
    bytes: int | None = None
    modified_ns: int | None = None


class Input(Protocol):
    """A folder, a tar, a zip or a table of images, or one image, on this machine or behind a URL.

    source: an absolute path or a URL, which :func:`pipeline.inputs.opening.open_source` opens again.
    image_column: of a table, where it was named. Complete once :meth:`places` is exhausted: ignored, files that are not
    images by name; warnings, what could not be listed; unlisted, how the paths of images begin that may be there all
    the same: ``sub/`` of a subfolder, empty where it may be any, as in a tar cut short.
    later_counts: whether of two images of one name the later one is meant, as in a tar that was appended to.
    """

    source: str
    image_column: str | None
    ignored: int
    warnings: list[str]
    unlisted: list[str]

    @property
    def later_counts(self) -> bool: ...

    def places(self) -> Iterator[Place]:
        """The images, in any order, in bounded memory. A path may come twice. Raises LanitError where nothing can be
        listed."""

    def read(self, path: str, offset: int | None, size: int | None) -> bytes:
        """The data of one image. Safe in threads. Raises ImageError."""

    def exists(self) -> bool:
        """Whether the input is there; a folder on this machine that is empty may be a disk that is not mounted, and is
        not. Raises LanitError where that cannot be found out."""


class BaseInput:
    """What the inputs here share: their name, and what a listing finds beside images. See :class:`Input`."""

    later_counts = False

    def __init__(self, source: str, image_column: str | None = None) -> None:
        self.source, self.image_column = source, image_column
        self._begin_listing()

    def _begin_listing(self) -> None:
        """Forget what an earlier one found."""
        self.ignored = 0
        self.warnings: list[str] = []
        self.unlisted: list[str] = []


def listed(origin: Input) -> list[Place]:
    """The images of an input in memory, those that others of the same name replace left out."""
    places = list(origin.places())
    return list({place.path: place for place in places}.values()) if origin.later_counts else places


def image_id(source: str, path: str) -> str:
    """16 hexadecimal digits of BLAKE2b over source and path: stable over runs and inputs added later."""
    return hashlib.blake2b(f"{source}\0{path}".encode(), digest_size=8).hexdigest()
