"""What the steps of a run draw from: images, labels, and which rows a step takes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lanit.labels import exclusive_pairs
from lanit.ranks import Ranks
from lanit.schedules import step_seed
from pipeline.store.image_cache import SizedImages
from pipeline.store.store import LabelRevision
from pipeline.training.sampling import LabelSampler


class TrainingData:
    """images: at training size. labels: in use, as bool (n×N) of the same rows. exclusive: bool (N×N), on the CPU, see
    :func:`lanit.labels.exclusive_pairs`. slack, balance: see :class:`pipeline.training.sampling.LabelSampler`."""

    def __init__(
        self,
        images: SizedImages,
        labels: LabelRevision,
        slack: Literal["domain", "drop"],
        balance: Literal["uniform", "domain"],
    ) -> None:
        self.images, self._how = images, (slack, balance)
        self.use(labels)

    def use(self, labels: LabelRevision) -> None:
        """Train on ``labels`` from the next batch on."""
        self.labels = labels
        self._sampler = LabelSampler(labels.active, *self._how)
        self.exclusive: Tensor = exclusive_of(labels)

    def rows_of_step(self, seed: int, step: int, batch_size: int, ranks: Ranks) -> np.ndarray:
        """A process's rows of the sources, then of the references: a pure function of seed, step and labels."""
        rng = np.random.default_rng(step_seed(seed, step))
        drawn = self._sampler.draw(rng, 2 * batch_size)
        return np.ascontiguousarray(drawn[ranks.rank :: ranks.count])


def exclusive_of(labels: LabelRevision) -> Tensor:
    """Domains that an image never has together, bool (N×N): as the labels show, or all pairs of learned clusters."""
    if labels.rule.kind == "learned":
        return ~torch.eye(len(labels.domains), dtype=torch.bool)
    return exclusive_pairs(torch.from_numpy(labels.active))
