"""A zip of images: listed by its central directory, read by byte ranges, never unpacked."""

from __future__ import annotations

import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lanit.errors import LanitError
from pipeline.decoding.limits import ImageError
from pipeline.inputs.passed_over import is_image_member
from pipeline.inputs.places import BaseInput, Place
from pipeline.inputs.storages import storage_of
from pipeline.path_names import one_spelling
from pipeline.stand_ins import refusal, stand_in

_HEADER = struct.Struct("<4s22xHH")  # of a member: its signature, and the lengths of its name and of what follows that
_SIGNATURE = b"PK\3\4"
_HEAD = 512  # bytes that tell whether it is a zip at all
_LONGEST_NAMES = 2 * 0xFFFF  # bytes of name and extra field
_LARGEST = 2 << 30  # bytes that a compressed member may come to: a small zip can claim to hold huge files
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard"}
_ENCRYPTED, _UTF8 = 0x1, 0x800  # flags


class Zip(BaseInput):
    """An :class:`pipeline.inputs.places.Input`. A path is the name of a member, an offset where its header begins."""

    later_counts = True

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self._known: _Directory | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Zip], tuple[str]]:
        return Zip, (self.source,)  # the directory is read again where it is needed

    def places(self) -> Iterator[Place]:
        self._begin_listing()
        modified = storage_of(self.source).stat(self.source).modified_ns
        members, start = _central_directory(self.source)
        self._known = _Directory(members, start)
        found, links = False, 0
        for member in members:
            if not is_image_member(name := one_spelling(_name(member))):
                self.ignored += not member.is_dir()
            elif stat.S_ISLNK(member.external_attr >> 16):
                links += 1
            else:
                found = True
                yield Place(self.source, name, member.header_offset, member.file_size, modified)
        if links:
            self.ignored += links
            self.warnings.append(f"{links:,} symbolic links in {self.source} are not followed")
        if not found:
            self.warnings.append(f"there are no images in {self.source}")

    def read(self, path: str, offset: int | None, size: int | None) -> bytes:
        member = self._directory().member(offset)
        if member is None:
            raise ImageError("the zip has no such member by now", f"{path} in {self.source}")
        if reason := _unreadable(member):
            raise ImageError(reason, f"{path} in {self.source}")
        span = min(member.end, member.offset + _HEADER.size + _LONGEST_NAMES + member.compressed) - member.offset
        data = storage_of(self.source).read_range(self.source, member.offset, span)
        try:
            return _content(data, member)
        except (ValueError, struct.error, zlib.error) as error:
            raise ImageError(f"damaged in the zip ({error})", f"{path} in {self.source}") from error

    def exists(self) -> bool:
        return storage_of(self.source).kind(self.source) == "file"

    def _directory(self) -> _Directory:
        with self._lock:
            if self._known is None:
                try:
                    self._known = _Directory(*_central_directory(self.source))
                except LanitError as error:
                    raise ImageError(error.message, self.source) from error
            return self._known


class _Member(NamedTuple):
    """offset: where its header begins. end: where the next member or the central directory does."""

    offset: int
    end: int
    compressed: int
    size: int
    crc: int
    method: int
    flags: int


class _Directory:
    """What reading a member takes, 40 bytes for each."""

    def __init__(self, members: list[zipfile.ZipInfo], start: int) -> None:
        """start: where the central directory begins."""
        rows = [(m.header_offset, m.compress_size, m.file_size, m.CRC, m.compress_type << 16 | m.flag_bits)
                for m in members]  # fmt: skip
        self._rows = np.array(rows, np.int64).reshape(-1, 5)
        self._rows = self._rows[np.argsort(self._rows[:, 0], kind="stable")]
        self._offsets = np.ascontiguousarray(self._rows[:, 0])
        self._start = start

    def member(self, offset: int | None) -> _Member | None:
        """The member whose header begins at ``offset``, if there is one."""
        row = len(self._offsets) if offset is None else int(np.searchsorted(self._offsets, offset))
        if row == len(self._offsets) or self._offsets[row] != offset:
            return None
        end = self._offsets[row + 1] if row + 1 < len(self._offsets) else self._start
        begin, compressed, size, crc, kind = map(int, self._rows[row])
        return _Member(begin, int(end), compressed, size, crc, kind >> 16, kind & 0xFFFF)


def _central_directory(source: str) -> tuple[list[zipfile.ZipInfo], int]:
    """The members, in the order of the directory, and where it begins; about 500 bytes of memory for each member.

    Raises LanitError where ``source`` is no whole zip.
    """
    try:
        with storage_of(source).open(source) as file:
            if found := stand_in(file.read(_HEAD)):
                raise refusal(source, found)
            with zipfile.ZipFile(file) as archive:
                return archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError) as error:
        raise LanitError(f"{source} is not a whole zip ({error})", "Copy or download it again.") from error
    except OSError as error:
        raise LanitError(f"cannot read {source}: {error.strerror or error}", "Try again, or copy it.") from error


def _name(member: zipfile.ZipInfo) -> str:
    """Many programs write UTF-8 without saying so; what is no UTF-8 is as zipfile reads it."""
    if member.flag_bits & _UTF8:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename


def _unreadable(member: _Member) -> str:
    """Why a member is not read, empty where it is."""
    if member.flags & _ENCRYPTED:
        return "it is encrypted: unpack the zip with its password, and give the folder"
    if member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        name = _METHODS.get(member.method, f"method {member.method}")
        return f"it is compressed by {name}, which is not read: unpack the zip, and give the folder"
    if member.size > _LARGEST and member.method != zipfile.ZIP_STORED:
        return f"it comes to {member.size:,} bytes unpacked, more than any image is read of"
    return ""


def _content(data: bytes, member: _Member) -> bytes:
    """Raises ValueError, struct.error or zlib.error where it is not what the directory says."""
    signature, name, extra = _HEADER.unpack_from(data)
    if signature != _SIGNATURE:
        raise ValueError("it does not begin as a member does")
    begin = _HEADER.size + name + extra
    content = data[begin : begin + member.compressed]
    if member.method == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1)
    if len(content) != member.size:
        raise ValueError("its length is not what the directory says")
    if zlib.crc32(content) != member.crc:
        raise ValueError("its checksum is not what the directory says")
    return content
