"""Distances between two sets of images by their features (METHOD §6); every sum is in float64.

A feature matrix is float (n×d), one row an image, of whatever extractor; the figures of two extractors are not to be
compared. Nothing here depends on the order of rows, or on how large the batches were that the features came from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lanit.errors import LanitError

_BLOCK_ENTRIES = 1 << 24  # of a block of pairwise distances: 128 MiB in float64
_TINY = 1e-10  # of LPIPS: under the root of a norm
_ROUNDING = 2e-6  # of a feature's norm: by less than that, float32 features of one image differ from batch to batch


class Moments(NamedTuple):
    """mean: float64 (d). covariance: float64 (d×d), unbiased."""

    mean: Tensor
    covariance: Tensor


def moments(features: Tensor, counts: Tensor | None = None) -> Moments:
    """Mean and covariance of features (n×d), on their device.

    counts: whole numbers (n), how often each row counts, once unless given: a bootstrap sample without a copy.
    Raises LanitError for fewer than two rows.
    """
    values = _matrix(features, 2)
    weights = values.new_ones(len(values)) if counts is None else counts.to(values)
    total = weights.sum()
    mean = weights @ values / total
    centred = values - mean
    return Moments(mean, (centred * weights[:, None]).T @ centred / (total - 1))


def frechet_distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """|μ_a − μ_b|² + Tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½) of two :func:`moments` (Heusel et al., NeurIPS 2017).

    Tr (Σ_a Σ_b)^½ = Σ_i λ_i^½ over the eigenvalues of Σ_a^½ Σ_b Σ_a^½, which is symmetric: no complex root, no ridge on
    the diagonal, and covariances of fewer images than features are as good as any. Not below 0.
    """
    (mean_a, covariance_a), (mean_b, covariance_b) = a, b
    difference = mean_a.double() - mean_b.double()
    values, vectors = torch.linalg.eigh(covariance_a.double())
    root = vectors * values.clamp_min(0).sqrt()  # Σ_a = root rootᵀ, and root has the eigenvalues of Σ_a^½
    mixed = torch.linalg.eigvalsh(root.T @ covariance_b.double() @ root)
    trace = covariance_a.double().trace() + covariance_b.double().trace() - 2 * mixed.clamp_min(0).sqrt().sum()
    return max(float(difference @ difference + trace), 0.0)


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """KID: the unbiased squared MMD of the kernel (x·y / d + 1)³, over all pairs (Bińkowski et al., ICLR 2018).

    real (n×d), fake (m×d). The mean over subsets, as which KID is often computed, estimates this very number. It may
    be negative, as it is about half the time where both sides are alike. Raises LanitError for fewer than two images a
    side.
    """
    return float(mean_kernel(real) + mean_kernel(fake) - 2 * mean_kernel(real, fake))


def mean_kernel(
    x: Tensor, y: Tensor | None = None, x_counts: Tensor | None = None, y_counts: Tensor | None = None
) -> Tensor:
    """Mean of (x·y / d + 1)³ over all pairs of a row of ``x`` and one of ``y``: the terms of :func:`kernel_distance`.

    x, y: (n×d), or (n×K×d) of K images a row that depend on each other. Without ``y`` the pairs are those of two rows
    of ``x``: none of a row with itself, nor with a copy that a bootstrap sample holds of it. x_counts, y_counts: whole
    numbers (B×n), (B×m), how often each row counts in each of B bootstrap samples. Returns float64 (1+B): of the rows
    as they are, then of the samples; nan where a sample has no pair. Memory stays bounded, whatever n and m.

    Resampled so, the interval of KID is a little too narrow below about 50 images, and too wide (never too narrow)
    where both sides are alike: the statistic is degenerate there (Arcones & Giné, Annals of Statistics 1992).
    """
    return _mean_over_pairs(_cubic, x, y, x_counts, y_counts, with_itself=False)


def clip_mmd(real: Tensor, fake: Tensor) -> float:
    """CMMD: 1000 times the squared MMD of unit-norm CLIP embeddings under exp(−|x − y|² / 2σ²), σ = 10.

    As published (Jayasumana et al., CVPR 2024) and in their code, it is the biased estimate: pairs of a row with itself
    count, and it is not below 0. real (n×d), fake (m×d); theirs are of CLIP ViT-L/14 at 336 px, and figures of another
    CLIP are not to be compared with them.
    """
    return float(mean_gaussian(real) + mean_gaussian(fake) - 2 * mean_gaussian(real, fake)) * CMMD_SCALE


CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0


def mean_gaussian(
    x: Tensor, y: Tensor | None = None, x_counts: Tensor | None = None, y_counts: Tensor | None = None
) -> Tensor:
    """Mean of exp(−|x − y|² / 2σ²) over all pairs of rows, those of a row with itself among them: the terms of
    :func:`clip_mmd`. Arguments and result as those of :func:`mean_kernel`."""
    return _mean_over_pairs(_gaussian, x, y, x_counts, y_counts, with_itself=True)


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    kernel = (x @ y.T).div_(x.shape[1]).add_(1)
    return (kernel * kernel).mul_(kernel)


def _gaussian(x: Tensor, y: Tensor) -> Tensor:
    return _squared_distances(x, y).div_(-2 * CMMD_SIGMA**2).exp_()


def _mean_over_pairs(
    kernel_of: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor | None,
    x_counts: Tensor | None,
    y_counts: Tensor | None,
    *,
    with_itself: bool,
) -> Tensor:
    """See :func:`mean_kernel`. with_itself: whether a row is paired with itself, and with its copies in a sample."""
    own = y is None
    rows, x_weights = _grouped(x, x_counts, 2 if own and not with_itself else 1)
    others, y_weights = (rows, x_weights) if y is None else _grouped(y, y_counts, 1)
    total = rows.new_zeros(len(x_weights))
    flat = others.flatten(0, 1)
    for start, block in _blocks(rows, rows.shape[1] * len(flat)):
        kernel = kernel_of(block.flatten(0, 1), flat)
        kernel = kernel.reshape(len(block), rows.shape[1], len(others), -1).mean(dim=(1, 3))
        here = torch.arange(len(block), device=rows.device)
        if own and not with_itself:
            kernel[here, here + start] = 0
        total += ((x_weights[:, start : start + len(block)] @ kernel) * y_weights).sum(dim=1)
    pairs = x_weights.sum(dim=1) * y_weights.sum(dim=1)
    return total / (pairs - x_weights.square().sum(dim=1) if own and not with_itself else pairs)


def _grouped(features: Tensor, counts: Tensor | None, least: int) -> tuple[Tensor, Tensor]:
    """Features as float64 (n×K×d); weights of the rows, float64 (1+B×n), the first all one."""
    groups = features[:, None] if features.ndim == 2 else features
    values = _matrix(groups.flatten(0, 1), least).unflatten(0, groups.shape[:2])
    if len(values) < least:
        raise _too_few(features, least)
    weights = values.new_ones(1, len(values))
    return values, weights if counts is None else torch.cat([weights, counts.to(weights)])


class Neighbours(NamedTuple):
    """density: float64 (m), for each generated image the real balls that it lies in, over k. covered: bool (n), whether
    the ball of a real image holds a generated one."""

    density: Tensor
    covered: Tensor


def neighbours(real: Tensor, fake: Tensor, k: int = 5) -> Neighbours:
    """The terms of density and coverage, before they are averaged (Naeem et al., ICML 2020).

    The ball of a real image reaches to its k-th nearest real neighbour, itself not counted, and holds what is strictly
    nearer, as theirs does: of the real images k, itself counted. Distances that differ by rounding alone are equal.
    Where several neighbours are equally far, fewer than k are strictly nearer: what is missing is shared among those on
    the rim, so that a copy of the real images always has a density of 1 and a coverage of 1, even if all of them have
    twins and no ball has a radius. Where no two distances are equal nothing lies on the rim.

    real (n×d), fake (m×d). Raises LanitError where n ≤ k or m is 0. Memory stays bounded, whatever n and m.
    """
    real, fake = _matrix(real, k + 1), _matrix(fake, 1)
    slack = _ROUNDING * real.square().sum(dim=1).mean().sqrt()
    inside = torch.zeros(len(fake), dtype=torch.float64, device=real.device)
    covered = []
    for start, block in _blocks(real, max(len(real), len(fake))):
        among = _distances(block, real)
        among[torch.arange(len(block)), torch.arange(start, start + len(block))] = 0.0
        radius = among.kthvalue(k + 1, dim=1, keepdim=True).values
        nearer, rim = among < radius - slack, (among - radius).abs() <= slack
        share = (k - nearer.sum(dim=1, keepdim=True)).double() / rim.sum(dim=1, keepdim=True)
        to_fake = _distances(block, fake)
        held = (to_fake < radius - slack).double() + share * ((to_fake - radius).abs() <= slack)
        inside += held.sum(dim=0)
        covered.append((held > 0).any(dim=1))
    return Neighbours(inside / k, torch.cat(covered))


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage of features real (n×d) and fake (m×d): means of :func:`neighbours`."""
    found = neighbours(real, fake, k)
    return float(found.density.mean()), float(found.covered.double().mean())


def _blocks(rows: Tensor, width: int) -> Iterator[tuple[int, Tensor]]:
    size = max(1, _BLOCK_ENTRIES // width)
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size]


def _distances(x: Tensor, y: Tensor) -> Tensor:
    return _squared_distances(x, y).sqrt_()


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    squares = (x * x).sum(dim=1, keepdim=True) + (y * y).sum(dim=1) - 2 * (x @ y.T)
    return squares.clamp_min_(0)


class Twins(NamedTuple):
    """twin: bool (n), whether another image of the set is almost the same. first: bool (n), whether none before it is:
    so many different images there are."""

    twin: Tensor
    first: Tensor


def twins(features: Tensor, within: float) -> Twins:
    """Which images have another one at a distance of at most ``within``; features (n×d), or (n×K×d) of K images a row
    that are not compared with each other."""
    groups = features[:, None] if features.ndim == 2 else features
    flat = _matrix(groups.flatten(0, 1), 1)
    group = torch.arange(len(flat), device=flat.device) // groups.shape[1]
    twin, first = [], []
    for start, block in _blocks(flat, len(flat)):
        own = group[start : start + len(block), None]
        alike = (_distances(block, flat) <= within) & (own != group)
        twin.append(alike.any(dim=1))
        first.append(~(alike & (group < own)).any(dim=1))
    return Twins(torch.cat(twin), torch.cat(first))


def copied(fake: Tensor, real: Tensor, within: float) -> Tensor:
    """Which images of ``fake`` (m×d) have one of ``real`` (n×d) at a distance of at most ``within``: bool (m)."""
    fake, real = _matrix(fake, 1), _matrix(real, 1)
    return torch.cat([(_distances(block, real) <= within).any(dim=1) for _, block in _blocks(fake, len(real))])


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 − cos, float64 (…), of features (…×d) of any length but 0."""
    a, b = a.double(), b.double()
    return 1 - (a * b).sum(dim=-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def spread(features: Tensor) -> Tensor:
    """Mean :func:`cosine_distance` over the pairs of each group's K rows: float64 (B) of features (B×K×d), K ≥ 2."""
    unit = features.double() / features.double().norm(dim=-1, keepdim=True)
    groups, count, _ = unit.shape
    total = unit.sum(dim=1).square().sum(dim=-1)  # Σ_ij u_i · u_j, the diagonal being count
    return (1 - (total - count) / (count * (count - 1))).reshape(groups)


def perceptual_distance(a: Sequence[Tensor], b: Sequence[Tensor], heads: Sequence[Tensor]) -> Tensor:
    """LPIPS, float32 (B), of what each layer of a network says of two images (Zhang et al., CVPR 2018).

    a, b: for each layer its activations, float (B×C_l×H_l×W_l), as :func:`unit_channels` scales them. heads: float
    (C_l) each, the learned weight of every channel.
    """
    parts = [
        torch.einsum("bchw,c->bhw", (one - other).square(), head).mean(dim=(1, 2))
        for one, other, head in zip(a, b, heads, strict=True)
    ]
    return torch.stack(parts).sum(dim=0)


def unit_channels(activations: Tensor) -> Tensor:
    """Activations (B×C×H×W) divided by their norm over the channels of each place."""
    return activations / (activations.square().sum(dim=1, keepdim=True) + _TINY).sqrt()


def resampled_counts(rows: int, replicates: int, generator: torch.Generator | None = None) -> Tensor:
    """How often each of ``rows`` is drawn in each bootstrap sample of as many: int64 (replicates×rows)."""
    drawn = torch.randint(rows, (replicates, rows), generator=generator)
    return torch.zeros(replicates, rows, dtype=torch.int64).scatter_add_(1, drawn, torch.ones_like(drawn))


def interval(estimate: float, replicates: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """The range of an estimate that bootstrap ``replicates`` of it give, moved so that their mean is the estimate.

    Moved, because a sample with repeated rows has a larger Fréchet distance and a smaller coverage than one without:
    that shift comes from drawing twice, not from chance. The bias of a small sample itself is therefore not in it.
    Of B values, a share q lies below the q (B + 1)-th. Values that are not finite do not count; without any, both ends
    are the estimate.
    """
    kept = torch.tensor([value for value in replicates if math.isfinite(value)], dtype=torch.float64)
    if not len(kept):
        return estimate, estimate
    tail = max((1 - level) / 2 * (len(kept) + 1) - 1, 0.0) / max(len(kept) - 1, 1)
    low, high = torch.quantile(kept - kept.mean(), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return estimate + low, estimate + high


def _matrix(features: Tensor, least: int) -> Tensor:
    """Features as float64 (n×d). Raises LanitError where there are fewer rows than ``least``, or one is not finite."""
    if features.ndim != 2 or len(features) < least:
        raise _too_few(features, least)
    values = features.double()
    if not bool(values.isfinite().all()):
        raise LanitError("a feature is not finite", "Embed the images anew, in float32: lanit embed --precision fp32.")
    return values


def _too_few(features: Tensor, least: int) -> LanitError:
    shape = "×".join(map(str, features.shape))
    return LanitError(f"features of shape {shape} are too few: at least {least} images are needed", "Add images.")
