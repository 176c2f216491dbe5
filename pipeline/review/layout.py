"""Embeddings in two dimensions: UMAP (McInnes, Healy and Melville, 2018) of a sample behind PCA, the rest placed among
their nearest neighbours in it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from lanit.errors import LanitError
from pipeline.extras import install
from pipeline.store.index_build import load_faiss

if TYPE_CHECKING:
    from pipeline.store.store import Store

LAID_OUT = 20_000
"""Images that UMAP lays out at most; it takes the most time by far."""

LEAST_IMAGES = 20
_DIRECTIONS = 50
_NEIGHBOURS = 15
_PLACED_BY = 8
_SEED = 0

Tell = Callable[[str, int, int], None]


def lay_out(store: Store, tell: Tell) -> np.ndarray:
    """Points of all images of ``store``, float32 (n×2), each from -1 to 1; the same store gives the same points.

    tell: called with (what, images done, images). Raises LanitError where umap-learn is missing, or the store has too
    few images.
    """
    if importlib.util.find_spec("umap") is None:
        raise LanitError("the map needs umap-learn, which is not installed", f"Install it: {install('review')}")
    if store.ok < LEAST_IMAGES:
        raise LanitError(f"a map takes {LEAST_IMAGES} images, and the store has {store.ok}", "Embed more images.")
    reduced = np.concatenate(list(_reduced(store, tell)))
    chosen = np.sort(np.random.default_rng(_SEED).permutation(store.ok)[:LAID_OUT])
    tell(f"laying out {len(chosen):,} images", 0, 0)
    placed = _umap(reduced[chosen])
    points = placed if len(chosen) == store.ok else _placed(reduced, reduced[chosen], placed, tell)
    return _fitted(points)


def _reduced(store: Store, tell: Tell) -> Iterator[np.ndarray]:
    """The embeddings along their principal directions, float32, part by part: they are read twice, and never whole."""
    k, done = store.embedding_dim, 0
    total, products = np.zeros(k), np.zeros((k, k))
    for part in store.embedding_parts():
        total += part.sum(axis=0, dtype=np.float64)
        products += part.T @ part
        done += len(part)
        tell("reading embeddings", done, 2 * store.ok)
    mean = total / store.ok
    _, vectors = np.linalg.eigh(products / store.ok - np.outer(mean, mean))
    directions = vectors[:, ::-1][:, : min(_DIRECTIONS, k)].astype(np.float32)
    for part in store.embedding_parts():
        yield (part - mean.astype(np.float32)) @ directions
        done += len(part)
        tell("reading embeddings", done, 2 * store.ok)


def _umap(vectors: np.ndarray) -> np.ndarray:
    """float32 (m×2). The neighbours are found by FAISS, exactly; UMAP's own search is slower at this size."""
    import warnings

    import umap

    count = min(_NEIGHBOURS, len(vectors) - 1)
    squared, rows = _nearest(vectors, vectors, count)
    known = (rows, np.sqrt(np.maximum(squared, 0)), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed takes one processor, and that neighbours were given
        points: np.ndarray = umap.UMAP(
            n_neighbors=count, min_dist=0.1, random_state=_SEED, n_jobs=1, precomputed_knn=known, init="pca",
        ).fit_transform(vectors)  # fmt: skip
    return points.astype(np.float32)


def _nearest(among: np.ndarray, of: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    faiss = load_faiss()
    index = faiss.IndexFlatL2(among.shape[1])
    index.add(np.ascontiguousarray(among, np.float32))
    found: tuple[np.ndarray, np.ndarray] = index.search(np.ascontiguousarray(of, np.float32), count)
    return found


def _placed(every: np.ndarray, chosen: np.ndarray, points: np.ndarray, tell: Tell) -> np.ndarray:
    """Each image at the mean of its nearest neighbours among those laid out, the nearer ones weighing more."""
    block, out = 16_384, np.empty((len(every), 2), np.float32)
    for start in range(0, len(every), block):
        squared, rows = _nearest(chosen, every[start : start + block], _PLACED_BY)
        weights = 1 / (np.sqrt(np.maximum(squared, 0)) + 1e-4)
        weights /= weights.sum(axis=1, keepdims=True)
        out[start : start + block] = (points[rows] * weights[:, :, None]).sum(axis=1)
        tell("placing the others", min(start + block, len(every)), len(every))
    return out


def _fitted(points: np.ndarray) -> np.ndarray:
    """Within -1 and 1, in their own proportions; a few far ones at the edge do not make the rest small."""
    low, high = np.quantile(points, (0.001, 0.999), axis=0)
    scale = max(float((high - low).max()), 1e-9)
    fitted: np.ndarray = np.clip((points - (low + high) / 2) * (1.9 / scale), -1, 1).astype(np.float32)
    return fitted
