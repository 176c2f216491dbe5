"""Networks of one-shot translation (Benaim and Wolf, NeurIPS 2018): an autoencoder of which each domain has own ends.

Two domains: B, of many images, and after it A, of the one image and its like.
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
from lanit.networks import DownBlock, GenerativeNetworks, NetworkOptions, UpBlock, initialise

End = Literal["many", "one"]
_SLOPE = 0.2  # of every leaky ReLU


@dataclass(frozen=True)
class OneShotSizes(NetworkOptions):
    """As of other networks; styles are one number, the share of B in the result."""


class _Ends(nn.Module):
    """What is a domain's own: the first layers of the encoder, the last ones of the decoder."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.from_rgb = nn.Conv2d(3, inner, 3, 1, 1)
        self.down = DownBlock(inner, outer, normalise=True, down=True)
        self.up = UpBlock(outer, inner, 1, up=True)
        self.to_rgb = nn.Conv2d(inner, 3, 1)

    def encode(self, images: Tensor) -> Tensor:
        return self.down(self.from_rgb(images))

    def decode(self, features: Tensor) -> Tensor:
        image: Tensor = self.to_rgb(F.leaky_relu(self.up(features, _no_style(features)), _SLOPE))
        return image


def _no_style(features: Tensor) -> Tensor:
    """The blocks of the decoder take one; here the ends tell what to draw."""
    return features.new_zeros(features.shape[0], 1)


class TwoEndedGenerator(nn.Module):
    """ends: those of B (``many``) and of A (``one``). What lies between them, both domains share."""

    def __init__(self, options: OneShotSizes) -> None:
        super().__init__()
        halvings = int(math.log2(options.image_size)) - 4
        widths = [min(options.base_channels * 2**i, options.max_channels) for i in range(halvings + 1)]
        self.ends = nn.ModuleDict({name: _Ends(widths[0], widths[1]) for name in ("many", "one")})
        down = [DownBlock(a, b, normalise=True, down=True) for a, b in pairwise(widths[1:])]
        bottleneck = [DownBlock(widths[-1], widths[-1], normalise=True, down=False) for _ in range(2)]
        self.encoder = nn.Sequential(*down, *bottleneck)
        mixing = [UpBlock(widths[-1], widths[-1], 1, up=False) for _ in range(2)]
        up = [UpBlock(a, b, 1, up=True) for a, b in pairwise(widths[:0:-1])]
        self.decoder = nn.ModuleList([*mixing, *up])
        initialise(self)

    def read(self, images: Tensor, end: End) -> Tensor:
        """E: images (B×3×S×S) of a domain to content (B×C×16×16)."""
        features = self.ends[end].encode(images)  # type: ignore[operator]
        content: Tensor = self.encoder(features)
        return content

    def draw(self, content: Tensor, end: End) -> Tensor:
        """G: content (B×C×16×16) to images of a domain (B×3×S×S), not clamped."""
        for block in self.decoder:
            content = block(content, _no_style(content))
        image: Tensor = self.ends[end].decode(content)  # type: ignore[operator]
        return image

    def encode(self, images: Tensor) -> Tensor:
        """Content (B×2C×16×16) of images as of either domain, since nobody says of which they are."""
        return torch.cat([self.read(images, "many"), self.read(images, "one")], dim=1)

    def decode(self, content: Tensor, style: Tensor, source: Tensor) -> Tensor:
        """style: (B×1), 1 for images of A drawn as of B, 0 for images of B drawn as of A, between for a mixture."""
        of_many, of_one = content.chunk(2, dim=1)
        share = style[:, :, None, None].to(content.dtype)
        return (1 - share) * self.draw(of_many, "one") + share * self.draw(of_one, "many")

    def forward(self, images: Tensor, style: Tensor) -> Tensor:
        return self.decode(self.encode(images), style, images)

    def begin_the_one(self) -> None:
        """A's ends become copies of B's."""
        self.ends["one"].load_state_dict(self.ends["many"].state_dict())


class EndCodes(Codes):
    """1 for B, 0 for A."""

    of_images: ClassVar[bool] = False
    table: Tensor

    def __init__(self, options: Sizes) -> None:
        super().__init__(options)
        self.latent_dim = 0
        self.register_buffer("table", torch.tensor([[1.0], [0.0]]))

    def forward(self, latents: Tensor) -> Tensor:
        return self.table.expand(len(latents), -1, -1)


class OneShotNetworks(GenerativeNetworks):
    """Both directions, as translation asks for them: to B from images like the one, to its like from those of B."""

    generator: TwoEndedGenerator  # type: ignore[assignment]

    def __init__(self, options: OneShotSizes) -> None:
        nn.Module.__init__(self)
        self.generator = TwoEndedGenerator(options)
        self.mapping = EndCodes(options)
