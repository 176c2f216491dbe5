"""Losses between two metric lines, summed on the device: reading them is the only wait for it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lanit.errors import LanitError
from lanit.objectives import Parts
from lanit.ranks import Ranks


class LossLog:
    """Means of the losses since the last line, and the first that was not finite."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], _Group] = {}

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, parts: Parts, step: int) -> None:
        """Take in the losses of ``step``, scalars on one device."""
        names = tuple(parts)  # steps with and without a penalty come in groups of their own
        values = torch.stack([part.detach().float() for part in parts.values()])
        if names not in self._groups:
            self._groups[names] = _Group(torch.zeros_like(values), torch.full_like(values, math.inf))
        self._groups[names].add(values, step)

    def means(self, ranks: Ranks, hint: str) -> dict[str, float]:
        """Mean of every loss, over the steps that had it and over all processes.

        Raises LanitError for the loss that first was not finite, naming it and its step; ``hint`` says what to try.
        """
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        worst: tuple[float, str] = (math.inf, "")
        for names, group in self._groups.items():
            totals, first = torch.stack([ranks.mean(group.total), ranks.least(group.first)]).tolist()
            for name, total, step in zip(names, totals, first, strict=True):
                sums[name] = sums.get(name, 0.0) + total
                counts[name] = counts.get(name, 0) + group.count
                worst = min(worst, (step, name), key=lambda found: found[0])
        if worst[0] < math.inf:
            raise LanitError(f"the loss '{worst[1]}' was not finite at step {worst[0]:.0f}", hint)
        return {name: total / counts[name] for name, total in sums.items()}

    def clear(self) -> None:
        self._groups.clear()


class _Group:
    """Losses that come together. total: sums; first: the step at which each was not finite, inf for never."""

    def __init__(self, total: Tensor, first: Tensor) -> None:
        self.total, self.first, self.count = total, first, 0

    def add(self, values: Tensor, step: int) -> None:
        self.total += values
        self.first = self.first.masked_fill(~values.isfinite() & self.first.isinf(), step)
        self.count += 1
