"""Labels by a linear head on embeddings, fitted to a few known labels from where the words point.

The words of a domain already are a linear classifier: α·(v̄·(ū_n − ū_base) − o_n), the logit of CLIP's choice between
naming it and not (METHOD §1). A fitted head adds to it what known labels teach::

    z_n = a_n · α(m_n − o_n) + c_n + (v̄ − μ)·δ_n,   a_n ~ N(1, ½²), c_n ~ N(0, 2²), δ_n ~ N(0, σ² I)

the most probable a, c, δ given the labels (logistic regression with a Gaussian prior that is centred at the words).
Without any label z_n has the sign of m_n − o_n, which is LANIT's label; with all of them the prior hardly counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SCALE_SPREAD, SHIFT_SPREAD = 0.5, 2.0
"""Standard deviations of a_n and c_n."""

_STEPS = 200
_ROUGH = 1e-8  # the tolerance where fits are compared

SPREADS = (0.05, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""σ that are tried: from hardly more than scale and shift to hardly a prior."""

FOLDS = 5
_WORSE = 2  # spreads in a row that do worse end the search


@dataclass(frozen=True)
class KnownLabels:
    """What is known of n images. images: v̄ − μ, float32 (n×k). prior: α(m − o), float32 (n×N): of the words, or 0.

    on: float32 (n×N), 0 or 1. counts: float32 (n×N), how much each label counts: 0 where it is not known.
    """

    images: Tensor
    prior: Tensor
    on: Tensor
    counts: Tensor

    def rows(self, chosen: slice) -> KnownLabels:
        return KnownLabels(self.images[chosen], self.prior[chosen], self.on[chosen], self.counts[chosen])

    def without(self, held: Tensor) -> KnownLabels:
        """None of the images in ``held``, bool (n), counts."""
        return KnownLabels(self.images, self.prior, self.on, self.counts * ~held[:, None])


@dataclass(frozen=True)
class Fit:
    """What labels teach of N domains: scale a (N), shift c (N), and delta δ (k×N)."""

    scale: Tensor
    shift: Tensor
    delta: Tensor

    def logits(self, images: Tensor, prior: Tensor) -> Tensor:
        """z (B×N) of images v̄ − μ (B×k) with the prior logits (B×N)."""
        return self.scale * prior + self.shift + images @ self.delta


def fit(known: KnownLabels, spread: float, start: Fit | None = None, tolerance: float = 1e-9) -> Fit:
    """The most probable head of each domain, all at once, as they do not depend on each other.

    spread: σ. start: where the search begins, which saves time. tolerance: it ends where a step betters the loss of a
    label by less. The same arguments give the same head.
    """
    domains, width = known.on.shape[1], known.images.shape[1]
    size = torch.tensor([SCALE_SPREAD, SHIFT_SPREAD, *[spread] * width], dtype=torch.float32)[:, None]
    unit = torch.zeros(width + 2, domains)
    if start is not None:
        unit = torch.cat([(start.scale - 1)[None], start.shift[None], start.delta]) / size
    unit.requires_grad_(True)

    def of(unit: Tensor) -> Fit:
        scale, shift, delta = (unit * size).tensor_split([1, 2])
        return Fit(1 + scale[0], shift[0], delta)

    labels = known.counts.sum().clamp(min=1)

    def loss() -> Tensor:
        logits = of(unit).logits(known.images, known.prior)
        wrong = F.binary_cross_entropy_with_logits(logits, known.on, known.counts, reduction="sum")
        return (wrong + unit.square().sum() / 2) / labels

    search = torch.optim.LBFGS(
        [unit], max_iter=_STEPS, tolerance_grad=tolerance, tolerance_change=tolerance, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        value = loss()
        value.backward()
        return value

    search.step(closure)
    return of(unit.detach())


@dataclass(frozen=True)
class Validated:
    """spread: σ of the least loss on images that were left out of the fit. fits: to the images of the other folds, for
    each fold."""

    spread: float
    fits: list[Fit]


def cross_validate(known: KnownLabels, fold: Tensor) -> Validated:
    """Choose one σ for all domains: one known label of each would be too few to choose by. fold: int64 (n)."""
    best, least, worse = None, float("inf"), 0
    fits: list[Fit | None] = [None] * FOLDS
    for spread in SPREADS:
        loss, found = 0.0, []
        for number in range(FOLDS):
            held = fold == number
            part = fit(known.without(held), spread, fits[number], _ROUGH)
            logits = part.logits(known.images[held], known.prior[held])
            loss += float(
                F.binary_cross_entropy_with_logits(logits, known.on[held], known.counts[held], reduction="sum")
            )
            found.append(part)
        fits = [*found]
        if loss < least:
            best, least, worse = Validated(spread, found), loss, 0
        else:
            worse += 1
        if worse == _WORSE:
            break
    assert best is not None  # a finite loss is below infinity
    return best


def bars(logits: Tensor) -> Tensor:
    """From which logits on labels are on, (N): where the F1 to be expected is largest (Lewis, 1995).

    Of images above the bar a share of Σp is right, p = σ(logit), of Σp over all that ought to be. p = ½ is the bar of
    the fewest errors, under which rare domains label next to nothing. The bar labels no more than twice as many images
    as are to be expected: where nothing tells images apart, labelling all of them has the largest F1.
    logits: (n×N), of all images or a sample.
    """
    ranked = torch.sigmoid(logits).sort(dim=0, descending=True).values.double()
    expected = ranked.sum(dim=0)
    f1 = 2 * ranked.cumsum(dim=0) / (torch.arange(1, len(ranked) + 1)[:, None] + expected)
    most = (2 * expected).round().long().clamp(1, len(ranked)) - 1
    last = torch.minimum(f1.argmax(dim=0), most)
    ordered = logits.sort(dim=0, descending=True).values
    above = ordered.gather(0, last[None])[0]
    below = ordered.gather(0, (last[None] + 1).clamp(max=len(ranked) - 1))[0]
    return torch.where(last + 1 < len(ranked), (above + below) / 2, above - 1)
