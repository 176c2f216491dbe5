"""One-shot translation (Benaim and Wolf, NeurIPS 2018): between one image with its like, and a word of many images.

Its job with our networks: a discriminator as METHOD §2 has it, with R1, for the paper's least squares and pool; since
that judges an image by one number, the cycle of the one image weighs a tenth of the paper's 10, and is learned sooner.
Images without the word are not drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from lanit.augment import ViewRanges, view_of
from lanit.methods.method import Moment, OneImage, Options, Setting, WithoutPrompts
from lanit.methods.optimisers import adam
from lanit.networks import Discriminator, NetworkOptions
from lanit.objectives import Batch, Parts
from lanit.one_shot_networks import OneShotNetworks, OneShotSizes
from lanit.one_shot_objectives import OneShotLearners, OneShotTerms, one_shot_step
from lanit.options import check_settings
from lanit.ranks import Draws
from lanit.schedules import r1_weight

_LIKE = ViewRanges(degrees=10, shift=0.1, shear=0, zoom=(0.8, 1.0), colour=0, hue=0)


@dataclass(frozen=True)
class OneShotOptions(OneImage):
    """Settings of this method. one_from: share of the steps at which phase II begins, and with it what is learned of
    the one image."""

    terms: OneShotTerms = field(default_factory=OneShotTerms)
    one_from: float = 0.5

    def __post_init__(self) -> None:
        check_settings(self, ("one_from",))
        check_settings(self.terms)

    def network_options(self, image_size: int, domains: int) -> NetworkOptions:
        """Sizes of the networks for images of S pixels: of the word and of the one image, whatever ``domains``."""
        return OneShotSizes(
            image_size=image_size,
            domains=2,
            channels=self.channels,
            max_channels=self.max_channels or 512,
            style_dim=1,
            latent_dim=0,
        )


class OneShot(WithoutPrompts[OneShotLearners, OneShotNetworks], optimisers=("generative", "discriminator")):
    """:class:`lanit.methods.method.Method`: an autoencoder with two pairs of ends, and a discriminator of B."""

    options: ClassVar[type[Options]] = OneShotOptions

    def __init__(self, options: OneShotOptions, setting: Setting) -> None:
        self._options, self._terms = options, replace(options.terms, bf16=setting.bf16)
        sizes = options.network_options(setting.image_size, setting.domains)
        assert isinstance(sizes, OneShotSizes)
        assert setting.example is not None, "prepared with the image"
        generative, discriminator = OneShotNetworks(sizes), Discriminator(replace(sizes, domains=1))
        super().__init__(setting, OneShotLearners(generative, discriminator, setting.example), generative)
        self._optimisers = {
            name: adam(list(part.parameters()), options.learning_rate, 0.5, 0.0)
            for name, part in (("generative", generative), ("discriminator", discriminator))
        }
        self._begun: bool | None = None  # as the networks have it, once a step asked

    def step(self, batch: Batch, moment: Moment, draws: Draws) -> Parts:
        one = None
        if self._is_phase_2(moment):
            one = view_of(self.networks.example.repeat(len(batch.x), 1, 1, 1), draws, _LIKE)
        r1 = r1_weight(self._options.r1, moment.step, self._options.r1_every)
        parts = one_shot_step(self.networks, self._optimisers, batch.x, one, r1, self._terms, draws.ranks)
        self._follow(moment)
        return parts

    def _is_phase_2(self, moment: Moment) -> bool:
        """Whether the one image is learned from now; where that begins, its ends become copies of the others."""
        if self._begun is None:
            self._begun = bool(self.networks.begun)
        if not self._begun and moment.planned and moment.step >= self._options.one_from * moment.planned:
            self._begun = True
            self.networks.begun.fill_(value=True)
            for networks in (self.networks.generative, self.averaged):
                networks.generator.begin_the_one()
        return self._begun
