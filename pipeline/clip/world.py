"""What a CLIP was made for, as the mean and covariance of embeddings; and whether images are like that.

A model outside its world answers with as much confidence as in it. An embedding v is outside where its squared
Mahalanobis distance (v − m)ᵀ C⁻¹ (v − m) is larger than a limit that next to none of the world exceeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lanit.errors import LanitError

FILE_NAME = "world.safetensors"


@dataclass(frozen=True)
class World:
    """mean: float64 (k). covariance: float64 (k×k), of full rank. limit: of the squared distance.
    shows: what the images of the world are, in words."""

    mean: np.ndarray
    covariance: np.ndarray
    limit: float
    shows: str

    def distances(self, embeddings: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distances, float64 (n), of unit-norm embeddings, float (n×k)."""
        away = embeddings.astype(np.float64) - self.mean
        found: np.ndarray = np.einsum("nk,kn->n", away, np.linalg.solve(self.covariance, away.T))
        return found

    def outside(self, embeddings: np.ndarray) -> np.ndarray:
        """Which of the embeddings, float (n×k), are of images unlike those of the world: bool (n)."""
        return self.distances(embeddings) > self.limit

    @classmethod
    def of(cls, embeddings: np.ndarray, limit: float, shows: str, ridge: float = 1e-6) -> World:
        """The world that unit-norm embeddings, float (n×k), are of. ridge: added to every variance, since unit vectors
        do not vary in all directions."""
        mean = embeddings.mean(axis=0, dtype=np.float64)
        covariance = np.cov(embeddings.astype(np.float64), rowvar=False) + ridge * np.eye(len(mean))
        return cls(mean, covariance, limit, shows)

    def to_bytes(self) -> bytes:
        from safetensors.numpy import save

        tensors = {"mean": self.mean, "covariance": self.covariance, "limit": np.array([self.limit])}
        return save(tensors, {"shows": self.shows})


def read_world(folder: Path | None) -> World | None:
    """The world of the CLIP in ``folder``, where it says so. Raises LanitError where the file is damaged."""
    if folder is None or not (folder / FILE_NAME).is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / FILE_NAME, framework="numpy") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            mean, covariance, limit = (file.get_tensor(name) for name in ("mean", "covariance", "limit"))
        if covariance.shape != (*mean.shape, *mean.shape) or limit.shape != (1,):
            raise ValueError("its shapes do not fit")
        return World(mean, covariance, float(limit[0]), str(metadata["shows"]))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        hint = f"Remove it: rm '{folder / FILE_NAME}'"
        raise LanitError(f"{folder / FILE_NAME} cannot be read ({error})", hint) from error
