"""Guiding networks: which of K clusters an image is of, and its style, from one trunk (TUNIT, Baek et al., ICCV 2021).

A method that finds its own domains ends in G and such a network, which stands for E_S and also labels images, so that
new ones need no CLIP. An image has one style, whatever the domain. It is unit-norm, as a temperature of 0.07 asks for;
TUNIT's public code leaves it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lanit.codes import CodeForm, CodeKind, GaussianCodes
from lanit.networks import GenerativeNetworks, Generator, NetworkOptions, channels_last, initialise, trunk_of
from lanit.options import given
from lanit.ranks import ALONE, Ranks

PROTOTYPE_TEMPERATURE = 0.1
_DECIDED = 3.0
"""Spread of the first logits of clusters: images lie in some from the first step on. A head that begins undecided loses
most of its clusters (docs/LOG.md, 2026-11-30)."""


@dataclass(frozen=True)
class GuideSizes(NetworkOptions):
    """classifier: of clusters, a linear ``head`` on the trunk, or unit-norm ``prototypes`` among the styles; the method
    says. What follows are no settings here: a latent is as long as a style, and nothing maps it."""

    latent_dim: int = given(0)
    mapping_width: int = given(0)
    codes: CodeKind = given("mapping")  # noqa: RUF009
    code_form: CodeForm = given("free")  # noqa: RUF009
    discriminator_input: Literal["image", "pair"] = given("image")
    classifier: Literal["head", "prototypes"] = given("head")

    @property
    def clusters(self) -> int:
        """K; networks count the slack domain too."""
        return self.domains - 1


@dataclass(frozen=True)
class Look:
    """What a guiding network sees in B images. logits: of clusters, float32 (B×K). style: unit-norm float32 (B×D_s)."""

    logits: Tensor
    style: Tensor

    def split(self, rows: int) -> tuple[Look, ...]:
        """Looks at ``rows`` images each."""
        return tuple(map(Look, self.logits.split(rows), self.style.split(rows)))


class Guide(nn.Module):
    """E, in the place of E_S.

    What the trunk gives is standardised by moments of the batches seen, without a gradient through them: heads that
    begin at what all images have in common find no clusters. (VGG-11 has batch norm, which would see a part of a batch
    that processes share.)
    """

    mean: Tensor
    square: Tensor

    def __init__(self, options: GuideSizes) -> None:
        super().__init__()
        self.domains = options.domains
        self.trunk, top = trunk_of(options)
        self.register_buffer("mean", torch.zeros(top))
        self.register_buffer("square", torch.ones(top))
        self.style = nn.Linear(top, options.style_dim)
        self.by_prototypes = options.classifier == "prototypes"
        if self.by_prototypes:
            self.prototypes = nn.Parameter(F.normalize(torch.randn(options.clusters, options.style_dim), dim=1))
        else:
            self.classes = nn.Linear(top, options.clusters)
        initialise(self)
        if not self.by_prototypes and not self.classes.weight.is_meta:
            nn.init.normal_(self.classes.weight, std=_DECIDED * top**-0.5)
        self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor, step: int | None = None, ranks: Ranks = ALONE) -> Tensor:
        """(B×C) of images (B×3×S×S) in [-1, 1]. step: of training, whose batch's moments are to be taken in: at first
        alone, then as a tenth of all."""
        features = self.trunk(channels_last(images)).flatten(1).float()
        if step is not None:
            share, seen = max(0.1, 1 / (step + 1)), features.detach()
            self.mean.lerp_(ranks.mean(seen.mean(dim=0)), share)
            self.square.lerp_(ranks.mean(seen.square().mean(dim=0)), share)
        standardised: Tensor = (features - self.mean) * (self.square - self.mean.square()).clamp(min=1e-5).rsqrt()
        return standardised

    def read(self, features: Tensor) -> Look:
        """Clusters and styles of features (B×C)."""
        style = F.normalize(self.style(features).float(), dim=1)
        if self.by_prototypes:
            logits = style @ F.normalize(self.prototypes.float(), dim=1).T / PROTOTYPE_TEMPERATURE
        else:
            logits = self.classes(features).float()
        return Look(logits, style)

    def look(self, images: Tensor, step: int | None = None, ranks: Ranks = ALONE) -> Look:
        """See :meth:`features`."""
        return self.read(self.features(images, step, ranks))

    def forward(self, images: Tensor) -> Tensor:
        """The style of images (B×3×S×S), for every domain the same: (B×(K+1)×D_s)."""
        return self.look(images).style[:, None].expand(-1, self.domains, -1)

    def margins(self, images: Tensor) -> Tensor:
        """log p_n less the largest log p of another cluster, float32 (B×K): positive for the cluster of an image."""
        return cluster_margins(self.look(images).logits)


def cluster_margins(logits: Tensor) -> Tensor:
    """Of logits (B×K), K ≥ 2, each less the largest other, (B×K). Of two that are equal the first is above 0."""
    best = logits.topk(2, dim=1)
    first = F.one_hot(logits.argmax(dim=1), logits.shape[1]).bool()
    margins = logits - torch.where(first, best.values[:, 1:], best.values[:, :1])
    tiny = torch.finfo(margins.dtype).tiny
    return torch.where(first, margins.clamp(min=tiny), margins)


class GuidedNetworks(GenerativeNetworks):
    """G, E, and styles drawn from Gaussians of what E saw."""

    style_encoder: Guide  # type: ignore[assignment]
    mapping: GaussianCodes

    def __init__(self, options: GuideSizes) -> None:
        nn.Module.__init__(self)
        self.generator = Generator(options)
        self.style_encoder = Guide(options)
        self.mapping = GaussianCodes(options)

    @property
    def guide(self) -> Guide:
        return self.style_encoder


def guide_of(networks: GenerativeNetworks) -> Guide | None:
    """What labels images without a CLIP; none where that is not learned."""
    return networks.style_encoder if isinstance(networks, GuidedNetworks) else None
