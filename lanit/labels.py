"""Pseudo labels from similarities: METHOD §1, the one implementation of every rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lanit.errors import LanitError
from lanit.heads import LinearHead
from lanit.rules import Rule as Rule


def similarity(images: Tensor, texts: Tensor) -> Tensor:
    """Cosine similarities f (B×N) of unit-norm image (B×k) and text (N×k) embeddings."""
    return images @ texts.T


def margin(images: Tensor, domains: Tensor, base: Tensor) -> Tensor:
    """f_n − f_base, float (B×N), as one product: v̄ · (ū_n − ū_base) (METHOD 1).

    images: unit-norm (B×k); domains: unit-norm (N×k); base: unit-norm (k).
    """
    return images @ (domains - base).T


def adaptive(margins: Tensor, offsets: Tensor | None = None) -> Tensor:
    """Bool (B×N): true where naming the domain describes the image better than not naming it (METHOD 1).

    offsets: float (N), the margins that it takes; 0 unless given.
    """
    return margins > (0 if offsets is None else offsets)


@dataclass(frozen=True)
class EmbeddedPrompts:
    """Prompts as CLIP sees them: what every label, every edit and the domain loss are decided by (METHOD §1).

    domains: ū, unit-norm float32 (N×k); base: ū_base (k). offsets: the margins that labels take, and weights: of
    margins that compete, float32 (N) each. scale: α, of CLIP's logits, which labels do without.
    """

    domains: Tensor
    base: Tensor
    offsets: Tensor
    weights: Tensor
    scale: float = 1.0

    def margins(self, images: Tensor) -> Tensor:
        """f_n − f_base, float (B×N), of unit-norm embeddings of images (B×k)."""
        return margin(images, self.domains, self.base)

    def active(self, margins: Tensor) -> Tensor:
        """Labels under the adaptive threshold, bool (B×N), of margins (B×N)."""
        return adaptive(margins, self.offsets)

    def labels(self, images: Tensor) -> Tensor:
        """Labels under the adaptive threshold, bool (B×N), of unit-norm embeddings of images (B×k)."""
        return self.active(self.margins(images))

    def to(self, device: torch.device) -> EmbeddedPrompts:
        domains, base, offsets, weights = (
            tensor.to(device) for tensor in (self.domains, self.base, self.offsets, self.weights)
        )
        return EmbeddedPrompts(domains, base, offsets, weights, self.scale)

    def moved(self, domains: Tensor, base: Tensor) -> EmbeddedPrompts:
        """The same prompts embedded anew, as they are while they learn."""
        return replace(self, domains=domains, base=base)

    def detached(self) -> EmbeddedPrompts:
        """No gradient reaches the texts."""
        return self.moved(self.domains.detach(), self.base.detach())


def top_k(scores: Tensor, k: int) -> Tensor:
    """Bool (B×N): the k largest scores of each row; all of them where k ≥ N (METHOD 2)."""
    chosen = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, chosen, True)


def decide(
    rule: Rule, margins: Tensor, similarity_base: Tensor, offsets: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Labels, bool (B×N), under ``rule``, from margins (B×N) and f_base (B) alone.

    An offset is subtracted from its domain's margin, whatever the rule. A weight multiplies the margin where domains
    compete, so under top-k and arg-max alone; without either, their order is that of f_n. offsets, weights: float (N).
    Raises LanitError for clusters and labels filled in, which margins do not tell.
    """
    if rule.by_head:
        message = f"{rule.describe()}: these are found in embeddings, not in margins"
        raise LanitError(message, "Label by words: lanit label --prompts FILE.")
    if rule.kind == "given":
        return torch.zeros_like(margins, dtype=torch.bool)
    if rule.kind == "adaptive":
        return adaptive(margins, offsets)
    beyond = margins if offsets is None else margins - offsets
    if rule.kind == "fixed":
        return beyond + similarity_base[:, None] > rule.value
    return top_k(beyond if weights is None else beyond * weights, int(rule.value) if rule.kind == "top-k" else 1)


def assign(
    rule: Rule, images: Tensor, prompts: EmbeddedPrompts, head: LinearHead | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (bool B×N) under ``rule``; margins (float B×N) and f_base (float B) whatever the rule. One product.

    images: unit-norm (B×k). head: of the rules ``clusters`` and ``filled``; what it does not decide, the words do.
    """
    texts = torch.cat([prompts.domains - prompts.base, prompts.base[None]])
    product = texts @ images.T  # a third faster than its transpose, N being small
    margins, similarity_base = product[:-1].T, product[-1]
    if head is None:
        return decide(rule, margins, similarity_base, prompts.offsets, prompts.weights), margins, similarity_base
    active = head.labels(images)
    if head.columns is not None:
        active = prompts.active(margins).index_copy(1, head.columns, active)
    return active, margins, similarity_base


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
