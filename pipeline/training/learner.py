"""A method at work, and where it stands: what a checkpoint is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lanit.errors import LanitError
from lanit.labels import EmbeddedPrompts
from lanit.methods.method import Method, Moment
from lanit.schedules import learns_prompts
from pipeline.models.tensor_folders import load_strictly, read_tensors
from pipeline.prompts.learned_prompts import with_context
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.training.clock import Clock
from pipeline.training.optimiser_state import load_optimiser, optimiser_tensors


@dataclass
class Learner:
    """prompts_from: share of the steps at which phase 2 begins. Every process has one, and they are equal."""

    method: Method
    prompts_from: float
    clock: Clock = field(default_factory=Clock)

    @property
    def learning(self) -> bool:
        """Whether the prompts are being learned now (METHOD 13)."""
        return self.method.learns_prompts and self.clock.learning

    def begin_phase_2_when_due(self) -> None:
        """From its share of the planned steps on, a run learns its prompts."""
        clock = self.clock
        if self.method.learns_prompts and clock.planned:
            clock.learning |= learns_prompts(clock.step, clock.planned, self.prompts_from)

    def moment(self) -> Moment:
        return Moment(self.clock.step, self.clock.planned, self.clock.learning)

    def context(self) -> Tensor | None:
        """What the average has learned of the prompts, (M×L×w); none in phase 1."""
        return self.method.context() if self.learning else None

    def embedded(self) -> EmbeddedPrompts:
        """The averaged prompts: what labels, samples and the model use."""
        return self.method.prompts(self.context())

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

    def put_back(self, checkpoint: Path, clock: Clock) -> None:
        """The state of a checkpoint, whose files are as they were written."""
        for name, part in self.method.state().items():
            tensors = read_tensors(checkpoint / f"{name}.safetensors")
            if isinstance(part, torch.optim.Optimizer):
                load_optimiser(part, tensors, checkpoint)
            else:
                load_strictly(part, tensors, checkpoint)
        self.clock = clock


def as_learned(prompts: PromptSet, context: Tensor | None) -> PromptSet:
    """The set with what was learned of it, if anything was."""
    return prompts if context is None else with_context(prompts, context)
