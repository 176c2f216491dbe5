"""Losses of methods that learn styles and clusters without labels: each a function of tensors that gives a scalar."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lanit.ranks import ALONE, Ranks


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """−log of the share of its own key: mean_b −log(exp(q_b·k_b/τ) / (exp(q_b·k_b/τ) + Σ_j exp(q_b·n_j/τ))).

    Van den Oord et al., 2018; with a queue of negatives He et al., CVPR 2020. queries, keys: unit-norm float (B×D);
    negatives: (Q×D).
    """
    own = (queries * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([own, queries @ negatives.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def known_class_loss(logits: Tensor, known: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Cross-entropy over the rows whose class people know. logits: float (B×K). known: int64 (B), −1 for the others."""
    loss = F.cross_entropy(logits, known, ignore_index=-1, reduction="sum")
    return loss / ranks.mean((known >= 0).sum().to(loss)).clamp(min=1 / ranks.count)


def known_classes(labels: Tensor, human: Tensor | None) -> Tensor:
    """The class that people named, int64 (B), −1 where they named none, or several. labels, human: bool (B×K)."""
    if human is None:
        return labels.new_full((len(labels),), -1, dtype=torch.int64)
    named = labels & human
    return torch.where(named.sum(dim=1) == 1, named.int().argmax(dim=1), -1)


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """mean max(0, 1 − D(x)) + mean max(0, 1 + D(x̂)), of the logit of each image's own cluster, float (B)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def own_logit(logits: Tensor, clusters: Tensor) -> Tensor:
    """The logit (B) of each image's cluster, int64 (B), of logits (B×K)."""
    return logits.gather(1, clusters[:, None])[:, 0]
