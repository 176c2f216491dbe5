"""Prototypes: directions among unit-norm styles that views of an image are to agree on (SwAV, Caron et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lanit.guides import PROTOTYPE_TEMPERATURE
from lanit.ranks import ALONE, Draws, Ranks

_SHARPNESS = 0.05
_ROUNDS = 3
_NOISE = 0.01


@torch.no_grad()
def balanced_assignment(scores: Tensor) -> Tensor:
    """How much of each image belongs to each prototype, (B×K), rows summing to 1, when all prototypes are to have as
    much: Sinkhorn's rounds of exp(scores / 0.05). scores: cosines, float (B×K)."""
    shares = torch.exp((scores - scores.max()) / _SHARPNESS)
    for _ in range(_ROUNDS):
        shares = shares / shares.sum(dim=0, keepdim=True).clamp(min=1e-12)
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return shares


def swapped_loss(first: Tensor, second: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Each view foretells the assignment of the other: ½ Σ over both of the cross-entropy −Σ_k q_k log p_k, mean over
    the batch, p of temperature 0.1. first, second: cosines of two views with the prototypes, float (B×K).

    Assignments balance the whole batch, whose rows the processes share.
    """
    total = first.new_zeros(())
    for known, told in ((first, second), (second, first)):
        wanted = ranks.own(balanced_assignment(ranks.whole(known)))
        total = total - (wanted * F.log_softmax(told / PROTOTYPE_TEMPERATURE, dim=1)).sum(dim=1).mean() / 2
    return total


@torch.no_grad()
def prototype_styles(prototypes: Tensor, rows: int, draws: Draws) -> Tensor:
    """Unit-norm styles (rows×D_s): half are points between two prototypes (K×D_s), the others one with some noise."""
    draw = draws.uniform(rows, 4).T
    noise = _NOISE * draws.normal(rows, prototypes.shape[1])
    one, other = (prototypes[(pick * len(prototypes)).long()] for pick in draw[:2])
    between = torch.lerp(one, other, draw[2, :, None])
    return F.normalize(torch.where(draw[3, :, None] < 0.5, between, one + noise), dim=1)


def content_distance(first: Tensor, second: Tensor) -> Tensor:
    """2 − 2 cos of the contents (B×C×H×W) at each place, mean over places and the batch."""
    return 2 - 2 * F.cosine_similarity(first.float(), second.float(), dim=1).mean()
