"""One-shot translation (Benaim and Wolf, NeurIPS 2018): between one image with its like, and a word of many images.

Its job with our networks: a discriminator as METHOD §2 has it, with R1, for the paper's least squares and pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import nn

from lanit.augment import flip_and_crop
from lanit.ema import Average
from lanit.methods.method import Moment, OneImage, Options, Setting, WithoutPrompts
from lanit.methods.optimisers import adam
from lanit.networks import Discriminator, NetworkOptions
from lanit.objectives import Batch, Parts
from lanit.one_shot_networks import OneShotNetworks, OneShotSizes
from lanit.one_shot_objectives import OneShotLearners, OneShotOptimisers, OneShotTerms, one_shot_step
from lanit.options import check_settings
from lanit.ranks import Draws
from lanit.schedules import ema_decay, r1_weight


@dataclass(frozen=True)
class OneShotOptions(OneImage):
    """Settings of this method.

    channels, max_channels: as in :class:`lanit.networks.NetworkOptions`. one_from: share of the steps at which phase II
    begins, and with it what is learned of the one image. learning_rate: of Adam, for both networks. r1, r1_every: of
    the discriminator.
    """

    channels: int = 0
    max_channels: int = 512
    terms: OneShotTerms = field(default_factory=OneShotTerms)
    one_from: float = 0.75
    learning_rate: float = 2e-4
    r1: float = 1.0
    r1_every: int = 8

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


class OneShot(WithoutPrompts):
    """:class:`lanit.methods.method.Method`: an autoencoder with two pairs of ends, and a discriminator of B."""

    options: ClassVar[type[Options]] = OneShotOptions
    groups: ClassVar[tuple[str, ...]] = ("networks", "average", "generative_optimiser", "discriminator_optimiser")

    def __init__(self, options: OneShotOptions, setting: Setting) -> None:
        super().__init__(setting)
        self._options = options
        self._terms = replace(options.terms, bf16=setting.bf16)
        sizes = options.network_options(setting.image_size, setting.domains)
        assert isinstance(sizes, OneShotSizes)
        assert setting.example is not None, "prepared with the image"
        discriminator = Discriminator(replace(sizes, domains=1))
        self.networks = OneShotLearners(OneShotNetworks(sizes), discriminator, setting.example).to(setting.device)
        self._average = Average(self.networks.generative)
        self.averaged = self._average.module
        learners = (self.networks.generative, discriminator)
        self._optimisers = OneShotOptimisers(
            *(adam(list(part.parameters()), options.learning_rate, 0.5, 0.0) for part in learners)
        )
        self._begun: bool | None = None  # as the networks have it, once a step asked

    def step(self, batch: Batch, moment: Moment, draws: Draws) -> Parts:
        if self._is_phase_2(moment):
            one = self.networks.example.expand(len(batch.x), -1, -1, -1)
            one = flip_and_crop(one.contiguous(), draws, 1.0)
        else:
            one = None
        images, present = torch.cat([batch.x, batch.y]), torch.cat([batch.x_labels, batch.y_labels])[:, 0]
        rows = torch.argsort((~present).to(torch.uint8), stable=True)[: len(batch.x)]  # those of B first
        r1 = r1_weight(self._options.r1, moment.step, self._options.r1_every)
        parts = one_shot_step(
            self.networks, self._optimisers, images[rows], present[rows], one, r1, self._terms, draws
        )  # fmt: skip
        self._average.update(self.networks.generative, ema_decay(self._setting.ema, moment.step))
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

    def state(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        return {
            "networks": self.networks,
            "average": self.averaged,
            "generative_optimiser": self._optimisers.generative,
            "discriminator_optimiser": self._optimisers.discriminator,
        }

    def compile(self) -> None:
        pass
