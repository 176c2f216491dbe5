"""Where target styles come from when no image gives them: what stands for E_M (METHOD §2), by the setting ``codes``.

A kind is a class here, a name of :data:`CodeKind` and a line of ``CODES`` in :mod:`lanit.networks`, where the mapping
network, the first of them, stands.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

CodeKind = Literal["mapping", "table", "normal"]


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


class Codes(nn.Module):
    """From latents z (B×D_z) to a style of every domain, (B×N×D_s).

    latent_dim: D_z; 0 where nothing is drawn, so that a domain has one style. of_images: whether images have styles of
    their own, which a style encoder reads; where not, their styles are these.
    """

    latent_dim: int
    of_images: ClassVar[bool] = True

    def __init__(self, options: Sizes) -> None:
        super().__init__()


class CodeTable(Codes):
    """One learned style s_n a domain, as in StarGAN, CycleGAN and all that are unimodal."""

    of_images: ClassVar[bool] = False

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
