"""Clusters against classes: how much one tells of the other, and which cluster is which class.

Each image has one cluster and one class; the numbers of neither mean anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Matching:
    """images: n. mutual_information: adjusted, 1 where clusters are the classes and 0 by chance. accuracy: the share of
    the images whose cluster is that of their class, in the best matching one-to-one. cluster_of: int64 (C), of each
    class, −1 where there are fewer clusters than classes."""

    images: int
    mutual_information: float
    accuracy: float
    cluster_of: Ints


def match(clusters: Ints, classes: Ints) -> Matching:
    """clusters, classes: int64 (n), n ≥ 1, numbers from 0 on."""
    counts = np.zeros((int(classes.max()) + 1, int(clusters.max()) + 1), np.int64)
    np.add.at(counts, (classes, clusters), 1)
    cluster_of = best_assignment(counts)
    found = np.flatnonzero(cluster_of >= 0)
    right = int(counts[found, cluster_of[found]].sum())
    return Matching(len(classes), adjusted_mutual_information(counts), right / len(classes), cluster_of)


def adjusted_mutual_information(counts: Ints) -> float:
    """(I − E[I]) / (mean of the two entropies − E[I]) of a table of counts (C×K), E[I] over all tables of its margins
    (Vinh, Epps and Bailey, 2010); 1 where each side has but one."""
    rows, columns, total = counts.sum(axis=1), counts.sum(axis=0), int(counts.sum())
    rows, columns = rows[rows > 0], columns[columns > 0]
    if len(rows) == len(columns) == 1:
        return 1.0
    shares, expected = counts / total, np.outer(counts.sum(axis=1), counts.sum(axis=0)) / total**2
    filled = counts > 0
    information = float((shares[filled] * np.log(shares[filled] / expected[filled])).sum())
    chance = sum(_expected(int(a), int(b), total) for a in rows for b in columns)
    most = sum(float(-(side / total * np.log(side / total)).sum()) for side in (rows, columns)) / 2
    return (information - chance) / max(most - chance, np.finfo(float).eps)


def _expected(a: int, b: int, total: int) -> float:
    """The part of E[I] of one cell, whose row has ``a`` images and whose column has ``b``: hypergeometric."""
    n = np.arange(max(1, a + b - total), min(a, b) + 1)
    log = (
        _log_factorial(a) + _log_factorial(b) + _log_factorial(total - a) + _log_factorial(total - b)
        - _log_factorial(total) - _log_factorial(n) - _log_factorial(a - n) - _log_factorial(b - n)
        - _log_factorial(total - a - b + n)
    )  # fmt: skip
    return float((n / total * np.log(total * n / (a * b)) * np.exp(log)).sum())


def _log_factorial(values: Any) -> Floats:
    found: Floats = torch.lgamma(torch.as_tensor(values, dtype=torch.float64) + 1).numpy()
    return found


def best_assignment(counts: Ints) -> Ints:
    """For each row a column of its own, so that the sum is largest: int64 (C), −1 where columns are fewer (Kuhn and
    Munkres, by shortest augmenting paths). counts: non-negative (C×K)."""
    side, columns = max(counts.shape), counts.shape[1]
    costs = np.zeros((side + 1, side + 1))
    costs[1 : counts.shape[0] + 1, 1 : columns + 1] = -counts
    of_row, of_column = np.zeros(side + 1), np.zeros(side + 1)
    row_of = np.zeros(side + 1, np.int64)  # row 0 and column 0 stand for none
    for row in range(1, side + 1):
        row_of[0], column = row, 0
        least, before = np.full(side + 1, np.inf), np.zeros(side + 1, np.int64)
        done = np.zeros(side + 1, bool)
        while row_of[column]:
            done[column] = True
            reduced = costs[row_of[column]] - of_row[row_of[column]] - of_column
            nearer = ~done & (reduced < least)
            least[nearer], before[nearer] = reduced[nearer], column
            following = int(np.where(done, np.inf, least).argmin())
            step = least[following]
            of_row[row_of[done]] += step
            of_column[done] -= step
            least[~done] -= step
            column = following
        while column:
            row_of[column] = row_of[before[column]]
            column = int(before[column])
    found = np.full(side + 1, -1, np.int64)
    found[row_of[1 : columns + 1]] = np.arange(columns)
    return found[1 : counts.shape[0] + 1]
