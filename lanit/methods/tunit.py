"""TUNIT (Baek et al., ICCV 2021): clusters and translation learned together, from images alone (METHOD §7).

Its losses, weights and order of updates, with LANIT's networks: E is a trunk like E_S's with two heads in the place of
VGG-11, its styles are unit-norm, and references are images of their own in the place of the batch permuted. G and D
take Adam without momentum, which is RMSprop with an even start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import nn

from lanit.ema import Average
from lanit.errors import UsageError
from lanit.methods.clusters import ClusterOptions
from lanit.methods.method import Moment, Options, Setting, WithoutPrompts
from lanit.methods.optimisers import adam
from lanit.methods.tunit_step import TunitNetworks, TunitOptimisers, TunitTerms, tunit_step
from lanit.networks import Discriminator
from lanit.objectives import Batch, Parts
from lanit.options import check_settings
from lanit.ranks import Draws
from lanit.schedules import ema_decay, r1_weight


@dataclass(frozen=True)
class TunitOptions(ClusterOptions):
    """Settings of this method. terms: loss weights. guide_rate: of Adam for E. r1, r1_every: weight of R1 in METHOD 6's
    form, twice the paper's, and steps between penalties. queue: negatives that styles are told apart from."""

    terms: TunitTerms = field(default_factory=TunitTerms)
    guide_rate: float = 1e-4
    r1: float = 20.0
    r1_every: int = 1
    queue: int = 1024
    compile: Literal["no", "yes"] = "no"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self.terms, ("guide_share", "recolour"))
        if not self.queue:
            raise UsageError("styles are told apart from a queue of some", "Try --set queue=1024.")


class Tunit(WithoutPrompts):
    """:class:`lanit.methods.method.Method`."""

    options: ClassVar[type[Options]] = TunitOptions
    groups: ClassVar[tuple[str, ...]] = (
        "networks", "average", "generative_optimiser", "discriminator_optimiser", "guide_optimiser",
    )  # fmt: skip

    def __init__(self, options: TunitOptions, setting: Setting) -> None:
        super().__init__(setting)
        self._options, self._terms = options, replace(options.terms, bf16=setting.bf16)
        sizes = options.network_options(setting.image_size, setting.domains)
        judge = Discriminator(replace(sizes, domains=sizes.clusters))
        self.networks = TunitNetworks(sizes, judge, options.queue).to(setting.device)
        self._average = Average(self.networks.generative)
        self.averaged = self._average.module
        generative = self.networks.generative
        self._optimisers = TunitOptimisers(
            adam(list(generative.guide.parameters()), options.guide_rate, 0.9, 1e-3, 0.999),
            adam(list(generative.generator.parameters()), options.learning_rate),
            adam(list(judge.parameters()), options.learning_rate),
        )

    def step(self, batch: Batch, moment: Moment, draws: Draws) -> Parts:
        options = self._options
        parts = tunit_step(
            self.networks, self.averaged, self._optimisers, batch, moment.step, moment.learning,
            r1_weight(options.r1, moment.step, options.r1_every), self._terms, draws,
        )  # fmt: skip
        self._average.update(self.networks.generative, ema_decay(self._setting.ema, moment.step))
        return parts

    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "networks": self.networks,
            "average": self.averaged,
            "generative_optimiser": self._optimisers.generator,
            "discriminator_optimiser": self._optimisers.discriminator,
            "guide_optimiser": self._optimisers.guide,
        }

    def compile(self) -> None:
        if self._options.compile == "yes":
            generator = self.networks.generative.generator
            for name in ("encode", "decode"):
                setattr(generator, name, torch.compile(getattr(generator, name)))
