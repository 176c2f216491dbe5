"""A linear head on embeddings, which decides labels: of clusters, or fitted to known labels (:mod:`lanit.heads`).

As in :mod:`lanit.labels`, arrays are NumPy's or torch's, all of one kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LinearHead:
    """Scores v̄·weights_n + bias_n, and what labels they give. weights: float32 (M×k); bias: float32 (M).

    one_hot: the domain of the largest score alone; else every domain of a positive one.
    columns: int64 (M), the domains, of N, that the head decides; none for all.
    """

    weights: Any
    bias: Any
    one_hot: bool = False
    columns: Any = None

    def arrays(self) -> LinearHead:
        """As NumPy arrays."""
        columns = None if self.columns is None else as_array(self.columns)
        return LinearHead(as_array(self.weights), as_array(self.bias), self.one_hot, columns)

    @property
    def decisive(self) -> list[Any]:
        """The arrays that tell heads of one rule apart."""
        further = [] if self.columns is None else [self.columns]
        return [self.weights, *([self.bias] if self.bias.any() else []), *further]

    def labels(self, images: Any) -> Any:
        """Bool (B×M) of unit-norm embeddings (B×k); of equal scores under ``one_hot`` the first."""
        scores = images @ self.weights.T + self.bias
        return top_k(scores, 1) if self.one_hot else scores > 0


def top_k(scores: Any, k: int) -> Any:
    """Bool (B×N): the k largest scores of each row, of equal ones the first; all of them where k ≥ N (METHOD 2)."""
    return (-scores).argsort(axis=1, stable=True).argsort(axis=1) < k


def as_array(values: Any) -> np.ndarray:
    """A NumPy array, of one or of a tensor on any device."""
    found: np.ndarray = values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()
    return found
