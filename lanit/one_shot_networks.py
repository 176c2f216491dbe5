"""Networks of one-shot translation (Benaim and Wolf, NeurIPS 2018): an autoencoder of which each domain has own ends.

Two domains: B, of many images, and after it A, of the one image and its like.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lanit.codes import Codes, Sizes
from lanit.networks import GenerativeNetworks, Generator, NetworkOptions

End = Literal["many", "one"]
_SHARED = 2  # residual blocks on either side of the content, of which there are two in a Generator
_SLOPE = 0.2  # of every leaky ReLU


@dataclass(frozen=True)
class OneShotSizes(NetworkOptions):
    """As of other networks; styles are one number, the share of B in the result."""


class TwoEndedGenerator(Generator):
    """All that changes the size of an image is a domain's own; the residual blocks between, at 16×16, are shared, as
    the paper has it. The generator's own layers are B's (``many``); ``one`` has A's, in the same order."""

    def __init__(self, options: OneShotSizes) -> None:
        super().__init__(options)
        self.norm = nn.Identity()  # it would take away an image's own colours, which no style gives back here
        self.one = nn.ModuleList(copy.deepcopy(layer) for layer in self._of_many())

    def _of_many(self) -> list[nn.Module]:
        """B's ends: from_rgb, halvings, doublings, to_rgb."""
        return [self.from_rgb, *self.encoder[:-_SHARED], *self.decoder[_SHARED:], self.to_rgb]

    def _ends(self, end: End) -> tuple[list[nn.Module], list[nn.Module]]:
        """What reads images before the shared layers, and what draws them after those."""
        layers = self._of_many() if end == "many" else list(self.one)
        return layers[: len(layers) // 2], layers[len(layers) // 2 :]

    def read(self, images: Tensor, end: End) -> Tensor:
        """E: images (B×3×S×S) of a domain to content (B×C×16×16)."""
        for layer in (*self._ends(end)[0], *self.encoder[-_SHARED:]):
            images = layer(images)
        return images

    def draw(self, content: Tensor, end: End) -> Tensor:
        """G: content (B×C×16×16) to images of a domain (B×3×S×S), not clamped."""
        *up, to_rgb = self._ends(end)[1]
        no_style = content.new_zeros(content.shape[0], 1)  # the ends tell what to draw
        for block in (*self.decoder[:_SHARED], *up):
            content = block(content, no_style)
        image: Tensor = to_rgb(F.leaky_relu(content, _SLOPE))
        return image

    def encode(self, images: Tensor) -> Tensor:
        """Content (B×2C×16×16) of images as of either domain, since nobody says of which they are."""
        return torch.cat([self.read(images, "many"), self.read(images, "one")], dim=1)

    def decode(self, content: Tensor, style: Tensor, source: Tensor) -> Tensor:
        """style: (B×1), 1 for images of A drawn as of B, 0 for images of B drawn as of A, between for a mixture."""
        of_many, of_one = content.chunk(2, dim=1)
        share = style[:, :, None, None].to(content.dtype)
        return (1 - share) * self.draw(of_many, "one") + share * self.draw(of_one, "many")

    def begin_the_one(self) -> None:
        """A's ends become copies of B's."""
        self.one.load_state_dict(nn.ModuleList(self._of_many()).state_dict())


class EndCodes(Codes):
    """1 for B, 0 for A."""

    of_images: ClassVar[bool] = False
    why_one: ClassVar[tuple[str, str]] = ("trained by --method one-shot, of one image", "a model of the default method")
    table: Tensor

    def __init__(self, options: Sizes) -> None:
        super().__init__(options)
        self.latent_dim = 0
        self.register_buffer("table", torch.tensor([[1.0], [0.0]]))

    def forward(self, latents: Tensor) -> Tensor:
        return self.table.expand(len(latents), -1, -1)


class OneShotNetworks(GenerativeNetworks):
    """Both directions, as translation asks for them: to B from images like the one, to its like from those of B."""

    generator: TwoEndedGenerator

    def __init__(self, options: OneShotSizes) -> None:
        nn.Module.__init__(self)
        self.generator = TwoEndedGenerator(options)
        self.mapping = EndCodes(options)
