"""Whether two images show the same picture: resized, encoded anew, mirrored or cropped by a little."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.decoding.limits import ImageError
from pipeline.progress import Progress
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages

ROUGHLY_SAME = 0.7
"""Correlation of two pictures as they are, in rough, below which no crop of them is worth looking for."""
SAME_PICTURE = 0.985
"""Correlation of two pictures, as well aligned as they can be, from which on they are the same: docs/LOG.md."""
_SIDE = 32  # pixels of the miniatures
_FITTED = 16  # of what is compared of two of them
_ROUGH = 12  # of what tells first that they are not the same
_FLAT = 2.0  # standard deviation, levels of 255: nothing to be recognised by
_WORKERS = 4
_PAIRS_AT_ONCE = 256
_NEARLY_SAME = 0.85  # by few windows, below which it is not worth trying many
_FEW = ((0.0, 1.0), (0.025, 0.975), (0.05, 0.95))
_MANY = ((0.0, 1.0), *((start, start + 0.95) for start in (0, 0.0125, 0.025, 0.0375, 0.05)), (0.05, 0.95))
"""Parts of a side that a crop by up to a twentieth, or by one at both ends, may leave; the first is all of it."""


class Miniatures:
    """Small copies of images, in a file.

    places: int64 (rows of the store), where the row's miniature is; −1 for rows that have none, since nobody asked, or
    since the image cannot be read, or has nothing to recognise it by.
    """

    def __init__(self, pixels: np.ndarray, places: np.ndarray) -> None:
        """pixels: uint8 (n×32×32×3)."""
        self._pixels, self.places = pixels, places
        self._few, self._many = _Windows(_FEW, _ROUGH), _Windows(_MANY, _FITTED)

    def rough(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Unit-norm float32 (n×432) of rows that have one, and of their mirror images: their products are correlations,
        too low to be the same picture below :data:`ROUGHLY_SAME`."""
        small = self._few.whole(self._read(rows))
        return _unit(small), _unit(small.flip(3))

    def roughly_same(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Whether it is worth looking closely at ``left[i]`` and ``right[i]``, bool (n)."""
        (one, _), (other, mirrored) = self.rough(left), self.rough(right)
        alike: np.ndarray = (torch.maximum((one * other).sum(1), (one * mirrored).sum(1)) >= ROUGHLY_SAME).numpy()
        return alike

    def same(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Whether ``left[i]`` shows the same picture as ``right[i]``, bool (n)."""
        return self.correlations(left, right) >= SAME_PICTURE

    def correlations(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Of each row ``left[i]`` with ``right[i]``, float32 (n) from −1 to 1: the highest over the windows of one that
        the other may be, and over mirroring."""
        found = np.empty(len(left), np.float32)
        for start in range(0, len(left), _PAIRS_AT_ONCE):
            chosen = slice(start, start + _PAIRS_AT_ONCE)
            one, other = self._read(left[chosen]), self._read(right[chosen])
            alike = self._few.best(one, other)
            close = alike >= _NEARLY_SAME
            if close.any():
                alike[close] = self._many.best(one[close], other[close])
            found[chosen] = alike.numpy()
        return found

    def _read(self, rows: np.ndarray) -> Tensor:
        """float32 (n×3×32×32)"""
        return torch.from_numpy(self._pixels[self.places[rows]]).permute(0, 3, 1, 2).float().contiguous()


class _Windows:
    """Parts of a picture, resized to one size."""

    def __init__(self, windows: tuple[tuple[float, float], ...], size: int) -> None:
        """windows: of both sides, each of these with each."""
        self._count, self._size = len(windows), size
        self._fit = torch.from_numpy(np.concatenate([_resizing(*window, size) for window in windows]))

    def whole(self, pictures: Tensor) -> Tensor:
        """float32 (n×3×size×size) of all of each picture (n×3×32×32)."""
        first = self._fit[: self._size]
        return first @ (pictures @ first.T)

    def best(self, one: Tensor, other: Tensor) -> Tensor:
        """The highest correlation, float32 (n), of any part of a picture with all of the other, also mirrored."""
        return torch.maximum(self._best(one, other), self._best(other, one))

    def _best(self, parted: Tensor, whole: Tensor) -> Tensor:
        count, side = self._count, self._size
        parts = (self._fit @ (parted @ self._fit.T)).view(-1, 3, count, side, count, side)
        flat = parts.permute(0, 2, 4, 1, 3, 5).reshape(len(parted), count**2, -1)
        small = self.whole(whole)
        both = torch.stack([_unit(small), _unit(small.flip(3))], dim=2)
        norms = (flat.var(-1, correction=0) * flat.shape[-1]).sqrt().clamp_min(1e-6)
        return ((flat @ both) / norms[..., None]).flatten(1).amax(1)  # both have no mean: that of the parts falls out


def read_miniatures(store: Store, rows: np.ndarray, path: Path, progress: Progress | None = None) -> Miniatures:
    """Open the images of ``rows``, int64, and keep miniatures of them in the file ``path``: 3 kB each.

    Images that are gone, changed or of one colour have none.
    """
    images = StoreImages(store, rows)
    pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (max(len(rows), 1), _SIDE, _SIDE, 3))
    places = np.full(store.ok, -1)
    for place, miniature in enumerate(_made(images, progress)):
        if miniature is not None and miniature.std(axis=(0, 1)).max() > _FLAT:
            pixels[place] = miniature
            places[rows[place]] = place
    return Miniatures(pixels, places)


def miniature_of(pixels: np.ndarray) -> np.ndarray:
    """All of an image, uint8 (H×W×3), as uint8 (32×32×3)."""
    return np.asarray(Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, reducing_gap=3))


def _made(images: StoreImages, progress: Progress | None) -> Iterator[np.ndarray | None]:
    def make(row: int) -> np.ndarray | None:
        try:
            return miniature_of(images.decode(row))
        except ImageError:
            return None

    with ThreadPoolExecutor(_WORKERS, "decode") as pool:
        for start in range(0, len(images), 64 * _WORKERS):
            end = min(start + 64 * _WORKERS, len(images))
            yield from pool.map(make, range(start, end))
            if progress is not None:
                progress(end, len(images))


def _resizing(start: float, end: float, size: int) -> np.ndarray:
    """float32 (size×32): the weights that resize that part of a side, antialiased, as Pillow's bilinear filter does."""
    line = Image.fromarray(np.eye(_SIDE, dtype=np.float32))
    box = (start * _SIDE, 0, end * _SIDE, _SIDE)
    return np.asarray(line.resize((size, _SIDE), Image.Resampling.BILINEAR, box=box)).T.copy()


def _unit(pictures: Tensor, first: int = 1) -> Tensor:
    """Less their mean and of norm 1, float32; all dimensions from ``first`` on become one."""
    flat = pictures.flatten(first)
    flat = flat - flat.mean(-1, keepdim=True)
    return flat / flat.norm(dim=-1, keepdim=True).clamp_min(1e-6)
