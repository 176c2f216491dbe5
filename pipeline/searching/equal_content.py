"""Which images of a store have the same bytes."""

from __future__ import annotations

import numpy as np

from pipeline.store.store import Store


def content_numbers(store: Store) -> np.ndarray:
    """A number for each image, int64 (n): equal for equal SHA-256."""
    halves = np.empty((store.ok, 4), ">u8")
    start = 0
    for table in store.ok_parts(["sha256"]):
        digests = bytes.fromhex("".join(table["sha256"].to_pylist()))
        halves[start : start + len(table)] = np.frombuffer(digests, ">u8").reshape(-1, 4)
        start += len(table)
    order = np.lexsort(halves.T)
    new = (halves[order][1:] != halves[order][:-1]).any(axis=1)
    numbers = np.empty(store.ok, np.int64)
    numbers[order] = np.concatenate([[0], np.cumsum(new)])[: store.ok]
    return numbers


def first_of_equal(content: np.ndarray, side: np.ndarray) -> np.ndarray:
    """The first row of the same content on the same side, for each row, int64 (n): the others need no comparison."""
    _, index, inverse = np.unique(content * 3 + side, return_index=True, return_inverse=True)
    return index[inverse]


def on_both_sides(content: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Whether the content of a row of either side lies on both, bool."""
    return np.isin(content, np.intersect1d(content[side == 1], content[side == 2])) & (side > 0)
