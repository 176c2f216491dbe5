"""How near translations come to what their sources are paired with (``lanit pair``)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.evaluation.perceptual import Perceptual
from pipeline.evaluation.sample import read_rows
from pipeline.store.pairs import partners
from pipeline.store.store import Store


class Pictures:
    """Partners of n sources in their order, taken from the front block by block.

    paired: bool (n). images: uint8 (paired.sum()×S×S×3).
    """

    def __init__(self, paired: NDArray[np.bool_], images: np.ndarray) -> None:
        self._paired, self._images = paired, images

    def distances(self, made: np.ndarray, perceptual: Perceptual | None) -> tuple[Tensor, Tensor | None]:
        """Mean distances of the translations of the next b sources, uint8 (b×K×S×S×3), to their partners: of pixels,
        0 to 1, and by LPIPS where it is at hand; float64 (b), not a number where there is no partner."""
        count, styles = made.shape[:2]
        paired, self._paired = self._paired[:count], self._paired[count:]
        images, self._images = self._images[: paired.sum()], self._images[paired.sum() :]
        chosen = made[paired]
        pixels = np.abs(chosen.astype(np.int16) - images[:, None]).mean(axis=(1, 2, 3, 4)) / 255
        found = [torch.full((count,), torch.nan, dtype=torch.float64) for _ in range(2)]
        known = torch.from_numpy(paired)
        found[0][known] = torch.from_numpy(pixels)
        if perceptual is None or not len(images):
            return found[0], None if perceptual is None else found[1]
        apart = perceptual.apart(chosen.reshape(-1, *chosen.shape[2:]), images.repeat(styles, axis=0))
        found[1][known] = apart.unflatten(0, (-1, styles)).mean(dim=1)
        return found[0], found[1]


@dataclass(frozen=True)
class Partners:
    """rows: int64 (n), of every image of a store the row of its partner, −1 for none. active: bool (n×N), labels."""

    store: Store
    rows: NDArray[np.int64]
    active: np.ndarray

    @classmethod
    def of(cls, store: Store, active: np.ndarray) -> Partners | None:
        """None where no images are paired."""
        rows = partners(store)
        return None if rows is None else cls(store, rows, active)

    def digest(self) -> str:
        return hashlib.sha256(self.rows.tobytes()).hexdigest()

    def pictures(self, sources: NDArray[np.int64], domain: int, size: int) -> Pictures:
        """Of sources, by their rows, the partners that carry the domain."""
        rows = self.rows[sources]
        paired = (rows >= 0) & self.active[rows, domain]
        if not paired.any():
            return Pictures(paired, np.empty((0, size, size, 3), np.uint8))
        return Pictures(paired, read_rows(self.store, rows[paired], size))


def joined(blocks: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor | None, Tensor | None]:
    """Distances of all blocks as one, of each kind; none where there are none."""
    pixels = [block[0] for block in blocks]
    perceptual = [block[1] for block in blocks if block[1] is not None]
    return (torch.cat(pixels) if pixels else None, torch.cat(perceptual) if perceptual else None)
