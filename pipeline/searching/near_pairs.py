"""Pairs of images with a high cosine, and of roughly the same picture, among very many, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.progress import Progress
from pipeline.searching.pixels import ROUGHLY_SAME, Miniatures
from pipeline.store.caches import scratch_folder
from pipeline.store.index import index_kind, nearest, open_index
from pipeline.store.index_build import plan_index, read_index_file, write_index_file
from pipeline.store.store import Store

EXACT_WORK = 2 * 10**12
"""Multiplications up to which every pair is compared on a CPU: 88 000 images of 512 numbers, a minute on two cores."""
EXACT_WORK_GPU = 10**16
_BLOCK = 16_384  # embeddings in memory at once, twice
_TILE = 512  # rows of a block compared with a block at once
_NEIGHBOURS = 32  # of each image that the inverted index is asked for, and that are looked at closely
_PROBES = 16  # of its lists: images of a high cosine lie in the same list or in close ones
ROUNDING = 1e-6  # equal embeddings may have a cosine of a little less than 1


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

    def among(self, chosen: np.ndarray) -> Sides:
        """Those of them that are chosen, bool (rows of the store)."""
        return Sides(self.left[chosen[self.left]], self.right[chosen[self.right]], self.within)

    @property
    def pairs(self) -> int:
        count = len(self.left)
        return count * (count - 1) // 2 if self.within else count * len(self.right)


def nearest_cosines(
    store: Store, sides: Sides, every_pair: bool, progress: Progress | None = None
) -> tuple[np.ndarray, bool]:
    """The highest cosine of each row of the store with a row of the other side, float32 (n), −2 where none was found;
    and whether every pair was compared.

    every_pair: compare them all, however many there are; else an inverted index stands in for that where there are more
    than :data:`EXACT_WORK` allows, which finds nearly all pairs of a high cosine, not all.
    """
    best = np.full(store.ok, -2, np.float32)
    limit = EXACT_WORK if _device() == "cpu" else EXACT_WORK_GPU
    if not (every_pair or sides.pairs * store.embedding_dim <= limit):
        for rows, others, cosines in _neighbours(store, sides, progress):
            best[rows] = np.maximum(best[rows], cosines.max(axis=1))
            np.maximum.at(best, others[others >= 0], cosines[others >= 0])
        return best, False
    for block in _blocks(store, sides, progress):
        for rows, tile in block.tiles():
            best[rows] = np.maximum(best[rows], tile.amax(dim=1).cpu().numpy())
            best[block.right] = np.maximum(best[block.right], tile.amax(dim=0).cpu().numpy())
    return best, True


def near_pairs(
    store: Store, sides: Sides, threshold: float, exact: bool, seen: Miniatures, progress: Progress | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows, int64 (m) each, whose cosine is at least ``threshold`` and whose pictures are roughly alike; of
    many for one row those most alike. exact: as :func:`nearest_cosines` said. seen: of all the rows."""
    threshold -= ROUNDING
    if not exact:
        for rows, others, cosines in _neighbours(store, sides, progress):
            near = (cosines >= threshold) & (others >= 0)
            left, right = np.broadcast_to(rows[:, None], near.shape)[near], others[near]
            for start in range(0, len(left), _BLOCK):
                chosen = slice(start, start + _BLOCK)
                alike = seen.roughly_same(left[chosen], right[chosen])
                yield left[chosen][alike], right[chosen][alike]
        return
    for block in _blocks(store, sides, progress):
        plain, mirrored = (features.to(block.other.device) for features in seen.rough(block.right))
        for rows, tile in block.tiles():
            own = seen.rough(rows)[0].to(plain.device)
            rough = torch.maximum(own @ plain.T, own @ mirrored.T)
            rough[tile < threshold] = -2
            most, places = rough.topk(min(_NEIGHBOURS, len(block.right)), dim=1)
            found = (most >= ROUGHLY_SAME).nonzero().cpu().numpy()
            yield rows[found[:, 0]], block.right[places.cpu().numpy()[found[:, 0], found[:, 1]]]


@dataclass(frozen=True)
class _Block:
    """Embeddings to compare with each other. same: both are the same rows."""

    left: np.ndarray
    right: np.ndarray
    one: Tensor
    other: Tensor
    same: bool

    def tiles(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Some of the left rows and their cosines with all of the right ones, −2 with themselves."""
        for start in range(0, len(self.one), _TILE):
            cosines = self.one[start : start + _TILE] @ self.other.T
            if self.same:
                cosines.diagonal(start).fill_(-2)
            yield self.left[start : start + _TILE], cosines


def _blocks(store: Store, sides: Sides, progress: Progress | None) -> Iterator[_Block]:
    """Block against block, each pair once."""
    done, device = 0, _device()
    for start in range(0, len(sides.left), _BLOCK):
        left = sides.left[start : start + _BLOCK]
        one = torch.from_numpy(store.embeddings_of(left)).to(device)
        for begin in range(start if sides.within else 0, len(sides.right), _BLOCK):
            right = sides.right[begin : begin + _BLOCK]
            same = sides.within and begin == start
            other = one if same else torch.from_numpy(store.embeddings_of(right)).to(device)
            yield _Block(left, right, one, other, same)
            done += len(left) * (len(left) - 1) // 2 if same else len(left) * len(right)
            if progress is not None and sides.pairs:
                progress(len(sides.left) * done // sides.pairs, len(sides.left))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _neighbours(
    store: Store, sides: Sides, progress: Progress | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows of ``left``, int64 (m), their nearest rows of ``right``, int64 (m×k), −1 for none, and the cosines, −2 for
    none; by an inverted index of ``right``: the store's own, or one that is made for this and removed."""
    with scratch_folder(store, "duplicates") as folder:
        if sides.within and len(sides.right) == store.ok and index_kind(store) == "ivf":
            index = open_index(store)
        else:
            index = _temporary_index(store, sides.right, folder / "index.faiss")
        index.nprobe = min(_PROBES, index.nlist)
        for start in range(0, len(sides.left), _BLOCK):
            rows = sides.left[start : start + _BLOCK]
            cosines, found = nearest(index, store.embeddings_of(rows), _NEIGHBOURS + sides.within)
            others = np.where(found >= 0, sides.right[found], -1)
            others[others == rows[:, None]] = -1
            cosines[others < 0] = -2
            yield rows, others, cosines
            if progress is not None:
                progress(start + len(rows), len(sides.left))
        del index  # before its file goes


def _temporary_index(store: Store, rows: np.ndarray, path: Path) -> Any:
    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(rows), _BLOCK):
            yield store.embeddings_of(rows[start : start + _BLOCK])

    write_index_file(plan_index("ivf", len(rows), store.embedding_dim), blocks, path)
    return read_index_file(path)
