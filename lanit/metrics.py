"""Distances between two sets of images by their features (METHOD §6); every sum is in float64.

A feature matrix is float (n×d), one row an image, of whatever extractor; the figures of two extractors are not to be
compared. Nothing here depends on the order of rows, or on how large the batches were that the features came from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lanit.errors import LanitError

_BLOCK_ENTRIES = 1 << 24  # of a block of pairwise distances: 128 MiB in float64
_TINY = 1e-10  # of LPIPS: under the root of a norm


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


def kernel_distance(
    real: Tensor, fake: Tensor, *, subsets: int = 100, subset_size: int = 1000, generator: torch.Generator | None = None
) -> tuple[float, float]:
    """KID: mean and standard deviation over ``subsets`` of the unbiased squared MMD of (x·y / d + 1)³
    (Bińkowski et al., ICLR 2018).

    real (n×d), fake (m×d). subset_size: images drawn from each side for a subset, without replacement, at most as many
    as the smaller side has. generator: of the draws, on the CPU. It may be negative. Raises LanitError for fewer than
    two images a side.
    """
    real, fake = _matrix(real, 2), _matrix(fake, 2)
    size = min(subset_size, len(real), len(fake))
    found = []
    for _ in range(subsets):
        one, other = (rows[_drawn(len(rows), size, generator).to(rows.device)] for rows in (real, fake))
        found.append(_squared_mmd(one, other))
    values = torch.stack(found)
    return float(values.mean()), float(values.std(correction=0))


def _drawn(rows: int, size: int, generator: torch.Generator | None) -> Tensor:
    return torch.randperm(rows, generator=generator)[:size]


def _squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """x, y: float64 (m×d) each. The pairs of a row with itself are left out, which makes it unbiased."""
    count, width = x.shape
    within = sum(_kernel(each, each, width).fill_diagonal_(0).sum() for each in (x, y)) / (count * (count - 1))
    return within - 2 * _kernel(x, y, width).mean()


def _kernel(x: Tensor, y: Tensor, width: int) -> Tensor:
    return (x @ y.T / width + 1) ** 3


class Neighbours(NamedTuple):
    """density: float64 (m), for each generated image the real balls that it lies in, over k. covered: bool (n), whether
    the ball of a real image holds a generated one."""

    density: Tensor
    covered: Tensor


def neighbours(real: Tensor, fake: Tensor, k: int = 5) -> Neighbours:
    """The terms of density and coverage, before they are averaged (Naeem et al., ICML 2020).

    The ball of a real image reaches to its k-th nearest real neighbour, itself not counted. real (n×d), fake (m×d).
    Raises LanitError where n ≤ k or m is 0. Memory stays bounded, whatever n and m.
    """
    real, fake = _matrix(real, k + 1), _matrix(fake, 1)
    inside = torch.zeros(len(fake), dtype=torch.float64, device=real.device)
    covered = []
    for start, block in _blocks(real, max(len(real), len(fake))):
        among = _squared_distances(block, real)
        among[torch.arange(len(block)), torch.arange(start, start + len(block))] = 0.0
        radius = among.kthvalue(k + 1, dim=1, keepdim=True).values
        within = _squared_distances(block, fake) < radius
        inside += within.sum(dim=0)
        covered.append(within.any(dim=1))
    return Neighbours(inside / k, torch.cat(covered))


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage of features real (n×d) and fake (m×d): means of :func:`neighbours`."""
    found = neighbours(real, fake, k)
    return float(found.density.mean()), float(found.covered.double().mean())


def _blocks(rows: Tensor, width: int) -> Iterator[tuple[int, Tensor]]:
    size = max(1, _BLOCK_ENTRIES // width)
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size]


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    squares = (x * x).sum(dim=1, keepdim=True) + (y * y).sum(dim=1) - 2 * (x @ y.T)
    return squares.clamp_min_(0)


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
    Values that are not finite do not count; without any, both ends are the estimate.
    """
    kept = torch.tensor([value for value in replicates if math.isfinite(value)], dtype=torch.float64)
    if not len(kept):
        return estimate, estimate
    tail = (1 - level) / 2
    low, high = torch.quantile(kept - kept.mean(), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return estimate + low, estimate + high


def _matrix(features: Tensor, least: int) -> Tensor:
    """Features as float64 (n×d). Raises LanitError where there are fewer rows than ``least``, or one is not finite."""
    if features.ndim != 2 or len(features) < least:
        shape = "×".join(map(str, features.shape))
        raise LanitError(f"features of shape {shape} are too few: at least {least} images are needed", "Add images.")
    values = features.double()
    if not bool(values.isfinite().all()):
        raise LanitError("a feature is not finite", "Embed the images anew, in float32.")
    return values
