"""Means, exact percentiles and histograms of margins over a revision of any size: two passes, in flat memory.

A domain takes up to 2 MB, so domains are taken some at a time, each time with two passes of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (5, 50, 95)
BINS = 64
"""Bins of the histograms, from the smallest margin of all domains to the largest; one or two more, as 0 is an edge."""

DOMAINS_AT_ONCE = 128
_MOST_KEPT = 1 << 16  # lower halves that take less room themselves than counts of all there can be
_KEPT_BYTES = 1 << 26  # margins are kept for the other passes up to this many: reading columns takes longer

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class MarginStatistics:
    """Margins of N domains. mean: float64 (N). epsilon: what counts as ambiguous. edges: B+1 bounds of bins.

    histograms: int64 (N×B); ambiguous: int64 (N), margins within epsilon of their offset; percentiles: of each domain,
    ``PERCENTILES``.
    """

    mean: NDArray[np.float64]
    epsilon: float
    edges: tuple[float, ...]
    histograms: Ints
    ambiguous: Ints
    percentiles: tuple[tuple[float, ...], ...]


class MarginPasses:
    """Takes the blocks of margins of a revision of N domains once from the caller, then reads them again as often as it
    needs to. rows: of the revision. read: its blocks of margins, float32 (b×N), anew at each call."""

    def __init__(self, rows: int, domains: int, read: Callable[[], Iterable[Floats]]) -> None:
        self._domains = [slice(start, start + DOMAINS_AT_ONCE) for start in range(0, domains, DOMAINS_AT_ONCE)]
        self._first = FirstPass(min(domains, DOMAINS_AT_ONCE))
        self._keeps = 4 * rows * domains <= _KEPT_BYTES
        self._kept: list[Floats] = []
        self._read = read

    def add(self, margin: Floats) -> None:
        """The next block."""
        self._first.add(margin[:, self._domains[0]])
        if self._keeps:
            self._kept.append(margin)

    def finish(self, offsets: Sequence[float], epsilon: float | None, share: float) -> MarginStatistics:
        """After the last block. epsilon: none for ``share`` of the standard deviation of all margins."""
        read = (lambda: self._kept) if self._keeps else self._read
        firsts = [self._first]
        firsts[0].finish()
        for domains in self._domains[1:]:
            first = FirstPass(len(offsets[domains]))
            for margin in read():
                first.add(margin[:, domains])
            first.finish()
            firsts.append(first)
        ends = min(first.smallest for first in firsts), max(first.largest for first in firsts)
        epsilon = share * spread_of(firsts) if epsilon is None else epsilon
        seconds = []
        for domains, first in zip(self._domains, firsts, strict=True):
            second = SecondPass(first, offsets[domains], epsilon, ends)
            for margin in read():
                second.add(margin[:, domains])
            seconds.append(second.finish())
        return MarginStatistics(
            np.concatenate([first.mean() for first in firsts]),
            epsilon,
            second.edges,
            np.concatenate([each.histograms for each in seconds]),
            np.concatenate([each.ambiguous for each in seconds]),
            tuple(each.percentiles(n) for each in seconds for n in range(len(each.histograms))),
        )


def spread_of(firsts: Sequence[FirstPass]) -> float:
    """Standard deviation of all margins of all domains, knowing what the first passes over them found."""
    total = np.concatenate([first.total for first in firsts])
    squares = np.concatenate([first.squares for first in firsts])
    entries = firsts[0].count * len(total)
    mean = total.sum() / entries
    return math.sqrt(max(float(squares.sum() / entries - mean**2), 0.0))


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
        self.ranks: list[list[_Rank]] = []

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

    def finish(self) -> None:
        """After the last block: find out where the percentiles lie, and let go of the patterns."""
        if not self.ranks:
            self.ranks = [_locate(counts, _ranks(self.count)) for counts in self.patterns]
            self.patterns = np.empty((0, 0), np.int64)


@dataclass(frozen=True)
class _Rank:
    """The k-th smallest margin of a domain: the pattern it begins with, its place among ``of`` that do."""

    pattern: int
    place: int
    of: int


class SecondPass:
    """Percentiles, histograms and ambiguous margins, knowing what the first pass found.

    offsets: float (N); epsilon: a margin is ambiguous where |margin − offset| lies below it. ends: the smallest and the
    largest margin that the bins are for; those of these domains unless given.
    """

    def __init__(
        self, first: FirstPass, offsets: Sequence[float], epsilon: float, ends: tuple[float, float] | None = None
    ) -> None:
        first.finish()
        self.first, self.offsets, self.epsilon = first, offsets, epsilon
        domains, (smallest, largest) = len(first.total), ends or (first.smallest, first.largest)
        width = (largest - smallest) / BINS
        self.step = width if width > 0 else max(abs(largest), 1e-6) / BINS
        self._lowest = math.floor(smallest / self.step)
        bins = math.floor(largest / self.step) - self._lowest + 1
        self.histograms: Ints = np.zeros((domains, bins), np.int64)
        self.ambiguous: Ints = np.zeros(domains, np.int64)
        self._lower = [{rank.pattern: _LowerHalves(rank.of) for rank in ranks} for ranks in first.ranks]
        self._values: list[list[float]] = []

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
                lower.add(keys[upper == pattern] & 0xFFFF)

    def finish(self) -> SecondPass:
        """After the last block: find the values of the percentiles, and let go of the counts."""
        if not self._values:
            self._values = [_values(lower, ranks) for lower, ranks in zip(self._lower, self.first.ranks, strict=True)]
            self._lower = []
        return self

    def percentiles(self, n: int) -> tuple[float, ...]:
        """``PERCENTILES`` of the margins of domain ``n``, between neighbours in proportion, as numpy.percentile."""
        values = self.finish()._values[n]
        found = []
        for below, above, percentile in zip(values[::2], values[1::2], PERCENTILES, strict=True):
            position = (self.first.count - 1) * percentile / 100
            found.append(below + (above - below) * (position - math.floor(position)))
        return tuple(found)


class _LowerHalves:
    """The lower halves of the margins that begin with one pattern: themselves, or counts where they are many."""

    def __init__(self, count: int) -> None:
        self._counts = np.zeros(1 << 16, np.uint32) if count > _MOST_KEPT else None
        self._seen: list[NDArray[np.uint32]] = []

    def add(self, lower: NDArray[np.uint32]) -> None:
        if self._counts is None:
            self._seen.append(lower)
        else:
            np.add.at(self._counts, lower, 1)

    def sorted(self) -> Callable[[int], int]:
        """From a place among them, in order, to the lower half there."""
        if self._counts is None:
            halves = np.sort(np.concatenate(self._seen))
            return lambda place: int(halves[place])
        ends = np.cumsum(self._counts, dtype=np.int64)
        return lambda place: int(np.searchsorted(ends, place, side="right"))


def _values(lower: dict[int, _LowerHalves], ranks: Sequence[_Rank]) -> list[float]:
    """The margins of these ranks. lower: of each pattern."""
    half = {pattern: halves.sorted() for pattern, halves in lower.items()}
    return [_float_of(rank.pattern << 16 | half[rank.pattern](rank.place)) for rank in ranks]


def _ranks(count: int) -> list[int]:
    """For each percentile the ranks of the two values around it, counted from 0."""
    below = [math.floor((count - 1) * percentile / 100) for percentile in PERCENTILES]
    return [rank for each in below for rank in (each, min(each + 1, count - 1))]


def _locate(patterns: Ints, ranks: Sequence[int]) -> list[_Rank]:
    ends = np.cumsum(patterns)
    found = [int(pattern) for pattern in np.searchsorted(ends, ranks, side="right")]
    return [
        _Rank(each, rank - int(ends[each] - patterns[each]), int(patterns[each]))
        for each, rank in zip(found, ranks, strict=True)
    ]


def _ordered(values: Floats) -> NDArray[np.uint32]:
    """uint32 (b) in the order of float32 (b)."""
    bits = values.view(np.uint32)
    flip = (values.view(np.int32) >> 31).view(np.uint32) | np.uint32(1 << 31)
    return bits ^ flip


def _float_of(key: int) -> float:
    """The float32 of which :func:`_ordered` made ``key``."""
    bits = key ^ (1 << 31) if key >> 31 else key ^ 0xFFFFFFFF
    return float(np.array(bits, np.uint32).view(np.float32))
