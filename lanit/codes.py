"""Where target styles come from when no image gives them: what stands for E_M (METHOD §2), by the setting ``codes``.

A kind is a class here, a name of :data:`CodeKind` and a line of ``CODES`` in :mod:`lanit.networks`, where the mapping
network, the first of them, stands. That of methods which find clusters is no setting.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CodeKind = Literal["mapping", "table", "normal"]
CodeForm = Literal["free", "anchored"]


class Sizes(Protocol):
    """What a kind may need of :class:`lanit.networks.NetworkOptions`, whose docstring has them."""

    @property
    def domains(self) -> int: ...

    @property
    def style_dim(self) -> int: ...

    @property
    def latent_dim(self) -> int: ...

    @property
    def mapping_width(self) -> int: ...

    @property
    def code_form(self) -> CodeForm: ...


class Anchors(nn.Module):
    """s_n = u_n + ½ v_n/|v_n|: a fixed direction of length 1 for every domain, and half as much of what was learned.

    Length is the root of the mean square. G can tell domains apart from the first step, by codes of E_S and E_M alike,
    and no rate of learning makes codes grow or shrink. The directions are orthogonal while N < D_s.
    """

    directions: Tensor

    def __init__(self, options: Sizes) -> None:
        super().__init__()
        rows, columns = torch.arange(options.domains)[:, None] + 1, torch.arange(options.style_dim) + 0.5
        cosines = math.sqrt(2) * torch.cos(math.pi / options.style_dim * rows * columns)
        self.register_buffer("directions", cosines, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes v (B×N×D_s) to s, float32 of the same shape."""
        learned = codes.float()
        return self.directions + 0.5 * learned * (learned.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt()


class Codes(nn.Module):
    """From latents z (B×D_z) to a style of every domain, (B×N×D_s).

    latent_dim: D_z; 0 where nothing is drawn, so that a domain has one style. of_images: whether images have styles of
    their own, which a style encoder reads; where not, their styles are these. why_one: of a kind with one style a
    domain, how a model comes to have it, and what draws several, as sentences say it.
    """

    latent_dim: int
    of_images: ClassVar[bool] = True
    why_one: ClassVar[tuple[str, str]] = ("", "")

    def __init__(self, options: Sizes) -> None:
        super().__init__()


class CodeTable(Codes):
    """One learned style s_n a domain, as in StarGAN, CycleGAN and all that are unimodal."""

    of_images: ClassVar[bool] = False
    why_one: ClassVar[tuple[str, str]] = ("trained with codes=table", "a model trained with codes=mapping")

    def __init__(self, options: Sizes) -> None:
        super().__init__(options)
        self.latent_dim = 0
        self.table = nn.Parameter(torch.randn(options.domains, options.style_dim))

    def forward(self, latents: Tensor) -> Tensor:
        return self.table.expand(len(latents), -1, -1)


class NormalCodes(Codes):
    """s_n = m_n + z, z ~ N(0, I): plain noise of the size of a style, as MUNIT's, about a learned mean for each domain.

    MUNIT has a decoder for each domain, which needs no telling; ours has one for all, so the code must name the domain.
    """

    def __init__(self, options: Sizes) -> None:
        super().__init__(options)
        self.latent_dim = options.style_dim
        self.means = nn.Parameter(torch.randn(options.domains, options.style_dim))

    def forward(self, latents: Tensor) -> Tensor:
        return self.means + latents[:, None]


class GaussianCodes(Codes):
    """s_n = μ_n + R_n z, z ~ N(0, I), on the unit sphere: styles like those of the images of a cluster, of which μ_n is
    the mean and R_n the symmetric root of the covariance; of the slack domain, those of all images.

    Nothing learns here: see :meth:`fit`. Before it is called, the styles are those of no cluster.
    """

    means: Tensor
    roots: Tensor

    def __init__(self, options: Sizes) -> None:
        super().__init__(options)
        self.latent_dim = options.style_dim
        self.register_buffer("means", torch.zeros(options.domains, options.style_dim))
        self.register_buffer("roots", torch.eye(options.style_dim).repeat(options.domains, 1, 1))

    def forward(self, latents: Tensor) -> Tensor:
        drawn = self.means + torch.einsum("nij,bj->bni", self.roots, latents)
        return F.normalize(drawn, dim=2)

    @torch.no_grad()
    def fit(self, moments: StyleMoments) -> None:
        """Take the mean and the covariance of each cluster; where it has no image, those of all."""
        everything = moments.counts.sum()
        sums, products = (torch.cat([part, part.sum(dim=0, keepdim=True)]) for part in (moments.sums, moments.products))
        counts = torch.cat([moments.counts, everything[None]])
        filled = counts > 0
        sums = torch.where(filled[:, None], sums, sums[-1])
        products = torch.where(filled[:, None, None], products, products[-1])
        counts = torch.where(filled, counts, everything)
        means = sums / counts[:, None]
        covariances = products / counts[:, None, None] - means[:, :, None] * means[:, None, :]
        values, vectors = torch.linalg.eigh(covariances)
        roots = (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT
        self.means.copy_(means)
        self.roots.copy_(roots)


class StyleMoments:
    """Counts (K), sums (K×D_s) and products (K×D_s×D_s) of the styles of each cluster, in float64 on the CPU."""

    def __init__(self, clusters: int, style_dim: int) -> None:
        self.counts = torch.zeros(clusters, dtype=torch.float64)
        self.sums = torch.zeros(clusters, style_dim, dtype=torch.float64)
        self.products = torch.zeros(clusters, style_dim, style_dim, dtype=torch.float64)

    def add(self, styles: Tensor, clusters: Tensor) -> None:
        """Take in styles (b×D_s) of images of ``clusters``, int64 (b)."""
        styles, clusters = styles.double().cpu(), clusters.cpu()
        of = F.one_hot(clusters, len(self.counts)).double()
        self.counts += of.sum(dim=0)
        self.sums += of.T @ styles
        self.products += torch.einsum("bk,bi,bj->kij", of, styles, styles)
