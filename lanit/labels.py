"""Pseudo labels from similarities: METHOD §1, the one implementation of every rule.

What decides labels is written in operators that NumPy arrays and torch's tensors share: training has tensors, and a
stored image is labelled without importing torch. Arguments of one call are all of one kind, and so is what it returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lanit.errors import LanitError
from lanit.linear_head import LinearHead, as_array, top_k
from lanit.rules import Rule as Rule

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Array = Any
"""A NumPy array, or a tensor of torch."""


def similarity(images: Array, texts: Array) -> Array:
    """Cosine similarities f (B×N) of unit-norm image (B×k) and text (N×k) embeddings."""
    return images @ texts.T


def margin(images: Array, domains: Array, base: Array) -> Array:
    """f_n − f_base, float (B×N), as one product: v̄ · (ū_n − ū_base) (METHOD 1).

    images: unit-norm (B×k); domains: unit-norm (N×k); base: unit-norm (k).
    """
    return images @ (domains - base).T


def adaptive(margins: Array, offsets: Array | None = None) -> Array:
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

    domains: Array
    base: Array
    offsets: Array
    weights: Array
    scale: float = 1.0

    def margins(self, images: Array) -> Array:
        """f_n − f_base, float (B×N), of unit-norm embeddings of images (B×k)."""
        return margin(images, self.domains, self.base)

    def active(self, margins: Array) -> Array:
        """Labels under the adaptive threshold, bool (B×N), of margins (B×N)."""
        return adaptive(margins, self.offsets)

    def labels(self, images: Array) -> Array:
        """Labels under the adaptive threshold, bool (B×N), of unit-norm embeddings of images (B×k)."""
        return self.active(self.margins(images))

    def to(self, device: torch.device) -> EmbeddedPrompts:
        """As tensors on ``device``."""
        import torch

        return self._each(lambda values: torch.as_tensor(values, device=device))

    def tensors(self) -> EmbeddedPrompts:
        """As tensors, where they are: arrays become tensors on the CPU."""
        import torch

        return self._each(torch.as_tensor)

    def arrays(self) -> EmbeddedPrompts:
        """As NumPy arrays."""
        return self._each(as_array)

    def moved(self, domains: Array, base: Array) -> EmbeddedPrompts:
        """The same prompts embedded anew, as they are while they learn."""
        return replace(self, domains=domains, base=base)

    def detached(self) -> EmbeddedPrompts:
        """No gradient reaches the texts, which are tensors."""
        return self.moved(self.domains.detach(), self.base.detach())

    def _each(self, convert: Callable[[Array], Array]) -> EmbeddedPrompts:
        domains, base = convert(self.domains), convert(self.base)
        return EmbeddedPrompts(domains, base, convert(self.offsets), convert(self.weights), self.scale)


def decide(
    rule: Rule, margins: Array, similarity_base: Array, offsets: Array | None = None, weights: Array | None = None
) -> Array:
    """Labels, bool (B×N), under ``rule``, from margins (B×N) and f_base (B) alone.

    An offset is subtracted from its domain's margin, whatever the rule. A weight multiplies the margin where domains
    compete, so under top-k and arg-max alone; without either, their order is that of f_n. offsets, weights: float (N).
    Raises LanitError for clusters and labels filled in, which margins do not tell.
    """
    if rule.by_head:
        message = f"{rule.describe()}: these are found in embeddings, not in margins"
        raise LanitError(message, "Label by words: lanit label --prompts FILE.")
    if rule.kind == "given":
        return margins > math.inf
    if rule.kind == "adaptive":
        return adaptive(margins, offsets)
    beyond = margins if offsets is None else margins - offsets
    if rule.kind == "fixed":
        return beyond + similarity_base[:, None] > rule.value
    return top_k(beyond if weights is None else beyond * weights, int(rule.value) if rule.kind == "top-k" else 1)


def assign(
    rule: Rule, images: Array, prompts: EmbeddedPrompts, head: LinearHead | None = None
) -> tuple[Array, Array, Array]:
    """Labels (bool B×N) under ``rule``; margins (float B×N) and f_base (float B) whatever the rule. One product.

    images: unit-norm (B×k). head: of the rules ``clusters`` and ``filled``; what it does not decide, the words do.
    """
    product = _stacked(prompts) @ images.T  # a third faster than its transpose, N being small
    margins, similarity_base = product[:-1].T, product[-1]
    if head is None:
        return decide(rule, margins, similarity_base, prompts.offsets, prompts.weights), margins, similarity_base
    active = head.labels(images)
    if head.columns is not None:
        of_words = prompts.active(margins)
        of_words[:, head.columns] = active
        active = of_words
    return active, margins, similarity_base


def _stacked(prompts: EmbeddedPrompts) -> Array:
    """ū_n − ū_base of every domain, and ū_base below: ((N+1)×k)."""
    parts = [prompts.domains - prompts.base, prompts.base[None]]
    if isinstance(prompts.base, np.ndarray):
        return np.concatenate(parts)
    import torch

    return torch.cat(parts)


def with_slack(active: Tensor) -> Tensor:
    """Append the slack domain ∅, on exactly where no domain is (METHOD 3): (B×N) to (B×(N+1)), same dtype."""
    import torch

    return torch.cat([active, (~active.bool().any(dim=1, keepdim=True)).to(active.dtype)], dim=1)


def exclusive_pairs(active: Tensor) -> Tensor:
    """Which domains the data never show together: bool (N×N), symmetric, false on the diagonal.

    A pair excludes each other where it occurs together in less than a twentieth of the rows that independence would
    lead to expect, and at least five were expected. active: bool (B×N).
    """
    counts = active.float()
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
