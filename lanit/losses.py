"""Losses as free functions: METHOD §3. Labels d are bool or float (B×N); every result is a scalar tensor.

Where several processes share a batch (``ranks``), the mean of their results is the result of the whole batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lanit.ranks import ALONE, Draws, Ranks

DomainForm = Literal["margin", "cosine"]


def _over_active(values: Tensor, labels: Tensor, ranks: Ranks) -> Tensor:
    """Mean of ``values`` (B×N) over the active entries of the whole batch; zero where none is."""
    mask = labels.to(values.dtype)
    return (values * mask).sum() / ranks.mean(mask.sum()).clamp(min=1 / ranks.count)


def discriminator_loss(
    real: Tensor, real_labels: Tensor, fake: Tensor, fake_labels: Tensor, ranks: Ranks = ALONE
) -> Tensor:
    """softplus(−D_n(x)) over d^x + softplus(D_n(x̂)) over d^y (METHOD 5). Logits float (B×N)."""
    return _over_active(F.softplus(-real), real_labels, ranks) + _over_active(F.softplus(fake), fake_labels, ranks)


def adversarial_loss(fake: Tensor, labels: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """softplus(−D_n(x̂)) over d^y, non-saturating (METHOD 5)."""
    return _over_active(F.softplus(-fake), labels, ranks)


def gradient_penalty(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
    """R1, ½‖∇_x D‖² averaged over the batch (METHOD 6; Mescheder et al., 2018).

    logits: D(images), float (B×N), with its graph; images: (B×3×S×S) that require gradients.
    """
    judged = (logits * labels.to(logits.dtype)).sum()
    (gradient,) = torch.autograd.grad(judged, images, create_graph=True)
    return 0.5 * gradient.float().square().flatten(1).sum(dim=1).mean()


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference, in float32: cycle (METHOD 7), style reconstruction (8), diversity (9)."""
    return F.l1_loss(a.float(), b.float())


def flip_one(labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Draw one active domain per row and flip it off (METHOD 10).

    labels: bool (B×N), without the slack domain. Where the drawn domain was the only one, a random other domain is
    switched on; where none is active (the slack domain), a random domain is drawn and flipped on.
    Returns the drawn n (int64 B) and d_inv (bool B×N).
    """
    rows, domains = labels.shape
    draw = draws.uniform(rows, domains)
    drawn = (draw + labels).argmax(dim=1)  # an active entry is worth more than any inactive one
    flipped = labels.scatter(1, drawn[:, None], ~labels.gather(1, drawn[:, None]))
    if domains == 1:
        return drawn, flipped
    other = (draw - 2.0 * labels).argmax(dim=1)
    empty = ~flipped.any(dim=1, keepdim=True)
    chosen = torch.zeros_like(labels).scatter_(1, other[:, None], True)  # unlike one_hot, it reads no value
    return drawn, flipped | (empty & chosen)


def domain_loss(margins: Tensor, drawn: Tensor, labels: Tensor, scale: Tensor | float) -> Tensor:
    """BCE(d_n, p_n) of the drawn domain, p_n = σ(α (f_n − f_base)), one term of METHOD 10.

    margins: float (B×N); drawn: int64 (B); labels: bool (B×N); scale: α.
    """
    logit = margins.gather(1, drawn[:, None]).float() * scale
    return F.binary_cross_entropy_with_logits(logit, labels.gather(1, drawn[:, None]).float())


def domain_loss_active(margins: Tensor, labels: Tensor, scale: Tensor | float, ranks: Ranks = ALONE) -> Tensor:
    """BCE(1, p_n) over every active domain of the batch rather than one drawn per image.

    Ours, not the paper's one draw (METHOD 10): less variance, for small batches and short runs.
    """
    return _over_active(F.softplus(-margins.float() * scale), labels, ranks)


def domain_loss_cosine(similarities: Tensor, drawn: Tensor, labels: Tensor) -> Tensor:
    """The paper's H(d, f) on raw cosines, for reproduction (METHOD 10): −log f_n where d_n, −log(1 − f_n) elsewhere.

    similarities: float (B×N) in [-1, 1]; clamped to [1e-6, 1 − 1e-6], since a cosine is no probability.
    """
    chosen = similarities.gather(1, drawn[:, None]).float().clamp(1e-6, 1 - 1e-6)
    return F.binary_cross_entropy(chosen, labels.gather(1, drawn[:, None]).float())
