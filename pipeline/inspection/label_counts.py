"""Counts of the labels of a revision: of each domain, on its own, of each pair, of each image, by people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lanit.labels import decide

if TYPE_CHECKING:
    from pipeline.store.label_revisions import LabelBlock, Labels

_ROWS = 256  # domains correlated with all others at once: bounds the memory

Ints = NDArray[np.int64]


class LabelCounts:
    """Takes the blocks of a revision of N domains, with labels and margins, and f_base where people set labels.

    active, only, human: int64 (N), images with the label, with it alone, and labels that people set. differ: int64 (N),
    those that the rule would have set otherwise; none where people set none, or where the rule does not say.
    together: int32 (N×N), images with both labels. labels_per_image: int64 (N+1).
    """

    def __init__(self, revision: Labels) -> None:
        domains = len(revision.domains)
        self.images = 0
        self.only: Ints = np.zeros(domains, np.int64)
        self.human: Ints = np.zeros(domains, np.int64)
        self.labelled_margin = np.zeros(domains)
        self.together = np.zeros((domains, domains), np.int32)
        self.labels_per_image: Ints = np.zeros(domains + 1, np.int64)
        self._has_human = revision.has_human
        self._clip = labels_of_rule(revision) if revision.has_human else None
        self.differ: Ints | None = None if self._clip is None else np.zeros(domains, np.int64)

    def add(self, block: LabelBlock) -> None:
        active = block.active
        per_image = active.sum(axis=1)
        numbers = active.astype(np.float32)  # counts in a block of at most 2^16 rows are exact
        self.images += block.rows
        self.labels_per_image += np.bincount(per_image, minlength=len(self.labels_per_image))
        self.together += (numbers.T @ numbers).astype(np.int32)
        self.only += active[per_image == 1].sum(axis=0)
        self.labelled_margin += (block.margin * numbers).sum(axis=0, dtype=np.float64)
        if self._has_human:
            self.human += block.human.sum(axis=0)
        if self._clip is not None and self.differ is not None:
            self.differ += (block.human & (active != self._clip(block))).sum(axis=0)

    @property
    def active(self) -> Ints:
        return np.diagonal(self.together).astype(np.int64)

    def companions(self) -> Iterator[tuple[int, float]]:
        """For each domain the other that it correlates with most, of equal ones the first, and their φ."""
        for start, phi in self._phi():
            phi[np.arange(len(phi)), start + np.arange(len(phi))] = 0
            others = phi.argmax(axis=1)
            yield from zip(others.tolist(), phi[np.arange(len(phi)), others].tolist(), strict=True)

    def near_pairs(self, least: float, most: int) -> tuple[list[tuple[int, int, float]], int]:
        """Pairs a > b with φ of at least ``least``, largest first, at most ``most``; and how many there are."""
        total, best = 0, np.empty((3, 0))
        for start, phi in self._phi():
            a, b = np.nonzero(np.tril(phi >= least, start - 1))
            total += len(a)
            found = np.concatenate([best, [a + start, b, phi[a, b]]], axis=1)
            best = found[:, np.lexsort((found[1], found[0], -found[2]))[:most]]
        return [(int(a), int(b), float(phi)) for a, b, phi in best.T], total

    def near_groups(self, least: float) -> list[tuple[list[int], float]]:
        """Domains that each correlate with the first of their group by φ of at least ``least``, and the lowest such φ.

        Every domain is in one group at most, that of the first domain that it is so alike; the most alike come first.
        """
        first = np.full(len(self.only), -1, np.int64)
        found: dict[int, tuple[list[int], float]] = {}
        for start, phi in self._phi():
            for n, row in enumerate(phi, start):
                if first[n] < 0:
                    like = n + 1 + np.flatnonzero((row[n + 1 :] >= least) & (first[n + 1 :] < 0))
                    if len(like):
                        first[like] = n
                        found[n] = ([n, *like.tolist()], float(row[like].min()))
        return sorted(found.values(), key=lambda group: (-group[1], group[0]))

    def _phi(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Correlations of columns of labels, 0 where one is constant: (b×N) of the domains from ``start`` on."""
        share = self.active / self.images
        spread = np.sqrt(share * (1 - share))
        for start in range(0, len(share), _ROWS):
            rows = slice(start, start + _ROWS)
            covariance = self.together[rows] / self.images - np.outer(share[rows], share)
            product = np.outer(spread[rows], spread)
            yield start, np.divide(covariance, product, out=np.zeros_like(covariance), where=product > 0)


def labels_of_rule(revision: Labels) -> Callable[[LabelBlock], np.ndarray] | None:
    """From a block with margins and f_base to the labels, bool (b×N), that the rule of ``revision`` alone would set.

    None where margins do not say them: labels as given, clusters.
    """
    if not revision.rule.by_similarity:
        return None
    prompts, rule = revision.prompt_set, revision.rule
    offsets, weights = np.array(prompts.offsets, np.float32), np.array(prompts.weights, np.float32)

    def labels(block: LabelBlock) -> np.ndarray:
        active: np.ndarray = decide(rule, block.margin, block.similarity_base, offsets, weights)
        return active

    return labels
