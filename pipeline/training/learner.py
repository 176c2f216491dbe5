"""A method at work, and where it stands: what a checkpoint is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lanit.agreement import LEAST_GAIN
from lanit.errors import LanitError
from lanit.guides import guide_of
from lanit.labels import EmbeddedPrompts
from lanit.methods.method import Method, Moment
from lanit.schedules import learns_prompts
from pipeline.models.tensor_folders import load_strictly, read_tensors
from pipeline.prompts.learned_prompts import with_context
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.training.clock import Clock
from pipeline.training.optimiser_state import load_optimiser, optimiser_tensors

FALLS = 2
"""Refreshes in a row that leave labels less stable than they were, after which prompts are learned no more."""


@dataclass
class Learner:
    """begins: share of the steps at which phase 2 begins, in which prompts are learned; of a method that finds
    clusters, the generator. kept: of a run whose prompts are checked, the context of the labels in use, (M×L×w); none
    while those are of the prompts as written. Every process has one, and they are equal."""

    method: Method
    begins: float
    clock: Clock = field(default_factory=Clock)
    kept: Tensor | None = None

    @property
    def learning(self) -> bool:
        """Whether it is phase 2 (METHOD 13), and prompts are not settled."""
        return self._has_phases and self.clock.learning and not self.clock.settled

    @property
    def finds_clusters(self) -> bool:
        """Whether the method labels images by a guiding network of its own."""
        return guide_of(self.method.averaged) is not None

    @property
    def _has_phases(self) -> bool:
        return self.method.learns_prompts or self.finds_clusters

    @property
    def learned(self) -> bool:
        """Whether the prompts in use are others than those written."""
        return self.context() is not None

    def begin_phase_2_when_due(self) -> None:
        """From its share of the planned steps on, a run learns its prompts, or its generator."""
        clock = self.clock
        if self._has_phases and clock.planned:
            clock.learning |= learns_prompts(clock.step, clock.planned, self.begins)

    def moment(self) -> Moment:
        return Moment(self.clock.step, self.clock.planned, self.learning)

    def context(self) -> Tensor | None:
        """What was learned of the prompts in use, (M×L×w): the average, or what was kept of it; none in phase 1."""
        if self.clock.stability is not None:
            return self.kept
        return self.method.context() if self.learning else None

    def embedded(self) -> EmbeddedPrompts:
        """The prompts in use: those of labels, samples and the model."""
        return self.method.prompts(self.context())

    def seen(self, images: Tensor, embeddings: Tensor) -> Tensor:
        """Labels of images (B×3×S×S) in [-1, 1], bool (B×N), by the guiding network where there is one, else by the
        prompts in use and CLIP's embeddings of the images (B×k)."""
        guide = guide_of(self.method.averaged)
        return self.embedded().labels(embeddings) if guide is None else guide.margins(images) > 0

    def judge_refresh(self, stability: float, alike: bool = False) -> bool:
        """Whether prompts of this mean κ, the average as it stands, are more stable by ``LEAST_GAIN`` than those in
        use: then they are in use from now on. After ``FALLS`` in a row that are less stable, no more is learned.

        alike: whether phrases came to say the same, which counts as less stable."""
        clock = self.clock
        assert clock.stability is not None, "only a run that is checked judges"
        if stability >= clock.stability + LEAST_GAIN and not alike:
            average = self.method.context()
            assert average is not None, "prompts are learned"
            clock.stability, clock.falls, self.kept = stability, 0, average.detach().clone()
            return True
        clock.falls = clock.falls + 1 if stability < clock.stability or alike else 0
        if clock.falls >= FALLS:
            self.settle()
        return False

    def settle(self) -> None:
        """The prompts in use stay what they are."""
        self.clock.settled = True
        self.method.settle(self.kept)

    def state(self) -> dict[str, Mapping[str, Tensor]]:
        """Named tensors of all that the method must put back. Raises LanitError where a weight is not finite."""
        if not torch.stack(torch._foreach_norm(list(self.method.networks.parameters()))).isfinite().all():
            raise LanitError(
                f"the networks hold values that are not finite at step {self.clock.step}",
                "Lower --learning-rate or try --set precision=float32; the last checkpoint is kept.",
            )
        return {
            name: optimiser_tensors(part) if isinstance(part, torch.optim.Optimizer) else part.state_dict()
            for name, part in self.method.state().items()
        }

    def put_back(self, checkpoint: Path, clock: Clock, kept: Tensor | None) -> None:
        """The state of a checkpoint, whose files are as they were written. kept: as above."""
        for name, part in self.method.state().items():
            tensors = read_tensors(checkpoint / f"{name}.safetensors")
            if isinstance(part, torch.optim.Optimizer):
                load_optimiser(part, tensors, checkpoint)
            else:
                load_strictly(part, tensors, checkpoint)
        self.clock, self.kept = clock, kept
        if clock.settled:
            self.settle()


def as_learned(prompts: PromptSet, context: Tensor | None) -> PromptSet:
    """The set with what was learned of it, if anything was."""
    return prompts if context is None else with_context(prompts, context)


def kept_context(labels: PromptSet, written: PromptSet, device: torch.device) -> Tensor | None:
    """What a run whose prompts are checked has in use, (M×L×w): that of the prompts of its labels; none where those are
    still the prompts that it began with."""
    if labels.learned is None or labels == written:
        return None
    return torch.from_numpy(labels.learned.array().copy()).to(device)
