"""Images at training size: decoded once and memory-mapped or, where that is too large, whenever they are drawn."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from lanit.errors import LanitError, cannot_write
from pipeline.decoding.limits import ImageError
from pipeline.decoding.squares import fit_square
from pipeline.files import exclusive_lock, is_unwritable, publish
from pipeline.progress import Progress
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages

_CHUNK = 256
_WORKERS = 4
_PATIENCE = 24 * 3600.0  # for another process that is decoding the same images
_LOOKED_THROUGH = 10_000  # rows, for more images that changed
_CHECKSUM_BYTES = 4
_FILE = re.compile(r"(images-(\d+)-[0-9a-f]{16})\.(?:npy|partial|json)")
_OLD_NOTE = re.compile(rb'\{\s*"done": \d+\s*\}\s*')
Tell = Callable[[str], None]


class SizedImages(Protocol):
    """Every ok image of a store at one size, in store order: its middle square."""

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (len(rows)×3×S×S) of rows, integers. Raises LanitError where a file changed since it was embedded."""


class DrawnImages:
    """Images decoded whenever they are drawn."""

    def __init__(self, images: StoreImages, size: int) -> None:
        self.images, self.size = images, size
        self._pool = ThreadPoolExecutor(_WORKERS, "decode")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.stack(list(self._pool.map(lambda row: load_square(self.images, int(row), self.size), rows)))


class CachedImages:
    """Images decoded before: each row of a file is one, with a checksum. A row that is damaged is decoded again."""

    def __init__(self, path: Path, images: StoreImages, size: int) -> None:
        self._path, self._images, self._size = path, images, size
        self._rows = _Rows(path.stem, len(images), size)
        shape = len(images), self._rows.bytes
        self._file = np.memmap(path, np.uint8, "r", len(self._rows.header), shape).view(np.ndarray)

    def __len__(self) -> int:
        return len(self._images)

    def take(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), 3, self._size, self._size), np.uint8)
        for place, row in enumerate(rows.tolist()):
            record = self._file[row]
            out[place].reshape(-1)[:] = record[:-_CHECKSUM_BYTES]
            if self._rows.checksum(row, out[place].data) != record[-_CHECKSUM_BYTES:].tobytes():
                out[place] = load_square(self._images, row, self._size)
                self._mend(row, out[place])
        return out

    def _mend(self, row: int, pixels: np.ndarray) -> None:
        with contextlib.suppress(OSError), self._path.open("rb+") as file:  # else it is decoded again the next time
            file.seek(len(self._rows.header) + row * self._rows.bytes)
            file.write(self._rows.record(row, pixels))


class _Rows:
    """The layout of a cache file: a NumPy header, then for each image its pixels and a checksum of 4 bytes.

    The checksum begins with the name of the cache, which stands for the store's images, and with the number of the row:
    a row of another store, or in another place, is as wrong as a damaged one.
    """

    def __init__(self, name: str, count: int, size: int) -> None:
        self.bytes = 3 * size * size + _CHECKSUM_BYTES
        self.header = _header((count, self.bytes))
        self._seed = zlib.crc32(name.encode())

    def checksum(self, row: int, pixels: memoryview | bytes) -> bytes:
        """pixels: 3·S² bytes, contiguous."""
        return zlib.crc32(pixels, zlib.crc32(b"%d" % row, self._seed)).to_bytes(_CHECKSUM_BYTES, "little")

    def record(self, row: int, pixels: np.ndarray) -> bytes:
        return pixels.tobytes() + self.checksum(row, pixels.data)

    def is_sound(self, row: int, record: bytes) -> bool:
        return len(record) == self.bytes and record[-_CHECKSUM_BYTES:] == self.checksum(row, record[:-_CHECKSUM_BYTES])


def open_sized_images(
    store: Store, size: int, limit_gb: float, progress: Progress | None = None, tell: Tell | None = None
) -> SizedImages:
    """The images of ``store`` at ``size`` px, out of its ``cache/`` where they fit into ``limit_gb`` (10⁹ bytes).

    The cache is built where it is missing or damaged, or where the images it was made from are no longer the store's;
    building goes on where it was interrupted. In a store that cannot be written images are decoded as they are drawn,
    and ``tell`` hears of it. Raises LanitError where a file is gone or another since it was embedded, or where the disk
    has no room for the cache.
    """
    images = StoreImages(store)
    if len(images) * 3 * size * size > limit_gb * 1e9:
        return DrawnImages(images, size)
    key = hashlib.sha256()
    for column in store.images(["image_id", "sha256", "status"]).columns:
        key.update("\n".join(map(str, column.to_pylist())).encode())
    if store.manifest.frame is not None:
        key.update(f"frame {store.manifest.frame}".encode())
    path = store.root / "cache" / f"images-{size}-{key.hexdigest()[:16]}.npy"
    if not _is_whole(path, len(images), size):
        try:
            _build(images, size, path, progress)
        except LanitError as error:
            if not is_unwritable(error):
                raise
            if tell is not None:
                tell(f"{path.parent} cannot be written: images are decoded whenever they are drawn")
            return DrawnImages(images, size)
        _remove_older(path)
    return CachedImages(path, images, size)


def _is_whole(path: Path, count: int, size: int) -> bool:
    """Whether a cache has its length and begins with its first image; the others are compared when they are drawn."""
    rows = _Rows(path.stem, count, size)
    try:
        with path.open("rb") as file:
            begins = file.read(len(rows.header)) == rows.header and rows.is_sound(0, file.read(rows.bytes))
        return begins and path.stat().st_size == len(rows.header) + count * rows.bytes
    except OSError:
        return False


def _build(images: StoreImages, size: int, path: Path, progress: Progress | None) -> None:
    """Decode everything into ``path``, by way of a partial file beside it, which grows row by row."""
    partial, rows = path.with_suffix(".partial"), _Rows(path.stem, len(images), size)
    busy = LanitError(f"another process is decoding into {path.parent}", "Wait for it to end.")
    with _disk_errors(path), exclusive_lock(path.with_suffix(".lock"), busy, _PATIENCE):
        try:
            if not _is_whole(path, len(images), size):
                _check_room(path.parent, len(images) * rows.bytes - _size(partial))
                with partial.open("ab+") as file:
                    for start, pixels in _decoded(images, size, _sound_rows(file, rows)):
                        file.writelines(rows.record(start + n, each) for n, each in enumerate(pixels))
                        if progress:
                            progress(start + len(pixels), len(images))
                publish(partial, path)
        finally:
            path.with_suffix(".lock").unlink(missing_ok=True)


def _sound_rows(file: BinaryIO, rows: _Rows) -> int:
    """How many rows a partial file begins with that are whole; what follows them is cut off, a header put in front."""
    file.seek(0)
    if file.read(len(rows.header)) != rows.header:
        file.truncate(0)
        file.write(rows.header)
        return 0
    done = 0
    while rows.is_sound(done, file.read(rows.bytes)):
        done += 1
    file.truncate(len(rows.header) + done * rows.bytes)
    file.seek(0, os.SEEK_END)
    return done


def _decoded(images: StoreImages, size: int, start: int) -> Iterator[tuple[int, np.ndarray]]:
    """Chunks of images from row ``start`` on. Raises LanitError that says how many changed, if one did."""
    with ThreadPoolExecutor(_WORKERS, "decode") as pool:
        for first in range(start, len(images), _CHUNK):
            rows = range(first, min(first + _CHUNK, len(images)))
            squares: list[np.ndarray] = []
            for found in pool.map(lambda row: _square_or_error(images, row, size), rows):
                if isinstance(found, ImageError):
                    row = first + len(squares)
                    others = range(row + 1, min(row + 1 + _LOOKED_THROUGH, len(images)))
                    raise images.complaint(row, found, others) from found
                squares.append(found)
            yield first, np.stack(squares)


def _remove_older(path: Path) -> None:
    """Remove the caches of this size that other images were decoded into, unless a process is building one."""
    size = path.stem.split("-")[1]
    busy = LanitError("it is being built", "Wait.")
    for old in path.parent.iterdir():
        match = _FILE.fullmatch(old.name)
        if match is None or match[2] != size or match[1] == path.stem or not _is_ours(old, int(size)):
            continue
        lock = path.with_name(f"{match[1]}.lock")
        with contextlib.suppress(LanitError, OSError), exclusive_lock(lock, busy):
            old.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)


def _is_ours(path: Path, size: int) -> bool:
    """Whether a file whose name is one of ours also has the content: images of this size, or an older note on them."""
    try:
        if path.suffix == ".json":
            return _OLD_NOTE.fullmatch(path.read_bytes()) is not None
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except (OSError, ValueError):
        return False
    return dtype == np.uint8 and shape[1:] in ((3 * size * size + _CHECKSUM_BYTES,), (3, size, size))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _header(shape: tuple[int, ...]) -> bytes:
    """Of a NumPy file of uint8."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return out.getvalue()


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LanitError(
            f"the images at training size need {needed / 1e9:.1f} GB; {folder} has {free / 1e9:.1f} GB free",
            "Free some space, or decode them as they are drawn: --set cache_gb=0.",
        )


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(exist_ok=True)
        yield
    except OSError as error:
        raise cannot_write(path, error, "add --set cache_gb=0") from error


def load_square(images: StoreImages, row: int, size: int) -> np.ndarray:
    """The middle square of one image, uint8 (3×size×size), contiguous.

    Raises LanitError, with what to type, where it is gone or another since it was embedded.
    """
    found = _square_or_error(images, row, size)
    if isinstance(found, ImageError):
        raise images.complaint(row, found) from found
    return found


def _square_or_error(images: StoreImages, row: int, size: int) -> np.ndarray | ImageError:
    try:
        return np.ascontiguousarray(fit_square(images.decode(row), size).transpose(2, 0, 1))
    except ImageError as error:
        return error
