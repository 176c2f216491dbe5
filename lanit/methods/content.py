"""Content transfer by a word (Press et al., ICLR 2019), and Fader networks (Lample et al., NeurIPS 2017) as a setting.

Images that have the word are those without it and something more: e₂ reads that from a guide image, so that it can be
added to others, swapped, and removed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch

from lanit.content_networks import PLACES, CodeBank, ContentNetworks, ContentSizes, GuideKind, LatentDiscriminator
from lanit.content_objectives import ContentLearners, ContentTerms, content_step
from lanit.errors import UsageError
from lanit.methods.method import Moment, OneWord, Options, Setting, WithoutPrompts
from lanit.methods.optimisers import adam
from lanit.networks import Discriminator, NetworkOptions
from lanit.objectives import Batch, Parts
from lanit.options import check_settings
from lanit.ranks import Draws, Ranks
from lanit.schedules import r1_weight

_LATENTS = 16  # numbers by which a style is drawn
_KEPT = 4  # codes of a step that go into the bank


@dataclass(frozen=True)
class ContentOptions(OneWord):
    """Settings of this method.

    output: ``residual`` adds what g draws to the image, which need not be drawn anew, and learns by translations alone;
    ``image`` draws the image anew, and learns by giving images back too: with ``adversarial=0`` this is the paper's
    method. guide, guide_channels: see :class:`lanit.content_networks.ContentSizes`; ``guide=constant`` besides these is
    Fader networks. ramp: share of the steps over which ``confusion`` rises from 0, as Fader networks have it.
    """

    output: Literal["image", "residual"] = "residual"
    guide: GuideKind = "map"
    guide_channels: int = 4
    terms: ContentTerms = field(default_factory=ContentTerms)
    ramp: float = 1 / 3

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


class Content(WithoutPrompts[ContentLearners, ContentNetworks], optimisers=("generative", "latent", "discriminator")):
    """:class:`lanit.methods.method.Method`: e₁, e₂, g and their adversaries, an optimiser for each of the three."""

    options: ClassVar[type[Options]] = ContentOptions

    def __init__(self, options: ContentOptions, setting: Setting) -> None:
        self._options = options
        self._terms = replace(options.terms, bf16=setting.bf16)
        if options.output == "residual":  # which gives every image back from the first step on
            self._terms = replace(self._terms, reconstruction=0.0, confusion=0.0)
        sizes = options.network_options(setting.image_size, setting.domains)
        assert isinstance(sizes, ContentSizes)
        generative = ContentNetworks(sizes)
        latent = LatentDiscriminator(generative.generator.channels)
        networks = ContentLearners(generative, latent, Discriminator(sizes))
        super().__init__(setting, networks, generative)
        parts = {"generative": generative, "latent": latent, "discriminator": networks.images}
        self._optimisers = {name: adam(list(part.parameters()), options.learning_rate) for name, part in parts.items()}

    def step(self, batch: Batch, moment: Moment, draws: Draws) -> Parts:
        options, optimisers = self._options, self._optimisers
        terms = self._terms
        rising = moment.step / (options.ramp * moment.planned) if options.ramp * moment.planned else 1.0
        confusion = terms.confusion * min(1.0, rising)
        r1 = r1_weight(options.r1, moment.step, options.r1_every)
        parts = content_step(self.networks, optimisers, batch, confusion, r1, terms, draws)
        self._follow(moment)
        self._remember(batch, draws.ranks)
        return parts

    @torch.no_grad()
    def _remember(self, batch: Batch, ranks: Ranks) -> None:
        """Codes of a few of the references of the whole batch that have the word, as the average reads them."""
        bank = self.averaged.mapping
        chosen = ranks.whole(batch.y_labels[:, 0]).nonzero()[:_KEPT, 0]
        if not isinstance(bank, CodeBank) or not len(chosen):
            return
        codes = bank.bank.new_zeros(len(chosen), bank.bank.shape[1])
        own = chosen % ranks.count == ranks.rank
        if own.any():
            codes[own] = self.averaged.code(batch.y[chosen[own] // ranks.count]).to(codes)
        bank.remember(ranks.mean(codes) * ranks.count)
