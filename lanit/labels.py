"""Pseudo labels from similarities: METHOD §1, the one implementation of every rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lanit.errors import UsageError

RuleKind = Literal["adaptive", "top-k", "fixed", "argmax"]


@dataclass(frozen=True)
class Rule:
    """How similarities become labels.

    kind: ``adaptive`` (f_n > f_base, METHOD 1), ``top-k`` (the ``value`` largest f_n),
        ``fixed`` (f_n > ``value``) or ``argmax`` (one-hot).
    value: K for top-k, a cosine for fixed, unused otherwise.
    """

    kind: RuleKind = "adaptive"
    value: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(RuleKind):
            raise UsageError(f"unknown rule '{self.kind}'", f"Choose one of {', '.join(get_args(RuleKind))}.")
        if self.kind == "top-k" and (self.value < 1 or self.value != int(self.value)):
            raise UsageError(f"top-k needs a whole number of at least 1, not {self.value:g}", "Try --k 2.")
        if self.kind == "fixed" and not -1 <= self.value <= 1:
            raise UsageError(f"a cosine threshold lies between -1 and 1, not {self.value:g}", "Try --threshold 0.25.")


def similarity(images: Tensor, texts: Tensor) -> Tensor:
    """Cosine similarities f (B×N) of unit-norm image (B×k) and text (N×k) embeddings."""
    return images @ texts.T


def margin(images: Tensor, domains: Tensor, base: Tensor) -> Tensor:
    """f_n − f_base, float (B×N), as one product: v̄ · (ū_n − ū_base) (METHOD 1).

    images: unit-norm (B×k); domains: unit-norm (N×k); base: unit-norm (k).
    """
    return images @ (domains - base).T


def adaptive(margins: Tensor) -> Tensor:
    """Bool (B×N): true where naming the domain describes the image better than not naming it (METHOD 1)."""
    return margins > 0


def top_k(similarities: Tensor, k: int) -> Tensor:
    """Bool (B×N): the k largest similarities of each row; all of them where k ≥ N (METHOD 2)."""
    chosen = similarities.topk(min(k, similarities.shape[1]), dim=1).indices
    return torch.zeros_like(similarities, dtype=torch.bool).scatter_(1, chosen, True)


def assign(rule: Rule, images: Tensor, domains: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (bool B×N) under ``rule``, and margins (float B×N) whatever the rule."""
    margins = margin(images, domains, base)
    if rule.kind == "adaptive":
        return adaptive(margins), margins
    similarities = similarity(images, domains)
    if rule.kind == "fixed":
        return similarities > rule.value, margins
    return top_k(similarities, int(rule.value) if rule.kind == "top-k" else 1), margins


def with_slack(active: Tensor) -> Tensor:
    """Append the slack domain ∅, on exactly where no domain is (METHOD 3): (B×N) to (B×(N+1)), same dtype."""
    return torch.cat([active, (~active.bool().any(dim=1, keepdim=True)).to(active.dtype)], dim=1)


def exclusive_pairs(active: Tensor) -> Tensor:
    """Which domains the data never show together: bool (N×N), symmetric, false on the diagonal.

    A pair excludes each other where it occurs together in less than a twentieth of the rows that independence would
    lead to expect, and at least five were expected. active: bool (B×N).
    """
    counts = active.to(torch.float32)
    together = counts.T @ counts
    alone = counts.sum(dim=0)
    expected = alone[:, None] * alone[None, :] / max(len(active), 1)
    excluded = (expected >= 5) & (together < expected / 20)
    return excluded.fill_diagonal_(False)


def edit(active: Tensor, add: Tensor, remove: Tensor, exclusive: Tensor) -> Tensor:
    """Labels after adding and removing domains; what cannot stand beside an added domain gives way to it.

    active: bool (B×N); add, remove: bool (N) or (B×N); exclusive: bool (N×N). Returns bool (B×N).
    """
    added = add.expand_as(active)
    displaced = (added.float() @ exclusive.float()) > 0
    return (active & ~displaced & ~remove) | added
