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
    :func:`lanit.labels.exclusive_pairs`. slack, balance: see :class:`pipeline.training.sampling.LabelSampler`.
    partners: int64 (n), the row that each image is to become, −1 for none; none at all to train on images unpaired.
    """

    def __init__(
        self,
        images: SizedImages,
        labels: LabelRevision,
        slack: Literal["domain", "drop"],
        balance: Literal["uniform", "domain"],
        partners: np.ndarray | None = None,
    ) -> None:
        self.images, self._how = images, (slack, balance)
        self._partners = partners
        self.use(labels)

    def use(self, labels: LabelRevision) -> None:
        """Train on ``labels`` from the next batch on."""
        self.labels = labels
        self._sampler = LabelSampler(labels.active, *self._how)
        self.exclusive: Tensor = exclusive_of(labels)

    @property
    def paired(self) -> bool:
        """Whether images have partners that they are to become."""
        return self._partners is not None

    def sample(self, device: torch.device, count: int) -> tuple[Tensor, Tensor]:
        """At most ``count`` images, spread over all: float32 (n×3×S×S) in [-1, 1], and their labels, bool (n×N)."""
        rows = np.unique(np.linspace(0, len(self.images) - 1, count).round().astype(int))
        images = torch.from_numpy(self.images.take(rows)).to(device).float() / 127.5 - 1
        return images, torch.from_numpy(self.labels.active[rows]).to(device)

    def rows_of_step(self, seed: int, step: int, batch_size: int, ranks: Ranks) -> np.ndarray:
        """A process's rows of the sources, then of the references, which are their partners where images are paired: a
        pure function of seed, step and labels."""
        rng = np.random.default_rng(step_seed(seed, step))
        if self._partners is None:
            drawn = self._sampler.draw(rng, 2 * batch_size)
        else:
            sources = np.flatnonzero(self._partners >= 0)
            chosen = sources[rng.integers(0, len(sources), batch_size)]
            drawn = np.concatenate([chosen, self._partners[chosen]])
        return np.ascontiguousarray(drawn[ranks.rank :: ranks.count])


def exclusive_of(labels: LabelRevision) -> Tensor:
    """Domains that an image never has together, bool (N×N): as the labels show, or all pairs of learned clusters."""
    if labels.rule.kind == "learned":
        return ~torch.eye(len(labels.domains), dtype=torch.bool)
    return exclusive_pairs(torch.from_numpy(labels.active))
