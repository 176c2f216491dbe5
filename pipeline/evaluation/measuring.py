"""Features of real and translated images to the figures of one domain."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from lanit.metrics import (
    Moments,
    cosine_distance,
    frechet_distance,
    kernel_distance,
    moments,
    neighbours,
    resampled_counts,
    spread,
)
from pipeline.evaluation.figures import DomainFigures, Figure
from pipeline.evaluation.options import EvaluationOptions
from pipeline.evaluation.sample import torch_generator_of

_KEPT_ENTRIES = 1 << 26  # of covariances of bootstrap samples: 512 MiB


@dataclass(frozen=True)
class Seen:
    """What a judge saw: bool. before: (n×N), in the sources. after: (n×K×N), in their translations. known: (N), the
    domains that it can see."""

    before: Tensor
    after: Tensor
    known: Tensor


@dataclass(frozen=True)
class Made:
    """n sources and their translations to a domain.

    features: float32 (n×K×d), of the extractor; before: (n×d), of the sources. clip, clip_before: CLIP embeddings,
    (n×K×k) and (n×k). seen: by the model's CLIP; judged: by --judge. unchanged: bool (n×N), the domains that
    translation leaves as they are, itself not among them. lpips: float64 (n), or none.
    """

    features: Tensor
    before: Tensor
    clip: Tensor
    clip_before: Tensor
    seen: Seen
    judged: Seen | None
    unchanged: Tensor
    lpips: Tensor | None


class RealSide:
    """The real images that carry a domain: features, float (r×d), and what is computed of them once for all guides."""

    def __init__(self, features: Tensor, domain: str, options: EvaluationOptions) -> None:
        self.features = features.double()
        self.domain = domain
        self.moments = moments(features)
        generator = torch_generator_of(options.seed, f"real {domain}")
        self.counts = resampled_counts(len(features), options.bootstrap, generator).to(features.device)
        self._kept: dict[int, Moments] = {}
        self._most_kept = _KEPT_ENTRIES // features.shape[1] ** 2

    def replicate(self, number: int) -> Moments:
        """Moments of a bootstrap sample."""
        found = self._kept.get(number)
        if found is None:
            found = moments(self.features, self.counts[number])
            if len(self._kept) < self._most_kept:
                self._kept[number] = found
        return found


def measure(real: RealSide, made: Made, counts: Tensor, domain: int, options: EvaluationOptions) -> DomainFigures:
    """Every figure of translations to ``domain`` (its column).

    counts: int64 (bootstrap×n), how often each source is drawn: sources are resampled, with all their translations,
    since those of one source are alike; coverage resamples real images. Density and coverage hold the other side fixed.
    """
    images, styles = made.features.shape[:2]
    flat = made.features.flatten(0, 1).to(real.features)
    generator = torch_generator_of(options.seed, f"kid {real.domain}")
    kid, kid_spread = kernel_distance(
        real.features, flat, subsets=options.subsets, subset_size=options.subset_size, generator=generator
    )
    near = neighbours(real.features, flat, options.neighbours)
    accuracy, kept = _recognition(made.seen, made.unchanged, domain, counts)
    judge_accuracy: Figure | None = None
    judge_kept: Figure | None = None
    if made.judged is not None and bool(made.judged.known[domain]):
        judge_accuracy, judge_kept = _recognition(made.judged, made.unchanged, domain, counts)
    identity = cosine_distance(made.clip, made.clip_before[:, None]).mean(dim=1)
    return DomainFigures(
        domain=real.domain,
        real=len(real.features),
        sources=images,
        translations=images * styles,
        frechet=bootstrapped_frechet(real, flat, counts.repeat_interleave(styles, dim=1)),
        frechet_before=frechet_distance(real.moments, moments(made.before.to(real.features))) if images > 1 else None,
        kid=kid,
        kid_spread=kid_spread,
        density=averaged(near.density.reshape(images, styles).mean(dim=1), counts),
        coverage=averaged(near.covered, real.counts, 1.0),
        accuracy=accuracy,
        accuracy_before=float(made.seen.before[:, domain].double().mean()),
        kept=kept,
        identity=averaged(identity, counts),
        diversity=averaged(spread(made.clip), counts) if styles > 1 else None,
        lpips=None if made.lpips is None else averaged(made.lpips, counts),
        judge_accuracy=judge_accuracy,
        judge_kept=judge_kept,
    )


def bootstrapped_frechet(real: RealSide, features: Tensor, counts: Tensor) -> Figure:
    """features: float64 (m×d). counts: int64 (bootstrap×m)."""
    replicates = [
        frechet_distance(real.replicate(number), moments(features, each.to(features.device)))
        if int(each.sum()) > 1
        else math.nan
        for number, each in enumerate(counts)
    ]
    return Figure(frechet_distance(real.moments, moments(features)), tuple(replicates))


def averaged(values: Tensor, counts: Tensor, highest: float = math.inf) -> Figure:
    """The mean of values (n), and of the bootstrap samples of them that counts (replicates×n) give."""
    values, weights = values.double().cpu(), counts.double().cpu()
    return Figure(float(values.mean()), tuple((weights @ values / weights.sum(dim=1)).tolist()), highest)


def _recognition(seen: Seen, unchanged: Tensor, domain: int, counts: Tensor) -> tuple[Figure, Figure | None]:
    """Accuracy, and attribute preservation where any other domain can be preserved."""
    accuracy = averaged(seen.after[:, :, domain].double().mean(dim=1), counts, 1.0)
    compared = (unchanged & seen.known).double()  # n×N
    same = (seen.after == seen.before[:, None]).double().mean(dim=1)
    entries, right = compared.sum(dim=1), (same * compared).sum(dim=1)
    if not bool(entries.any()):
        return accuracy, None
    weights = counts.double()
    replicates = weights @ right / (weights @ entries)
    return accuracy, Figure(float(right.sum() / entries.sum()), tuple(replicates.tolist()), 1.0)
