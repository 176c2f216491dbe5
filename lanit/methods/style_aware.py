"""A style-aware discriminator (Kim et al., CVPR 2022): translation from images alone, by prototypes of styles.

Its losses and numbers, with LANIT's networks: AdaIN, L1 for the perceptual reconstruction, and the contents of x and of
x̂ kept alike in every step, in the place of its step that mixes styles in a box. Prototypes are the domains.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from lanit.guides import GuidedNetworks
from lanit.methods.clusters import ClusterOptions
from lanit.methods.method import Moment, Options, Setting, WithoutPrompts
from lanit.methods.optimisers import adam
from lanit.methods.style_aware_step import StyleAwareNetworks, StyleAwareTerms, style_aware_step
from lanit.objectives import Batch, Parts
from lanit.options import check_settings
from lanit.ranks import Draws
from lanit.schedules import r1_weight

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


class StyleAware(WithoutPrompts[StyleAwareNetworks, GuidedNetworks], optimisers=("generative", "discriminator")):
    """:class:`lanit.methods.method.Method`."""

    options: ClassVar[type[Options]] = StyleAwareOptions

    def __init__(self, options: StyleAwareOptions, setting: Setting) -> None:
        self._options, self._terms = options, replace(options.terms, bf16=setting.bf16)
        networks = StyleAwareNetworks(options.network_options(setting.image_size, setting.domains))
        super().__init__(setting, networks, networks.generative)
        guide, rate = self.networks.generative.guide, options.learning_rate
        judges = adam([p for name, p in guide.named_parameters() if name != "prototypes"], rate)
        judges.add_param_group({"params": list(self.networks.logit.parameters())})
        judges.add_param_group({"params": [guide.prototypes], "lr": rate * _PROTOTYPE_RATE, "weight_decay": 0.0})
        generator = adam(list(self.networks.generative.generator.parameters()), rate)
        self._optimisers = {"generative": generator, "discriminator": judges}

    def step(self, batch: Batch, moment: Moment, draws: Draws) -> Parts:
        options = self._options
        moves, penalty = moment.step >= options.frozen_steps, r1_weight(options.r1, moment.step, options.r1_every)
        parts = style_aware_step(
            self.networks, self.averaged, self._optimisers, batch, moment.step, moment.learning,
            moves, penalty, self._terms, draws,
        )  # fmt: skip
        self._follow(moment)
        return parts
