"""Means, exact percentiles and histograms of margins over a revision of any size: two passes, in flat memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (5, 50, 95)
BINS = 64
"""Bins of the histograms, from the smallest margin of all domains to the largest; one or two more, as 0 is an edge."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class FirstPass:
    """Sums, extremes, and for each domain how many margins begin with each of 65 536 bit patterns.

    A float32 is ordered like its bits, once the sign is seen to. The upper half of the bits places the percentiles in
    a bin; the second pass counts the lower halves within it, which makes them exact without a sort.
    """

    def __init__(self, domains: int) -> None:
        self.count = 0
        self.total = np.zeros(domains)
        self.squares = np.zeros(domains)
        self.smallest = math.inf
        self.largest = -math.inf
        self.patterns = np.zeros((domains, 1 << 16), np.int64)

    def add(self, margin: Floats) -> None:
        """margin: float32 (b×N)."""
        self.count += len(margin)
        self.smallest = min(self.smallest, float(margin.min()))
        self.largest = max(self.largest, float(margin.max()))
        for n in range(margin.shape[1]):
            column = np.ascontiguousarray(margin[:, n])
            exact = column.astype(np.float64)
            self.total[n] += exact.sum()
            self.squares[n] += np.einsum("i,i", exact, exact)  # @ would wake threads, which costs more than it saves
            self.patterns[n] += np.bincount(_ordered(column) >> 16, minlength=1 << 16)

    def mean(self) -> NDArray[np.float64]:
        """Of each domain, (N)."""
        return self.total / self.count

    def spread(self) -> float:
        """Standard deviation of all margins of all domains."""
        entries = self.count * len(self.total)
        mean = self.total.sum() / entries
        return math.sqrt(max(float(self.squares.sum() / entries - mean**2), 0.0))


@dataclass(frozen=True)
class _Rank:
    """The k-th smallest margin of a domain: the pattern it begins with, and its place among those."""

    pattern: int
    place: int


class SecondPass:
    """Percentiles, histograms and ambiguous margins, knowing what the first pass found.

    offsets: float (N); epsilon: a margin is ambiguous where |margin − offset| lies below it.
    """

    def __init__(self, first: FirstPass, offsets: Sequence[float], epsilon: float) -> None:
        self.first, self.offsets, self.epsilon = first, offsets, epsilon
        domains = len(first.total)
        width = (first.largest - first.smallest) / BINS
        self.step = width if width > 0 else max(abs(first.largest), 1e-6) / BINS
        self._lowest = math.floor(first.smallest / self.step)
        bins = math.floor(first.largest / self.step) - self._lowest + 1
        self.histograms: Ints = np.zeros((domains, bins), np.int64)
        self.ambiguous: Ints = np.zeros(domains, np.int64)
        self._ranks = [[_locate(counts, rank) for rank in _ranks(first.count)] for counts in first.patterns]
        self._lower = [{rank.pattern: np.zeros(1 << 16, np.uint32) for rank in ranks} for ranks in self._ranks]

    @property
    def edges(self) -> tuple[float, ...]:
        """The bounds of the bins, B+1 multiples of one step; bin i is [edges[i], edges[i+1])."""
        return tuple((self._lowest + i) * self.step for i in range(self.histograms.shape[1] + 1))

    def add(self, margin: Floats) -> None:
        """margin: float32 (b×N), the same as in the first pass."""
        for n in range(margin.shape[1]):
            column = np.ascontiguousarray(margin[:, n])
            exact = column.astype(np.float64)
            self.ambiguous[n] += np.count_nonzero(np.abs(exact - self.offsets[n]) < self.epsilon)
            bins = np.floor(exact / self.step).astype(np.int64) - self._lowest
            self.histograms[n] += np.bincount(bins, minlength=self.histograms.shape[1])
            keys = _ordered(column)
            upper = keys >> 16
            for pattern, lower in self._lower[n].items():
                np.add.at(lower, keys[upper == pattern] & 0xFFFF, 1)

    def percentiles(self, n: int) -> tuple[float, ...]:
        """``PERCENTILES`` of the margins of domain ``n``, between neighbours in proportion, as numpy.percentile."""
        values = [self._value(n, rank) for rank in self._ranks[n]]
        found = []
        for below, above, percentile in zip(values[::2], values[1::2], PERCENTILES, strict=True):
            position = (self.first.count - 1) * percentile / 100
            found.append(below + (above - below) * (position - math.floor(position)))
        return tuple(found)

    def _value(self, n: int, rank: _Rank) -> float:
        lower = np.searchsorted(np.cumsum(self._lower[n][rank.pattern], dtype=np.int64), rank.place, side="right")
        return _float_of(rank.pattern << 16 | int(lower))


def _ranks(count: int) -> list[int]:
    """For each percentile the ranks of the two values around it, counted from 0."""
    below = [math.floor((count - 1) * percentile / 100) for percentile in PERCENTILES]
    return [rank for each in below for rank in (each, min(each + 1, count - 1))]


def _locate(patterns: Ints, rank: int) -> _Rank:
    ends = np.cumsum(patterns)
    pattern = int(np.searchsorted(ends, rank, side="right"))
    return _Rank(pattern, rank - int(ends[pattern] - patterns[pattern]))


def _ordered(values: Floats) -> NDArray[np.uint32]:
    """uint32 (b) in the order of float32 (b)."""
    bits = values.view(np.uint32)
    flip = (values.view(np.int32) >> 31).view(np.uint32) | np.uint32(1 << 31)
    return bits ^ flip


def _float_of(key: int) -> float:
    """The float32 of which :func:`_ordered` made ``key``."""
    bits = key ^ (1 << 31) if key >> 31 else key ^ 0xFFFFFFFF
    return float(np.array(bits, np.uint32).view(np.float32))
