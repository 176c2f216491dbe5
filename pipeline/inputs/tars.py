"""A tar of images, as WebDataset keeps them: listed by its headers, read by byte ranges."""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

from lanit.errors import LanitError
from pipeline.decoding.limits import ImageError
from pipeline.inputs.passed_over import is_image_member
from pipeline.inputs.places import BaseInput, Place
from pipeline.inputs.storages import storage_of
from pipeline.path_names import one_spelling
from pipeline.stand_ins import refusal, stand_in

_BLOCK = 512
_LONGEST_EXTRA = 1 << 20  # bytes of a long name or of extended attributes; more is damage
_LONGEST_PADDING = 1 << 20  # bytes behind the last member; more is a part that was never written
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd


class Tar(BaseInput):
    """An :class:`pipeline.inputs.places.Input`. A path is the name of a member, in the one spelling; an offset where
    its data begins.

    A link, hard or symbolic, is an image at the offset of the member that it leads to.
    """

    later_counts = True

    def places(self) -> Iterator[Place]:
        self._begin_listing()
        found = False
        modified = storage_of(self.source).stat(self.source).modified_ns
        links: dict[str, str] = {}
        for member in self._members(self.warnings):
            is_image = is_image_member(member.name)
            if is_image and member.is_file:
                found = True
                yield Place(self.source, member.name, member.offset, member.size, modified)
            elif is_image and member.target is not None:
                links[member.name] = member.target
            else:
                self.ignored += not member.is_folder
        if self.warnings:  # of the members behind the damage nothing is known
            self.unlisted = [""]
        for name, target in self._linked(links):
            found = True
            yield Place(self.source, name, target.offset, target.size, modified)
        if not found:
            self.warnings.append(f"there are no images in {self.source}")

    def read(self, path: str, offset: int | None, size: int | None) -> bytes:
        if offset is None or size is None:
            raise ImageError("nothing tells where in the tar it lies", f"{path} in {self.source}")
        return storage_of(self.source).read_range(self.source, offset, size)

    def exists(self) -> bool:
        return storage_of(self.source).kind(self.source) == "file"

    def _linked(self, links: Mapping[str, str]) -> Iterator[tuple[str, Member]]:
        """The names of links, and the members that they lead to; those that lead nowhere are ignored.

        The tar is gone through once more, so that memory holds what is linked to and not every member.
        """
        ends = {name: _end_of(links, name) for name in links}
        wanted, found = set(ends.values()), dict[str, Member]()
        for member in self._members([]) if wanted else ():
            name = posixpath.normpath(member.name)
            if member.is_file and name in wanted:
                found[name] = member
        yield from ((name, found[end]) for name, end in ends.items() if end in found)
        if lost := sum(end not in found for end in ends.values()):
            some = "1 link of an image leads" if lost == 1 else f"{lost:,} links of images lead"
            self.warnings.append(f"{some} to no file in {self.source}")
            self.ignored += lost

    def _members(self, warnings: list[str]) -> Iterator[Member]:
        try:
            with storage_of(self.source).open(self.source) as file:
                yield from members(file, self.source, warnings)
        except OSError as error:
            message = f"cannot read {self.source}: {error.strerror or error}"
            raise LanitError(message, "Try again, or copy it.") from error


class Member(NamedTuple):
    """name: in the one spelling. offset: where its data begins, bytes from the beginning of the tar. is_file: a regular
    one, without holes. target: of a link, hard or symbolic, the name of the member that it leads to; else none."""

    name: str
    offset: int
    size: int
    is_file: bool
    is_folder: bool
    target: str | None


def members(file: BinaryIO, source: str, warnings: list[str]) -> Iterator[Member]:
    """Members that are there as a whole, up to the end or to where the tar is damaged.

    tarfile parses the headers. Its own loop is not used: it keeps every member in memory, takes a damaged header for
    the end of the tar, and believes what a header says of its size.
    Damage adds a warning. Raises LanitError where ``file`` is no tar at all.
    """
    end = file.seek(0, os.SEEK_END)
    position, extended, long_name, long_link = 0, {}, None, None
    while position < end:
        file.seek(position)
        block = file.read(_BLOCK)
        if len(block) == _BLOCK and not any(block):
            if end - position <= _LONGEST_PADDING:
                return
            break
        header = _header(block)
        if header is None:
            if position == 0 and (found := stand_in(block)):
                raise refusal(source, found)
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
            elif header.type == tarfile.GNUTYPE_LONGLINK:
                long_link = text.split(b"\0", 1)[0]
            elif header.type in _EXTENDED:
                extended = _extended(text)
            position = data + _padded(header.size)
            continue
        if header.type == tarfile.GNUTYPE_SPARSE:
            data = _after_sparse_map(file, block, data)
        size = _size(header, extended)
        if size is None or data + size > end:
            break
        name = _text(extended.get(b"path", long_name), header.name)
        is_whole = header.type in _FILES and not any(key.startswith(b"GNU.sparse.") for key in extended)
        target = _text(extended.get(b"linkpath", long_link), header.linkname)
        yield Member(one_spelling(name), data, size, is_whole, header.isdir(), _target(header, name, target))
        position, extended, long_name, long_link = data + _padded(size), {}, None, None
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


def _target(header: tarfile.TarInfo, name: str, target: str) -> str | None:
    """Hard links name a member, symbolic ones a path from the folder they lie in."""
    if header.islnk():
        return target
    return posixpath.join(posixpath.dirname(name), target) if header.issym() else None


def _end_of(links: Mapping[str, str], name: str) -> str:
    """Where a link leads, through other links too, as a normal path; of those in a circle, some name of it."""
    seen = set()
    while name in links and name not in seen:
        seen.add(name)
        name = posixpath.normpath(links[name])
    return name


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


def _text(name: bytes | None, otherwise: str) -> str:
    return otherwise if name is None else name.decode("utf-8", "surrogateescape")
