"""What ``--fill`` and ``--keep`` ask for: which known labels are learned from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int8]
"""1 on, 0 off, −1 where nothing is known."""


@dataclass(frozen=True)
class Fill:
    """keep: the share of the images with labels given whose labels are taken, the smallest by a hash of ``seed`` and
    image_id, so that those of 5 % are among those of 20 %."""

    keep: float = 1.0
    seed: int = 0


def kept_rows(values: Codes, image_ids: Sequence[str], asked: Fill) -> NDArray[np.bool_]:
    """Which images keep what is given of them, bool (n). values: int8 (n×N), what is given."""
    given = np.flatnonzero((values >= 0).any(axis=1))
    digests = [hashlib.sha256(f"{asked.seed} {image_ids[int(row)]}".encode()).digest() for row in given]
    order = sorted(range(len(given)), key=digests.__getitem__)
    kept = np.zeros(len(values), bool)
    kept[given[order[: round(asked.keep * len(given))]]] = True
    return kept
