"""Mutual information of the labels of two views of an image: what can be learned with no label at all.

Two crops of an image show the same things, so a label that one tells of the other says something about the image
(Ji, Henriques and Vedaldi, 2019). Of binary labels it is not enough: nothing forbids two phrases the same answer, so
that has a price, and nothing forbids a label that is never on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lanit.ranks import ALONE, Ranks

REDUNDANCY_PRICE = 3.0
REDUNDANCY_FREE = 0.1
"""Correlation up to which two labels may go together at no price."""

LEAST_SHARE = 0.02
"""A label that is on less than this share of the images has a price."""

_TINY = 1e-8


def binary_information(first: Tensor, second: Tensor) -> Tensor:
    """I_n, in nats, (N): of the labels of two views, whose probabilities are ``first`` and ``second``, float (B×N).

    The joint distribution of the two is made symmetric, since neither view comes first.
    """
    both, neither = (first * second).mean(dim=0), ((1 - first) * (1 - second)).mean(dim=0)
    apart = (1 - both - neither) / 2
    on = both + apart
    cells = torch.stack([both, apart, apart, neither])
    expected = torch.stack([on * on, on * (1 - on), on * (1 - on), (1 - on) * (1 - on)])
    return (cells * ((cells + _TINY).log() - (expected + _TINY).log())).sum(dim=0)


def redundancy(probabilities: Tensor) -> Tensor:
    """How far labels say the same, a scalar: (1/N) Σ_{n≠m} max(0, φ_nm − τ)², φ their correlation over (B×N)."""
    centred = probabilities - probabilities.mean(dim=0)
    spread = centred.square().mean(dim=0)
    product = (spread[:, None] * spread[None, :] + _TINY**2).sqrt()
    phi = centred.T @ centred / len(centred) / product
    beyond = (phi - REDUNDANCY_FREE).clamp(min=0).square()
    return (beyond.sum() - beyond.diagonal().sum()) / len(phi)


def label_loss(first: Tensor, second: Tensor) -> Tensor:
    """What learning prompts makes small: −(1/N) Σ I_n, the price of redundancy, and that of labels hardly ever on.

    first, second: probabilities of the labels of two views, float (B×N).
    """
    both = torch.cat([first, second])
    rare = (1 - both.mean(dim=0) / LEAST_SHARE).clamp(min=0).square()
    return REDUNDANCY_PRICE * redundancy(both) + rare.sum() - binary_information(first, second).mean()


def cluster_information(first: Tensor, second: Tensor, counts: Tensor | None = None, ranks: Ranks = ALONE) -> Tensor:
    """I(P), in nats, a scalar: of the clusters of two views, P = sym(mean_b p(x_b) p(x'_b)ᵀ) (Ji et al., 2019).

    first, second: probabilities of K clusters, float (B×K), each row summing to 1. At most log K. counts: float (B), 0
    for rows that are left out; all count where it is none, and nothing is told by no row. With ``ranks``, P is that of
    the whole batch, and gradients are such that their mean over the processes is that of one.
    """
    if counts is None:
        joint = first.T @ second / len(first)
    else:
        joint = (first * counts[:, None]).T @ second / ranks.mean(counts.sum()).clamp(min=1 / ranks.count)
    if ranks.count > 1:
        joint = joint + (ranks.mean(joint) - joint.detach())
    joint = ((joint + joint.T) / 2).clamp(min=_TINY)
    joint = joint / joint.sum()
    margin = joint.sum(dim=0)
    return (joint * (joint.log() - margin.log()[:, None] - margin.log()[None, :])).sum()
