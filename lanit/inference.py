"""Using a trained generator: from labels and codes to images (METHOD §2)."""

from __future__ import annotations

import torch
from torch import Tensor

from lanit.labels import edit
from lanit.networks import GenerativeNetworks, aggregate


def target_style(codes: Tensor, weights: Tensor) -> Tensor:
    """a (B×D_s) of codes (B×(N+1)×D_s) under non-negative weights (B×N); rows of zeros take the slack domain.

    Weights are mixed by degree: 1 is the domain in full.
    """
    padded = torch.cat([weights, torch.zeros_like(weights[:, :1])], dim=1)
    empty = (weights.sum(dim=1) == 0).to(weights.dtype)
    padded[:, -1] = empty
    return aggregate(codes, padded)


def editing_codes(nets: GenerativeNetworks, images: Tensor, latents: Tensor, kept: Tensor) -> Tensor:
    """Codes (B×(N+1)×D_s): the source's own for the domains it keeps, a latent's for all others.

    images: (B×3×S×S) in [-1, 1]; latents: (B×16); kept: bool (B×N).
    """
    stays = torch.cat([kept, torch.zeros_like(kept[:, :1])], dim=1)
    return torch.where(stays[:, :, None], nets.style_encoder(images), nets.mapping(latents))


def edit_style(codes: Tensor, own: Tensor, kept: Tensor, weights: Tensor) -> Tensor:
    """a (B×D_s) of images that keep their own style in some domains and take ``codes`` in all others.

    codes: ((N+1)×D_s), the same for every image; own: (B×(N+1)×D_s), of the style encoder; kept: bool (B×N);
    weights: non-negative (B×N), see :func:`target_style`.
    """
    stays = torch.cat([kept, torch.zeros_like(kept[:, :1])], dim=1)
    return target_style(torch.where(stays[:, :, None], own, codes), weights)


def interpolated(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """Styles on the straight line between two, both ends included: (steps×D_s) from two of (D_s)."""
    return torch.lerp(first, last, torch.linspace(0, 1, steps, device=first.device, dtype=first.dtype)[:, None])


def translate_edited(
    nets: GenerativeNetworks, images: Tensor, active: Tensor, target: Tensor, latents: Tensor
) -> Tensor:
    """Images (B×3×S×S, clamped to [-1, 1]) of the sources moved from labels ``active`` to ``target``.

    active: bool (B×N), the sources' own labels. target: bool or non-negative float (B×N).
    """
    codes = editing_codes(nets, images, latents, active & (target > 0))
    style = target_style(codes, target.to(codes.dtype))
    return nets.generator(images, style).clamp(-1, 1)


def add_each_domain(active: Tensor, exclusive: Tensor) -> Tensor:
    """Targets that add each domain in turn to one image's labels: bool (N×N) from bool (N)."""
    domains = len(active)
    nothing = torch.zeros(domains, domains, dtype=torch.bool, device=active.device)
    return edit(
        active.expand(domains, -1), torch.eye(domains, dtype=torch.bool, device=active.device), nothing, exclusive
    )
