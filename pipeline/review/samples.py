"""A random sample of its own for each phrase, in strata, that needs no record of which answers belong to it.

Images are ordered at random, by digests of their ids. Of each stratum, those before the first that nobody has answered
on are a simple random sample of it, whoever answered, and why. Strata are ranks of the margin, so they stay when an
offset is moved; the surest are few and cut finely, since rare phrases are there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SHARES = (0.005, 0.02, 0.05, 0.12, 0.25, 0.45, 0.7, 1.0)
"""Ends of the strata, as shares of the images from the largest margin on."""


def random_keys(image_ids: pa.ChunkedArray) -> np.ndarray:
    """A random number for each image, uint64 (n), that depends on its id alone, of which the first 16 bytes count."""
    texts = pc.ascii_rpad(pc.utf8_slice_codeunits(image_ids, 0, 16), 16, padding="\0").cast(pa.binary())
    whole = b"".join(memoryview(chunk.buffers()[2])[: 16 * len(chunk)] for chunk in texts.chunks if len(chunk))
    halves = np.frombuffer(whole, "<u8").reshape(-1, 2)
    with np.errstate(over="ignore"):
        keys = _mixed(_mixed(halves[:, 0]) ^ halves[:, 1])
    return keys


def _mixed(values: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele, Lea and Flood, 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def strata_of(margins: np.ndarray) -> np.ndarray:
    """The stratum of each image, int8 (n), 0 being that of the largest margins (n)."""
    if not len(margins):
        return np.empty(0, np.int8)
    ends = np.quantile(margins, 1 - np.array(SHARES[:-1]), method="nearest")
    return (len(ends) - np.searchsorted(ends[::-1], margins, side="right")).astype(np.int8)


@dataclass(frozen=True)
class Sample:
    """What is known of the strata of a phrase. strata: int8 (n). taken: bool (n), images of the sample: all were
    answered on."""

    strata: np.ndarray
    taken: np.ndarray

    @property
    def size(self) -> int:
        return int(self.taken.sum())


def sample_of(keys: np.ndarray, strata: np.ndarray, said: np.ndarray) -> Sample:
    """keys: uint64 (n). said: int8 (n), negative where nobody said anything."""
    answered, last = np.flatnonzero(said >= 0), np.iinfo(np.uint64).max
    waiting = np.where(said < 0, keys, last)
    # of each stratum the first that nobody has answered on
    first = np.array([waiting[strata == n].min(initial=last) for n in range(len(SHARES))])
    taken = np.zeros(len(keys), bool)
    taken[answered] = keys[answered] < first[strata[answered]]
    return Sample(strata, taken)


def next_of_sample(keys: np.ndarray, sample: Sample, said: np.ndarray, by_clip: np.ndarray, count: int) -> np.ndarray:
    """Rows to answer on next, int64 (≤ count): of each stratum in the order of its keys, the stratum being the one of
    which another answer narrows the estimates most (Neyman's allocation, by what is known so far)."""
    queues, worth, asked = [], [], []
    for stratum in range(len(SHARES)):
        here = sample.strata == stratum
        rows = np.flatnonzero(here & (said < 0))
        if len(rows) > count:
            rows = rows[np.argpartition(keys[rows], count)[:count]]
        queues.append(rows[np.argsort(keys[rows])].tolist())
        taken = here & sample.taken
        known, wrong = int(taken.sum()), int((taken & ((said == 1) != by_clip)).sum())
        rate = (wrong + 2) / (known + 4)
        worth.append(float(here.sum()) * np.sqrt(rate * (1 - rate)))
        asked.append(known)
    found: list[int] = []
    while len(found) < count:
        left = [n for n, queue in enumerate(queues) if queue]
        if not left:
            break
        best = max(left, key=lambda n: worth[n] / (asked[n] + 1))
        found.append(queues[best].pop(0))
        asked[best] += 1
    return np.array(found, np.int64)
