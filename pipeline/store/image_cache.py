"""Images at training size: decoded once and memory-mapped or, where that is too large, whenever they are drawn."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from lanit.errors import LanitError
from pipeline.files import exclusive_lock, publish, read_json, write_json
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages

_CHUNK = 256
_FLUSHED = 16  # chunks between two notes of how far the work is
_WORKERS = 4
_PATIENCE = 24 * 3600.0  # for another process that is decoding the same images
Progress = Callable[[int, int], None]


class SizedImages(Protocol):
    """Every ok image of a store at one size, in store order: its middle square."""

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (len(rows)×3×S×S). Raises LanitError where a file is gone since it was embedded."""


class CachedImages:
    """Images decoded before. pixels: uint8 (n×3×S×S), mapped."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: np.ndarray) -> np.ndarray:
        taken: np.ndarray = self.pixels[rows]
        return taken


class DrawnImages:
    """Images decoded whenever they are drawn."""

    def __init__(self, images: StoreImages, size: int) -> None:
        self.images, self.size = images, size
        self._pool = ThreadPoolExecutor(_WORKERS, "decode")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.stack(list(self._pool.map(lambda row: _load(self.images, int(row), self.size), rows)))


def open_sized_images(store: Store, size: int, limit_gb: float, progress: Progress | None = None) -> SizedImages:
    """The images of ``store`` at ``size`` px, out of its ``cache/`` where they fit into ``limit_gb`` (10⁹ bytes).

    The cache is built where it is missing, or where the images it was made from are no longer the store's; building
    goes on where it was interrupted. Raises LanitError where a file is gone since it was embedded, or where the disk
    has no room for the cache.
    """
    images = StoreImages(store)
    if len(images) * 3 * size * size > limit_gb * 1e9:
        return DrawnImages(images, size)
    key = hashlib.sha256()
    for column in store.images(["image_id", "sha256", "status"]).columns:
        key.update("\n".join(map(str, column.to_pylist())).encode())
    path = store.root / "cache" / f"images-{size}-{key.hexdigest()[:16]}.npy"
    if not path.is_file():
        _build(images, size, path, progress)
        for old in path.parent.glob(f"images-{size}-*"):
            if old != path:
                old.unlink()
    return CachedImages(np.load(path, mmap_mode="r"))


def _build(images: StoreImages, size: int, path: Path, progress: Progress | None) -> None:
    """Decode everything into ``path``, by way of a partial file beside it and a note of how many rows it holds."""
    partial, note = path.with_suffix(".partial"), path.with_suffix(".json")
    shape = (len(images), 3, size, size)
    busy = LanitError(f"another process is decoding into {path.parent}", "Wait for it to end.")
    with _disk_errors(path), exclusive_lock(path.with_suffix(".lock"), busy, _PATIENCE):
        if path.is_file():
            return
        done = read_json(note)["done"] if note.is_file() and partial.is_file() else 0
        if not done:
            _check_room(path.parent, int(np.prod(shape)))
        out = np.lib.format.open_memmap(partial, mode="r+" if done else "w+", dtype=np.uint8, shape=shape)
        for number, (start, pixels) in enumerate(_decoded(images, size, done)):
            done = start + len(pixels)
            out[start:done] = pixels
            if number % _FLUSHED == _FLUSHED - 1:
                out.flush()
                write_json(note, {"done": done})
            if progress:
                progress(done, len(images))
        out.flush()
        publish(partial, path)
        note.unlink(missing_ok=True)
    path.with_suffix(".lock").unlink(missing_ok=True)


def _decoded(images: StoreImages, size: int, start: int) -> Iterator[tuple[int, np.ndarray]]:
    """Chunks of images from row ``start`` on."""
    with ThreadPoolExecutor(_WORKERS, "decode") as pool:
        for first in range(start, len(images), _CHUNK):
            rows = range(first, min(first + _CHUNK, len(images)))
            yield first, np.stack(list(pool.map(lambda row: _load(images, row, size), rows)))


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
        raise LanitError(
            f"cannot write {path}: {error.strerror or error}",
            "Free some space and run the same command again, or add --set cache_gb=0.",
        ) from error


def fit_square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of an image, uint8 (H×W×3), resized to uint8 (size×size×3), antialiased."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    if (height, width) == (size, size):
        return image
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=box))


def _load(images: StoreImages, row: int, size: int) -> np.ndarray:
    """One image, uint8 (3×S×S)."""
    try:
        return np.ascontiguousarray(fit_square(images.decode(row), size).transpose(2, 0, 1))
    except (LanitError, OSError) as error:
        raise LanitError(
            f"cannot read {images.name(row)}, which the store names: {error}", "Run lanit embed again."
        ) from error
