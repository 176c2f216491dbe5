"""Images decoded once at training resolution, memory-mapped: training opens no image file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from lanit.errors import LanitError
from pipeline.files import atomic_path
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages

_CHUNK = 256


def open_image_cache(store: Store, size: int, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
    """Every ok image of the store as uint8 (n×3×size×size), in store order, mapped from ``cache/`` in the store.

    Built where it is missing, or where the images it was made from are no longer the store's. An image keeps its
    middle square. Raises LanitError where a file is gone since it was embedded.
    """
    images = StoreImages(store)
    key = hashlib.sha256()
    for column in store.images(["image_id", "sha256", "status"]).columns:
        key.update("\n".join(map(str, column.to_pylist())).encode())
    path = store.root / "cache" / f"images-{size}-{key.hexdigest()[:16]}.npy"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as temporary:
            _build(images, size, temporary, progress)
        for old in path.parent.glob(f"images-{size}-*.npy"):
            if old != path:
                old.unlink()
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def _build(images: StoreImages, size: int, path: Path, progress: Callable[[int, int], None] | None) -> None:
    shape = (len(images), 3, size, size)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    done = 0
    with ThreadPoolExecutor(4) as pool:
        while chunk := range(done, min(done + _CHUNK, len(images))):
            for image in pool.map(lambda row: _load(images, row, size), chunk):
                out[done] = image.transpose(2, 0, 1)
                done += 1
            if progress:
                progress(done, len(images))
    out.flush()


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
    try:
        return fit_square(images.decode(row), size)
    except (LanitError, OSError) as error:
        raise LanitError(
            f"cannot read {images.name(row)}, which the store names: {error}", "Run lanit embed again."
        ) from error
