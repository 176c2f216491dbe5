"""Using a trained generator (METHOD §2): what a request gives for each image, and the images. The one way to translate.

On a CPU, a result does not depend on the images beside it, to the last bit: rounding depends on how many go through a
network at once, so that number is always the same there. (Widths that are no multiples of 8 are beyond this.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lanit.labels import edit
from lanit.networks import GenerativeNetworks, aggregate

_PIXELS_ON_CPU = 8 * 32 * 32
"""Pixels that the generator takes at once on a CPU: as many as keep its layers in a core's cache (docs/LOG.md)."""


@dataclass(frozen=True)
class Target:
    """What images are to become. weights: non-negative float (B×N), the mix of each result; rows of zeros take the
    slack domain. kept: bool (B×N), domains in which an image keeps its own style; none where it keeps none."""

    weights: Tensor
    kept: Tensor | None


def edited(own: Tensor, add: Tensor, remove: Tensor, exclusive: Tensor) -> Target:
    """Own labels after adding and removing domains; an added domain is drawn anew, even where it is there already.

    own: bool (B×N). add: non-negative float (N), the weights of added domains; remove: bool (N). exclusive: bool (N×N),
    see :func:`lanit.labels.exclusive_pairs`.
    """
    added = add > 0
    labels = edit(own, added, remove, exclusive)
    return Target(torch.where(added, add, labels.to(add.dtype)), own & labels & ~added)


def mixed(own: Tensor, weights: Tensor) -> Target:
    """These domains and no others, each counting by its weight; those of ``own`` keep the image's style.

    own: bool (B×N). weights: non-negative float (N).
    """
    return Target(weights.expand(own.shape), own & (weights > 0))


def target_style(codes: Tensor, weights: Tensor) -> Tensor:
    """a (B×D_s) of codes (B×(N+1)×D_s) under non-negative weights (B×N); rows of zeros take the slack domain.

    Weights are mixed by degree: 1 is the domain in full.
    """
    padded = torch.cat([weights, torch.zeros_like(weights[:, :1])], dim=1)
    empty = (weights.sum(dim=1) == 0).to(weights.dtype)
    padded[:, -1] = empty
    return aggregate(codes, padded)


def interpolated(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """Styles on the straight line between two, both ends included: (steps×D_s) from two of (D_s)."""
    return torch.lerp(first, last, torch.linspace(0, 1, steps, device=first.device, dtype=first.dtype)[:, None])


def draw_latents(size: int, seed: int, count: int) -> Tensor:
    """Latents z, float32 (count×size), the same on every device; the first is that of a request for one."""
    random = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randn(1, size, generator=random) for _ in range(count)])


def drawn_codes(nets: GenerativeNetworks, latents: Tensor) -> Tensor:
    """Codes (P×(N+1)×D_s) of latents (P×D_z); on a CPU, of one at a time."""
    return torch.cat([nets.drawn_codes(part) for part in latents.split(1 if latents.device.type == "cpu" else 4096)])


def translate(nets: GenerativeNetworks, images: Tensor, target: Target, codes: Tensor) -> Tensor:
    """Images of B sources in each of K styles, float32 (K×B×3×S×S) in [-1, 1]; content is encoded once.

    images: float32 (B×3×S×S) in [-1, 1]. codes: for each style of every domain in which an image does not keep its own,
    (K×(N+1)×D_s), the same for all images, or (K×B×(N+1)×D_s).
    """
    made = []
    for rows, part in _parts(images):
        weights = target.weights[rows]
        own = keeps = None
        if target.kept is not None:
            own = nets.own_codes(part)[: len(weights)]
            keeps = F.pad(target.kept[rows], (0, 1))[:, :, None]
        styles = []
        for each in codes:
            wanted = each[rows] if each.ndim == 3 else each.expand(len(weights), -1, -1)
            if own is not None and keeps is not None:
                wanted = torch.where(keeps, own, wanted)
            styles.append(target_style(wanted, weights))
        made.append(_rendered(nets, part, torch.stack(styles)))
    return torch.cat(made, dim=1)


def translate_styles(nets: GenerativeNetworks, images: Tensor, styles: Tensor) -> Tensor:
    """Images of B sources in each of F styles (F×D_s), such as those of an interpolation: float32 (F×B×3×S×S)."""
    made = [
        _rendered(nets, part, styles[:, None].expand(-1, rows.stop - rows.start, -1)) for rows, part in _parts(images)
    ]
    return torch.cat(made, dim=1)


def _parts(images: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows that go through the networks together, and their images; on a CPU the last are filled up to the number."""
    few = max(1, _PIXELS_ON_CPU // images.shape[-1] ** 2) if images.device.type == "cpu" else len(images)
    for start in range(0, len(images), few):
        part = images[start : start + few].contiguous()  # rounding depends on the layout too
        rows = slice(start, start + len(part))
        if len(part) < few:
            part = torch.cat([part, part[-1:].expand(few - len(part), -1, -1, -1)])
        yield rows, part


def _rendered(nets: GenerativeNetworks, images: Tensor, styles: Tensor) -> Tensor:
    """Images in styles (K×b×D_s), where b may be fewer than images: float32 (K×b×3×S×S)."""
    count = styles.shape[1]
    if count < len(images):
        styles = torch.cat([styles, styles[:, -1:].expand(-1, len(images) - count, -1)], dim=1)
    content = nets.content(images)
    return torch.stack([nets.render(content, style, images)[:count].clamp(-1, 1) for style in styles])
