"""TUNIT (Baek et al., ICCV 2021): clusters and translation learned together, from images alone (METHOD §7).

Its losses, weights and order of updates, with LANIT's networks: E is a trunk like E_S's with two heads in the place of
VGG-11, its styles are unit-norm, and references are images of their own in the place of the batch permuted. G and D
take Adam without momentum, which is RMSprop with an even start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch

from lanit.errors import UsageError
from lanit.guides import GuidedNetworks
from lanit.methods.clusters import ClusterOptions
from lanit.methods.method import Moment, Options, Setting, WithoutPrompts
from lanit.methods.optimisers import adam
from lanit.methods.tunit_step import TunitNetworks, TunitTerms, tunit_step
from lanit.networks import Discriminator
from lanit.objectives import Batch, Parts
from lanit.options import check_settings
from lanit.ranks import Draws
from lanit.schedules import r1_weight


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


class Tunit(WithoutPrompts[TunitNetworks, GuidedNetworks], optimisers=("generative", "discriminator", "guide")):
    """:class:`lanit.methods.method.Method`."""

    options: ClassVar[type[Options]] = TunitOptions

    def __init__(self, options: TunitOptions, setting: Setting) -> None:
        self._options, self._terms = options, replace(options.terms, bf16=setting.bf16)
        sizes = options.network_options(setting.image_size, setting.domains)
        judged = replace(sizes, domains=sizes.clusters, classifies=bool(options.terms.classification))
        judge = Discriminator(judged, labels=sizes.clusters)
        networks = TunitNetworks(sizes, judge, options.queue)
        super().__init__(setting, networks, networks.generative)
        self._optimisers = {
            "generative": adam(list(networks.generative.generator.parameters()), options.learning_rate),
            "discriminator": adam(list(judge.parameters()), options.learning_rate),
            "guide": adam(list(networks.generative.guide.parameters()), options.guide_rate, 0.9, 1e-3, 0.999),
        }

    def step(self, batch: Batch, moment: Moment, draws: Draws) -> Parts:
        options = self._options
        parts = tunit_step(
            self.networks, self.averaged, self._optimisers, batch, moment.step, moment.learning,
            r1_weight(options.r1, moment.step, options.r1_every), self._terms, draws,
        )  # fmt: skip
        self._follow(moment)
        return parts

    def compile(self) -> None:
        if self._options.compile == "yes":
            generator = self.networks.generative.generator
            for name in ("encode", "decode"):
                setattr(generator, name, torch.compile(getattr(generator, name)))
