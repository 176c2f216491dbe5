"""Groups of look-alikes: spherical k-means of embeddings, by FAISS."""

from __future__ import annotations

import numpy as np

from pipeline.store.index_build import load_faiss

_ITERATIONS = 20


def cluster_centres(embeddings: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Unit-norm centres, float32 (count×k), of unit-norm embeddings, float32 (n×k), n ≥ count ≥ 1.

    Equal arguments give equal centres. Raises LanitError where faiss is not installed.
    """
    faiss = load_faiss()
    means = faiss.Kmeans(embeddings.shape[1], count, niter=_ITERATIONS, seed=seed, spherical=True,
                         min_points_per_centroid=1, max_points_per_centroid=len(embeddings))  # fmt: skip
    means.train(np.ascontiguousarray(embeddings, np.float32))
    centres: np.ndarray = means.centroids
    return centres
