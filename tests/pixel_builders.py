"""What stands for the pixels of images in stores that have none."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.searching.pixels import SAME_PICTURE
from pipeline.store.store import Store


class ByCosine:
    """In the place of miniatures: pictures are the same where embeddings are near."""

    def __init__(self, store: Store, rows: np.ndarray, *_: object) -> None:
        self.places = np.full(store.ok, -1)
        self.places[rows] = np.arange(len(rows))
        self._embeddings = store.embeddings()
        self.opened = rows

    def rough(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        assert (self.places[rows] >= 0).all()
        features = torch.from_numpy(self._embeddings[rows])
        return features, -features

    def roughly_same(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return self.correlations(left, right) > 0.7

    def correlations(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        cosines = np.einsum("ij,ij->i", self._embeddings[left], self._embeddings[right])
        return np.where(cosines >= self.least - 1e-6, np.float32(1), np.float32(0))

    def same(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return self.correlations(left, right) >= SAME_PICTURE

    least = 0.9
