"""Which rows a training step sees: a pure function of (seed, step)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from lanit.errors import LanitError


class LabelSampler:
    """Draws rows of a label table.

    active: bool (n×N). slack: ``drop`` leaves out rows without a label, ``domain`` keeps them as the slack domain.
    balance: ``uniform`` over rows, or a ``domain`` first, then a row of it.
    Raises LanitError where fewer than two rows remain.
    """

    def __init__(
        self, active: np.ndarray, slack: Literal["domain", "drop"], balance: Literal["uniform", "domain"]
    ) -> None:
        labelled = active.any(axis=1)
        self.rows = np.flatnonzero(labelled) if slack == "drop" else np.arange(len(active))
        if len(self.rows) < 2:
            raise LanitError(
                f"only {len(self.rows)} images can be trained on", "Label more images, or try other prompts."
            )
        groups = [np.flatnonzero(column) for column in active.T]
        if slack == "domain":
            groups.append(np.flatnonzero(~labelled))
        self.groups = [group for group in groups if len(group)] if balance == "domain" else []

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Row numbers, int64 (count), with replacement."""
        if not self.groups:
            return self.rows[rng.integers(0, len(self.rows), count)]
        chosen = rng.integers(0, len(self.groups), count)
        return np.array([self.groups[group][rng.integers(0, len(self.groups[group]))] for group in chosen])
