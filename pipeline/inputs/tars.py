"""A tar of images, as WebDataset keeps them: listed by its headers, read by byte ranges."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from lanit.errors import LanitError
from pipeline.decoding.images import is_image_name
from pipeline.decoding.limits import ImageError
from pipeline.inputs.places import Place
from pipeline.inputs.storages import storage_of
from pipeline.path_names import one_spelling

_BLOCK = 512
_LONGEST_EXTRA = 1 << 20  # bytes of a long name or of extended attributes; more is damage
_LONGEST_PADDING = 1 << 20  # bytes behind the last member; more is a part that was never written
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd


class Tar:
    """An :class:`pipeline.inputs.places.Input`. A path is the name of a member, in the one spelling; an offset where
    its data begins."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.image_column: str | None = None
        self.ignored = 0
        self.warnings: list[str] = []
        self.unlisted: list[str] = []

    def places(self) -> Iterator[Place]:
        self.ignored, self.warnings, self.unlisted = 0, [], []
        found = False
        modified = storage_of(self.source).stat(self.source).modified_ns
        for member in self._members():
            if member.is_file and is_tar_image(member.name):
                found = True
                yield Place(self.source, member.name, member.offset, member.size, modified)
            else:
                self.ignored += not member.is_folder
        if self.warnings:  # of the members behind the damage nothing is known
            self.unlisted = [""]
        if not found:
            self.warnings.append(f"there are no images in {self.source}")

    def read(self, path: str, offset: int | None, size: int | None) -> bytes:
        if offset is None or size is None:
            raise ImageError("nothing tells where in the tar it lies", f"{path} in {self.source}")
        return storage_of(self.source).read_range(self.source, offset, size)

    def exists(self) -> bool:
        return storage_of(self.source).kind(self.source) == "file"

    def _members(self) -> Iterator[Member]:
        try:
            with storage_of(self.source).open(self.source) as file:
                yield from members(file, self.source, self.warnings)
        except OSError as error:
            message = f"cannot read {self.source}: {error.strerror or error}"
            raise LanitError(message, "Try again, or copy it.") from error


class Member(NamedTuple):
    """name: in the one spelling. offset: where its data begins, bytes from the beginning of the tar. is_file: a regular
    one, without holes."""

    name: str
    offset: int
    size: int
    is_file: bool
    is_folder: bool


def members(file: BinaryIO, source: str, warnings: list[str]) -> Iterator[Member]:
    """Members that are there as a whole, up to the end or to where the tar is damaged.

    tarfile parses the headers. Its own loop is not used: it keeps every member in memory, takes a damaged header for
    the end of the tar, and believes what a header says of its size.
    Damage adds a warning. Raises LanitError where ``file`` is no tar at all.
    """
    end = file.seek(0, os.SEEK_END)
    position, extended, long_name = 0, {}, None
    while position < end:
        file.seek(position)
        block = file.read(_BLOCK)
        if len(block) == _BLOCK and not any(block):
            if end - position <= _LONGEST_PADDING:
                return
            break
        header = _header(block)
        if header is None:
            if position == 0 and len(block) == _BLOCK:
                raise _no_tar(block, source)
            break
        data = position + _BLOCK
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE, *_EXTENDED):
            if header.size > _LONGEST_EXTRA or data + header.size > end:
                break
            text = file.read(header.size)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                long_name = text.split(b"\0", 1)[0]
            elif header.type in _EXTENDED:
                extended = _extended(text)
            position = data + _padded(header.size)
            continue
        if header.type == tarfile.GNUTYPE_SPARSE:
            data = _after_sparse_map(file, block, data)
        size = _size(header, extended)
        if size is None or data + size > end:
            break
        name = extended.get(b"path", long_name)
        is_whole = header.type in _FILES and not any(key.startswith(b"GNU.sparse.") for key in extended)
        yield Member(one_spelling(header.name if name is None else _text(name)), data, size, is_whole, header.isdir())
        position, extended, long_name = data + _padded(size), {}, None
    warnings.append(f"{source} is cut short or damaged at byte {position:,}; the images before were taken")


def _header(block: bytes) -> tarfile.TarInfo | None:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None
    return header if header.size >= 0 else None


def _size(header: tarfile.TarInfo, extended: dict[bytes, bytes]) -> int | None:
    """Of a member's data; links, folders and devices have none, whatever their header says. None: damaged."""
    if header.type in tarfile.SUPPORTED_TYPES and not header.isreg():
        return 0
    try:
        size = int(extended.get(b"size", header.size))
    except ValueError:
        return None
    return size if size >= 0 else None


def _extended(text: bytes) -> dict[bytes, bytes]:
    """Keys and values of records such as ``30 mtime=1350244992.023960108\\n``, as far as they are well formed."""
    found: dict[bytes, bytes] = {}
    while text:
        length, _, _ = text.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(text):
            break
        key, _, value = text[len(length) + 1 : int(length) - 1].partition(b"=")
        found[key] = value
        text = text[int(length) :]
    return found


def _after_sparse_map(file: BinaryIO, block: bytes, position: int) -> int:
    """Where the data of a sparse member in the old GNU format begins: its map may go on in blocks of its own."""
    more = block[482]
    while more:
        block = file.read(_BLOCK)
        position += _BLOCK
        more = block[504] if len(block) == _BLOCK else 0
    return position


def is_tar_image(name: str) -> bool:
    """As in a folder, where those whose names begin with a dot are passed over."""
    if not is_image_name(name):
        return False
    return not any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _no_tar(block: bytes, source: str) -> LanitError:
    if block.startswith(_COMPRESSED):
        return compressed_tar(source)
    return LanitError(f"{source} is not a tar", "Copy or download it again.")


def compressed_tar(source: str) -> LanitError:
    """The refusal of a tar that cannot be read from the middle."""
    hint = "Unpack it first, such as by gunzip: images are read from the middle of a tar."
    return LanitError(f"{source} is a compressed tar", hint)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
