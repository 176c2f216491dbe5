"""A style-aware discriminator (Kim et al., CVPR 2022): translation from images alone, by prototypes of styles.

Its losses and numbers, with LANIT's networks: AdaIN, L1 for the perceptual reconstruction, and the contents of x and of
x̂ kept alike in every step, in the place of its step that mixes styles in a box. Prototypes are the domains.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import nn

from lanit.ema import Average
from lanit.methods.clusters import ClusterOptions
from lanit.methods.method import Moment, Options, Setting, WithoutPrompts
from lanit.methods.optimisers import adam
from lanit.methods.style_aware_step import (
    StyleAwareNetworks,
    StyleAwareOptimisers,
    StyleAwareTerms,
    style_aware_step,
)
from lanit.objectives import Batch, Parts
from lanit.options import check_settings
from lanit.ranks import Draws
from lanit.schedules import ema_decay, r1_weight

_PROTOTYPE_RATE = 0.01  # share of the rate


@dataclass(frozen=True)
class StyleAwareOptions(ClusterOptions):
    """Settings of this method. warm_up: short, since D only has to begin to tell styles. frozen_steps: in which
    prototypes stay where they are. r1, r1_every: weight of R1 (METHOD 6), and steps between penalties."""

    warm_up: float = 0.03
    terms: StyleAwareTerms = field(default_factory=StyleAwareTerms)
    frozen_steps: int = 500
    r1: float = 1.0
    r1_every: int = 16

    @property
    def classifier(self) -> Literal["head", "prototypes"]:
        return "prototypes"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self.terms, ("recolour",))


class StyleAware(WithoutPrompts):
    """:class:`lanit.methods.method.Method`."""

    options: ClassVar[type[Options]] = StyleAwareOptions
    groups: ClassVar[tuple[str, ...]] = ("networks", "average", "generative_optimiser", "discriminator_optimiser")

    def __init__(self, options: StyleAwareOptions, setting: Setting) -> None:
        super().__init__(setting)
        self._options, self._terms = options, replace(options.terms, bf16=setting.bf16)
        sizes = options.network_options(setting.image_size, setting.domains)
        self.networks = StyleAwareNetworks(sizes).to(setting.device)
        self._average = Average(self.networks.generative)
        self.averaged = self._average.module
        guide, rate = self.networks.generative.guide, options.learning_rate
        judges = adam([p for name, p in guide.named_parameters() if name != "prototypes"], rate)
        judges.add_param_group({"params": list(self.networks.logit.parameters())})
        judges.add_param_group({"params": [guide.prototypes], "lr": rate * _PROTOTYPE_RATE, "weight_decay": 0.0})
        generator = adam(list(self.networks.generative.generator.parameters()), rate)
        self._optimisers = StyleAwareOptimisers(judges, generator)

    def step(self, batch: Batch, moment: Moment, draws: Draws) -> Parts:
        options = self._options
        moves, penalty = moment.step >= options.frozen_steps, r1_weight(options.r1, moment.step, options.r1_every)
        parts = style_aware_step(
            self.networks, self.averaged, self._optimisers, batch, moment.step, moment.learning,
            moves, penalty, self._terms, draws,
        )  # fmt: skip
        self._average.update(self.networks.generative, ema_decay(self._setting.ema, moment.step))
        return parts

    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "networks": self.networks,
            "average": self.averaged,
            "generative_optimiser": self._optimisers.generator,
            "discriminator_optimiser": self._optimisers.discriminator,
        }

    def compile(self) -> None:
        """G and D change too often to gain."""
