"""Content transfer by a word (Press et al., ICLR 2019), and Fader networks (Lample et al., NeurIPS 2017) as a setting.

Images that have the word are those without it and something more: e₂ reads that from a guide image, so that it can be
added to others, swapped, and removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import nn

from lanit.content_networks import PLACES, CodeBank, ContentNetworks, ContentSizes, GuideKind, LatentDiscriminator
from lanit.content_objectives import ContentLearners, ContentOptimisers, ContentTerms, content_step
from lanit.ema import Average
from lanit.errors import UsageError
from lanit.methods.method import Moment, OneWord, Options, Setting, WithoutPrompts
from lanit.methods.optimisers import adam
from lanit.networks import Discriminator, NetworkOptions
from lanit.objectives import Batch, Parts
from lanit.options import check_settings
from lanit.ranks import Draws
from lanit.schedules import ema_decay, r1_weight

_LATENTS = 16  # numbers by which a style is drawn
_KEPT = 4  # codes of a step that go into the bank


@dataclass(frozen=True)
class ContentOptions(OneWord):
    """Settings of this method.

    channels, max_channels: as in :class:`lanit.networks.NetworkOptions`. output: ``residual`` adds what g draws to the
    image, which need not be drawn anew, and learns by translations alone; ``image`` draws the image anew,
    and learns by giving images back too: with ``adversarial=0`` this is the paper's method. guide, guide_channels: see
    :class:`lanit.content_networks.ContentSizes`; ``guide=constant`` besides these is Fader networks. ramp: share of the
    steps over which ``confusion`` rises from 0, as Fader networks have it.
    learning_rate: of Adam, for all networks. r1, r1_every: of the discriminator of images.
    """

    channels: int = 0
    max_channels: int = 512
    output: Literal["image", "residual"] = "residual"
    guide: GuideKind = "map"
    guide_channels: int = 4
    terms: ContentTerms = field(default_factory=ContentTerms)
    ramp: float = 1 / 3
    learning_rate: float = 2e-4
    r1: float = 1.0
    r1_every: int = 8

    def __post_init__(self) -> None:
        check_settings(self, ("ramp",))
        check_settings(self.terms)
        if self.output == "residual" and not self.terms.adversarial:
            raise UsageError(
                "output residual learns by translations, which adversarial 0 leaves out", "Add --set output=image."
            )

    def network_options(self, image_size: int, domains: int) -> NetworkOptions:
        """Sizes of the networks for images of S pixels: of the word and its absence, whatever ``domains``."""
        return ContentSizes(
            image_size=image_size,
            domains=2,
            channels=self.channels,
            max_channels=self.max_channels or 512,
            style_dim=self.guide_channels * PLACES**2,
            latent_dim=_LATENTS,
            output=self.output,
            guide=self.guide,
            guide_channels=self.guide_channels,
        )


class Content(WithoutPrompts):
    """:class:`lanit.methods.method.Method`: e₁, e₂, g and their adversaries, an optimiser for each of the three."""

    options: ClassVar[type[Options]] = ContentOptions
    groups: ClassVar[tuple[str, ...]] = (
        "networks", "average", "generative_optimiser", "latent_optimiser", "discriminator_optimiser",
    )  # fmt: skip

    def __init__(self, options: ContentOptions, setting: Setting) -> None:
        super().__init__(setting)
        self._options = options
        self._terms = replace(options.terms, bf16=setting.bf16)
        if options.output == "residual":  # which gives every image back from the first step on
            self._terms = replace(self._terms, reconstruction=0.0, confusion=0.0)
        sizes = options.network_options(setting.image_size, setting.domains)
        assert isinstance(sizes, ContentSizes)
        generative = ContentNetworks(sizes)
        self.networks = ContentLearners(
            generative, LatentDiscriminator(generative.generator.channels), Discriminator(sizes)
        )
        self.networks.to(setting.device)
        self._average = Average(generative)
        self.averaged = self._average.module
        parts = (generative, self.networks.latent, self.networks.images)
        self._optimisers = ContentOptimisers(*(adam(list(part.parameters()), options.learning_rate) for part in parts))

    def step(self, batch: Batch, moment: Moment, draws: Draws) -> Parts:
        options, optimisers = self._options, self._optimisers
        terms = self._terms
        rising = moment.step / (options.ramp * moment.planned) if options.ramp * moment.planned else 1.0
        confusion = terms.confusion * min(1.0, rising)
        r1 = r1_weight(options.r1, moment.step, options.r1_every)
        parts = content_step(self.networks, optimisers, batch, confusion, r1, terms, draws)
        decay = ema_decay(self._setting.ema, moment.step)
        self._average.update(self.networks.generative, decay)
        self._remember(batch)
        return parts

    @torch.no_grad()
    def _remember(self, batch: Batch) -> None:
        """Codes of a few of the references that have the word, as the average reads them."""
        bank = self.averaged.mapping
        kept = batch.y[batch.y_labels[:, 0]][:_KEPT]
        if isinstance(bank, CodeBank) and len(kept):
            bank.remember(self.averaged.code(kept))

    def state(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        return {
            "networks": self.networks,
            "average": self.averaged,
            "generative_optimiser": self._optimisers.generative,
            "latent_optimiser": self._optimisers.latent,
            "discriminator_optimiser": self._optimisers.images,
        }

    def compile(self) -> None:
        pass
