"""Agreement of two labellings of the same images beyond chance, Cohen's κ (Cohen, 1960), from counts alone.

Two crops of an image show the same things. Where they get different labels, the labels say more about the crop than
about the image. This needs no truth, and tells *stable*, not *right*: what is always wrong in the same way is stable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

NEAR_SYNONYMS = 0.8
"""Two prompts whose labels correlate (φ) this strongly or more say the same of nearly every image. φ rather than the
share of labels in common, which is high between any two prompts that fire nearly always."""

LEAST_GAIN = 0.01
"""Mean κ must rise by this much for prompts that were learned to be taken (docs/LOG.md: by less, labels get worse)."""

_Z = 1.959964  # of a 95 % interval
_LEAST_CHANCE = 0.02  # a label this rare on both sides agrees by chance nearly always: κ would divide noise by noise


@dataclass(frozen=True)
class Agreement:
    """How often two crops got one label: images by what each of the two says."""

    both: int
    first: int
    second: int
    neither: int

    @property
    def images(self) -> int:
        return self.both + self.first + self.second + self.neither

    @property
    def kappa(self) -> float | None:
        """κ = (a − e) / (1 − e), at most 1: a is the share that agrees, e what independent labels of these shares
        would agree on. None where e = 1: the label is on all images, or on none."""
        return _kappa(self.both, self.first, self.second, self.neither)

    @property
    def score(self) -> float:
        """κ for choosing between labels: 0 where it is undefined, and less for a label that is hardly ever on or off
        (1 − e is taken as at least 0.02)."""
        agreed, chance = _shares(self.both, self.first, self.second, self.neither)
        return (agreed - chance) / max(1 - chance, _LEAST_CHANCE)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of κ by its asymptotic variance (Fleiss, Cohen and Everitt, 1969), of a table with half an
        image more in each cell, so that full agreement of few images is not taken for certainty."""
        if self.kappa is None:
            return None
        cells = tuple(count + 0.5 for count in (self.both, self.first, self.second, self.neither))
        kappa, images = _kappa(*cells), sum(cells)
        assert kappa is not None  # no cell is empty
        both, first, second, neither = (cell / images for cell in cells)
        on, off = (both + first, both + second), (neither + second, neither + first)
        chance = on[0] * on[1] + off[0] * off[1]
        agreeing = both * (1 - sum(on) * (1 - kappa)) ** 2 + neither * (1 - sum(off) * (1 - kappa)) ** 2
        differing = (1 - kappa) ** 2 * (first * (on[1] + off[0]) ** 2 + second * (off[1] + on[0]) ** 2)
        variance = (agreeing + differing - (kappa - chance * (1 - kappa)) ** 2) / (images * (1 - chance) ** 2)
        reach = _Z * math.sqrt(max(variance, 0.0))
        return min(kappa - reach, self.kappa), min(1.0, max(kappa + reach, self.kappa))


def mean_score(agreements: Iterable[Agreement]) -> float:
    """The mean score of several labels, at least one: what templates and prompts are chosen by."""
    scores = [each.score for each in agreements]
    return sum(scores) / len(scores)


def _shares(both: float, first: float, second: float, neither: float) -> tuple[float, float]:
    """The share that agrees, and what it would be by chance."""
    images = both + first + second + neither
    on, off = (both + first) * (both + second), (neither + first) * (neither + second)
    return (both + neither) / images, (on + off) / images**2


def _kappa(both: float, first: float, second: float, neither: float) -> float | None:
    if min(both + first + second, neither + first + second) == 0:  # on both sides on all images, or on none
        return None
    agreed, chance = _shares(both, first, second, neither)
    return (agreed - chance) / (1 - chance)
