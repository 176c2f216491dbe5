"""Pairs of embeddings with a high cosine among very many, joined into groups, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.progress import Progress
from pipeline.store.caches import scratch_folder
from pipeline.store.index import index_kind, nearest, open_index
from pipeline.store.index_build import plan_index, read_index_file, write_index_file
from pipeline.store.store import Store

EXACT_WORK = 2 * 10**12
"""Multiplications up to which every pair is compared on a CPU: 88 000 images of 512 numbers, a minute on two cores."""
EXACT_WORK_GPU = 10**16
_BLOCK = 16_384  # embeddings in memory at once, twice
_TILE = 512  # rows of a block compared with a block at once
_NEIGHBOURS = 32  # of each image that the inverted index is asked for
_PROBES = 16  # of its lists: images of a high cosine lie in the same list or in close ones
_ROUNDING = 1e-6  # equal embeddings may have a cosine of a little less than 1


class Components:
    """Which of n rows hang together, as pairs come in; memory: eight bytes a row."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count)

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Row ``left[i]`` hangs together with ``right[i]``, int64 (m) each."""
        while True:
            left, right = self._find(left), self._find(right)
            apart = left != right
            if not apart.any():
                return
            left, right = left[apart], right[apart]
            np.minimum.at(self._parent, np.maximum(left, right), np.minimum(left, right))

    def roots(self) -> np.ndarray:
        """The smallest row that each row hangs together with, int64 (n)."""
        return self._find(np.arange(len(self._parent)))

    def _find(self, rows: np.ndarray) -> np.ndarray:
        roots = self._parent[rows]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                self._parent[rows] = roots
                return roots
            roots = above


@dataclass(frozen=True)
class Sides:
    """Rows to compare: each of ``left`` with each of ``right``, int64 in increasing order; both all rows, or apart."""

    left: np.ndarray
    right: np.ndarray
    within: bool

    @property
    def pairs(self) -> int:
        count = len(self.left)
        return count * (count - 1) // 2 if self.within else count * len(self.right)


def join_near(
    store: Store, sides: Sides, threshold: float, components: Components, exact: bool, progress: Progress | None = None
) -> tuple[np.ndarray, bool]:
    """Join the rows of each pair whose cosine is at least ``threshold``.

    exact: compare every pair, however many there are; else an inverted index stands in for that where there are more
    than :data:`EXACT_WORK` allows, which finds nearly all pairs of a high cosine, not all.
    Returns the highest cosine of each row of the store with a row of the other side, float32 (n), −2 where none was
    found, and whether every pair was compared.
    """
    best = np.full(store.ok, -2, np.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    limit = EXACT_WORK if device == "cpu" else EXACT_WORK_GPU
    exact = exact or sides.pairs * store.embedding_dim <= limit
    if exact:
        edges = _all_edges(store, sides, threshold - _ROUNDING, best, device, progress)
    else:
        edges = _some_edges(store, sides, threshold - _ROUNDING, best, progress)
    for left, right in edges:
        components.join(left, right)
    return best, exact


def _all_edges(
    store: Store, sides: Sides, threshold: float, best: np.ndarray, device: str, progress: Progress | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Block against block, each pair once."""
    done = 0
    for start in range(0, len(sides.left), _BLOCK):
        left = sides.left[start : start + _BLOCK]
        one = torch.from_numpy(store.embeddings_of(left)).to(device)
        for begin in range(start if sides.within else 0, len(sides.right), _BLOCK):
            right = sides.right[begin : begin + _BLOCK]
            same = sides.within and begin == start
            other = one if same else torch.from_numpy(store.embeddings_of(right)).to(device)
            yield from _edges(one, other, left, right, threshold, best, same)
            done += len(left) * (len(left) - 1) // 2 if same else len(left) * len(right)
            if progress is not None and sides.pairs:
                progress(len(sides.left) * done // sides.pairs, len(sides.left))


def _edges(
    one: Tensor, other: Tensor, left: np.ndarray, right: np.ndarray, threshold: float, best: np.ndarray, same: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(one), _TILE):
        cosines = one[start : start + _TILE] @ other.T
        rows = left[start : start + _TILE]
        if same:
            cosines.diagonal(start).fill_(-2)
        highest = cosines.amax(dim=1)
        best[rows] = np.maximum(best[rows], highest.cpu().numpy())
        if not same:
            best[right] = np.maximum(best[right], cosines.amax(dim=0).cpu().numpy())
        near = (highest >= threshold).nonzero()[:, 0]  # few rows, mostly: the rest is not looked at again
        if len(near):
            found = (cosines[near] >= threshold).nonzero().cpu().numpy()
            yield rows[near.cpu().numpy()][found[:, 0]], right[found[:, 1]]


def _some_edges(
    store: Store, sides: Sides, threshold: float, best: np.ndarray, progress: Progress | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The nearest neighbours of each row of ``left`` in an inverted index of ``right``: the store's own, or one that is
    made for this and removed."""
    with scratch_folder(store, "duplicates") as folder:
        if sides.within and index_kind(store) == "ivf":
            index = open_index(store)
        else:
            index = _temporary_index(store, sides.right, folder / "index.faiss")
        index.nprobe = min(_PROBES, index.nlist)
        for start in range(0, len(sides.left), _BLOCK):
            rows = sides.left[start : start + _BLOCK]
            cosines, found = nearest(index, store.embeddings_of(rows), _NEIGHBOURS + sides.within)
            others = np.where(found >= 0, sides.right[found], -1)
            cosines[(others == rows[:, None]) | (found < 0)] = -2
            best[rows] = np.maximum(best[rows], cosines.max(axis=1))
            np.maximum.at(best, others[found >= 0], cosines[found >= 0])
            near = cosines >= threshold
            yield np.broadcast_to(rows[:, None], near.shape)[near], others[near]
            if progress is not None:
                progress(start + len(rows), len(sides.left))
        del index  # before its file goes


def _temporary_index(store: Store, rows: np.ndarray, path: Path) -> Any:
    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(rows), _BLOCK):
            yield store.embeddings_of(rows[start : start + _BLOCK])

    write_index_file(plan_index("ivf", len(rows), store.embedding_dim), blocks, path)
    return read_index_file(path)
