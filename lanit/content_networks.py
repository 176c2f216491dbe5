"""Networks of content transfer (Press et al., ICLR 2019) and of Fader networks (Lample et al., NeurIPS 2017).

An image is what any image has, e₁, and what only images of one word have, e₂. There are two domains: the word, and its
absence, whose code is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lanit.codes import Codes, Sizes
from lanit.networks import DownBlock, GenerativeNetworks, Generator, NetworkOptions, initialise

GuideKind = Literal["map", "vector", "constant"]
PLACES = 4
"""Side of a guide map: few places, so that little of what any image has fits into it."""
_SLOPE = 0.2  # of every leaky ReLU
_BANK = 64


@dataclass(frozen=True)
class ContentSizes(NetworkOptions):
    """guide: how e₂ says what is added. ``map``: guide_channels numbers at each of 4×4 places; ``vector``: as many
    numbers without places; ``constant``: one learned code for all, as in Fader networks."""

    guide: GuideKind = "map"
    guide_channels: int = 4


def and_none(codes: Tensor) -> Tensor:
    """Codes (B×D_s) of the word as those of both domains, (B×2×D_s)."""
    return torch.stack([codes, torch.zeros_like(codes)], dim=1)


class GuideEncoder(nn.Module):
    """e₂: the codes of images (B×3×S×S), (B×2×D_s), D_s = guide_channels × 4 × 4.

    Without norm, which would fix the mean of a map over its places.
    """

    def __init__(self, options: ContentSizes) -> None:
        super().__init__()
        halvings = int(math.log2(options.image_size // PLACES))
        widths = [min(options.base_channels * 2**i, options.max_channels) for i in range(halvings + 1)]
        down = [DownBlock(a, b, normalise=False, down=True) for a, b in pairwise(widths)]
        as_map = options.guide == "map"
        shape = (options.guide_channels, 1) if as_map else (options.style_dim, PLACES)
        top = nn.Conv2d(widths[-1], *shape)
        self.layers = nn.Sequential(nn.Conv2d(3, widths[0], 3, 1, 1), *down, nn.LeakyReLU(_SLOPE), top)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        return and_none(self.layers(images).flatten(1))


class CodeBank(Codes):
    """Codes of training images, to draw from where no guide is given: a latent takes that whose key it points at most.

    bank: (64×D_s), newest first; keys: unit-norm (64×D_z), fixed.
    """

    bank: Tensor
    keys: Tensor

    def __init__(self, options: Sizes) -> None:
        super().__init__(options)
        self.latent_dim = options.latent_dim
        self.register_buffer("bank", torch.zeros(_BANK, options.style_dim))
        self.register_buffer("keys", torch.zeros(_BANK, options.latent_dim))
        if not self.keys.is_meta:
            drawn = torch.randn(self.keys.shape, generator=torch.Generator().manual_seed(0))
            self.keys.copy_(F.normalize(drawn, dim=1))

    def forward(self, latents: Tensor) -> Tensor:
        return and_none(self.bank[(latents @ self.keys.T).argmax(dim=1)])

    @torch.no_grad()
    def remember(self, codes: Tensor) -> None:
        """Put codes (b×D_s) into the bank, which forgets its oldest."""
        self.bank.copy_(torch.cat([codes.to(self.bank), self.bank])[:_BANK])


class ConstantCode(Codes):
    """One learned code of the word, as the attribute of Fader networks."""

    of_images: ClassVar[bool] = False
    why_one: ClassVar[tuple[str, str]] = ("trained with guide=constant", "a model trained with guide=map")

    def __init__(self, options: Sizes) -> None:
        super().__init__(options)
        self.latent_dim = 0
        self.code = nn.Parameter(torch.randn(options.style_dim))

    def forward(self, latents: Tensor) -> Tensor:
        return and_none(self.code.expand(len(latents), -1))


class GuidedGenerator(Generator):
    """e₁ and g. The code of the word comes in as a style; that of a map also at its places."""

    def __init__(self, options: ContentSizes) -> None:
        super().__init__(options)
        last = self.encoder[-1]
        assert isinstance(last, DownBlock)
        self.channels: int = last.conv2.out_channels
        if options.output == "image":  # it would take away an image's own colours, which no style gives back here
            self.norm = nn.Identity()
        self.place = nn.Conv2d(options.guide_channels, self.channels, 1, bias=False) if options.guide == "map" else None
        if self.place is not None:
            initialise(self.place)

    def decode(self, content: Tensor, style: Tensor, source: Tensor) -> Tensor:
        """As :meth:`lanit.networks.Generator.decode`; style: e₂ of a guide, or 0."""
        if self.place is not None:
            places = style.unflatten(1, (self.place.in_channels, PLACES, PLACES)).to(content.dtype)
            places = F.interpolate(places, content.shape[-2:], mode="bilinear", align_corners=False)
            content = content + self.place(places)
        return super().decode(content, style, source)


class LatentDiscriminator(nn.Module):
    """Whether a content (B×C×16×16) is of an image with the word: logits (B)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        down = [DownBlock(channels, channels, normalise=False, down=True) for _ in range(2)]
        ends = (
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(channels, channels, PLACES),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(channels, 1, 1),
        )
        self.layers = nn.Sequential(*down, *ends)
        initialise(self)

    def forward(self, content: Tensor) -> Tensor:
        logits: Tensor = self.layers(content)
        return logits.flatten()


class ContentNetworks(GenerativeNetworks):
    """e₁ and g, e₂, and what is drawn where no guide is given."""

    generator: GuidedGenerator
    style_encoder: GuideEncoder  # type: ignore[assignment]

    def __init__(self, options: ContentSizes) -> None:
        nn.Module.__init__(self)
        self.generator = GuidedGenerator(options)
        if options.guide == "constant":
            self.mapping = ConstantCode(options)
        else:
            self.style_encoder = GuideEncoder(options)
            self.mapping = CodeBank(options)

    def code(self, images: Tensor) -> Tensor:
        """e₂(x), (B×D_s)."""
        return self.own_codes(images)[:, 0]
