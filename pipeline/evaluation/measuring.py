"""Features of real and translated images to the figures of one domain."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from lanit.metrics import (
    CMMD_SCALE,
    Moments,
    copied,
    cosine_distance,
    frechet_distance,
    mean_gaussian,
    mean_kernel,
    moments,
    neighbours,
    resampled_counts,
    spread,
    twins,
)
from pipeline.evaluation.figures import DomainFigures, Figure, Repeats
from pipeline.evaluation.options import EvaluationOptions
from pipeline.evaluation.sample import torch_generator_of

_TWINS, _LEAST = 0.01, 1e-5
"""Two images are almost the same that are nearer than this share of the root mean square distance between two real
images; where those are all alike, than this share of their norm."""

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
    translation leaves as they are, itself not among them. lpips: float64 (n), or none. partner, partner_lpips: float64
    (n), the mean distance of translations to the source's partner, not a number where it has none; or none.
    """

    features: Tensor
    before: Tensor
    clip: Tensor
    clip_before: Tensor
    seen: Seen
    judged: Seen | None
    unchanged: Tensor
    lpips: Tensor | None
    partner: Tensor | None = None
    partner_lpips: Tensor | None = None


@dataclass(frozen=True)
class Left:
    """m sources that carry a domain, once it is removed. seen: bool (m×N), what the model's CLIP sees in them; judged:
    by --judge, where that knows the domain. counts: int64 (bootstrap×m), how often each is drawn."""

    seen: Tensor
    judged: Tensor | None
    counts: Tensor

    def figures(self, domain: int) -> dict[str, Figure]:
        """``left_over``: the share in which the domain is seen all the same."""
        found = {"left_over": self.seen} | ({} if self.judged is None else {"judge_left_over": self.judged})
        return {name: averaged(labels[:, domain], self.counts, 1.0) for name, labels in found.items()}


class RealSide:
    """The real images that carry a domain: features, float (r×d), and what is computed of them once for all guides.

    of_clip: whether the features are CLIP embeddings, of which there is a CMMD.
    """

    def __init__(self, features: Tensor, domain: str, options: EvaluationOptions, *, of_clip: bool = False) -> None:
        self.features = features.double()
        self.domain = domain
        self.moments = moments(features)
        generator = torch_generator_of(options.seed, f"real {domain}")
        self.counts = resampled_counts(len(features), options.bootstrap, generator).to(features.device)
        self.mean_kernel = mean_kernel(self.features, x_counts=self.counts)
        self.mean_gaussian = mean_gaussian(self.features, x_counts=self.counts) if of_clip else None
        apart, norm = 2 * self.moments.covariance.trace(), self.features.square().sum(dim=1).mean()
        self.alike = max(_TWINS * math.sqrt(float(apart)), _LEAST * math.sqrt(float(norm)))
        self.twins = twins(self.features, self.alike)
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


def measure(real: RealSide, made: Made, left: Left | None, counts: Tensor, domain: int,
            options: EvaluationOptions) -> DomainFigures:  # fmt: skip
    """Every figure of translations to ``domain`` (its column). left: none where no source carries it.

    counts: int64 (bootstrap×n), how often each source is drawn: sources are resampled, with all their translations,
    since those of one source are alike; coverage resamples real images. Density and coverage hold the other side fixed.
    """
    images, styles = made.features.shape[:2]
    features = made.features.to(real.features)
    flat = features.flatten(0, 1)
    near = neighbours(real.features, flat, options.neighbours)
    identity = cosine_distance(made.clip, made.clip_before[:, None]).mean(dim=1)
    values = {
        "frechet": bootstrapped_frechet(real, flat, counts.repeat_interleave(styles, dim=1)),
        "density": averaged(near.density.reshape(images, styles).mean(dim=1), counts),
        "coverage": averaged(near.covered, real.counts, 1.0),
        "accuracy_before": Figure(float(made.seen.before[:, domain].double().mean())),
        "identity": averaged(identity, counts),
    }
    values |= bootstrapped_clip_mmd(real, features, counts)
    values |= _recognition(made.seen, made.unchanged, domain, counts) | (left.figures(domain) if left else {})
    if images > 1:
        values["kid"] = bootstrapped_kernel_distance(real, features, counts)
        before = moments(made.before.to(real.features))
        values["frechet_before"] = Figure(frechet_distance(real.moments, before))
    if made.judged is not None and bool(made.judged.known[domain]):
        judged = _recognition(made.judged, made.unchanged, domain, counts)
        values |= {f"judge_{name}": figure for name, figure in judged.items()}
    if styles > 1:
        values["diversity"] = averaged(spread(made.clip), counts)
    if made.lpips is not None:
        values["lpips"] = averaged(made.lpips, counts)
    for name, apart in (("partner", made.partner), ("partner_lpips", made.partner_lpips)):
        paired = None if apart is None else ~apart.isnan()
        if apart is not None and paired is not None and bool(paired.any()):
            values[name] = averaged(apart[paired], counts[:, paired])
    repeats = repeats_of(real, features)
    return DomainFigures(real.domain, len(real.features), images, images * styles, values, repeats)


def repeats_of(real: RealSide, made: Tensor) -> Repeats:
    """made: float64 (n×d), or (n×K×d) of translations of n sources."""
    own = twins(made, real.alike)
    across = copied(made.reshape(-1, made.shape[-1]), real.features, real.alike)
    return Repeats(
        real=float(real.twins.twin.double().mean()),
        made=float(own.twin.double().mean()),
        across=float(across.double().mean()),
        different_real=int(real.twins.first.sum()),
        different_made=int(own.first.sum()),
    )


def bootstrapped_kernel_distance(real: RealSide, made: Tensor, counts: Tensor) -> Figure:
    """KID. made: float64 (n×d), or (n×K×d) of translations of n sources. counts: int64 (bootstrap×n)."""
    within = mean_kernel(made, x_counts=counts)
    between = mean_kernel(real.features, made, real.counts, counts)
    value, *replicates = (real.mean_kernel + within - 2 * between).tolist()
    return Figure(value, tuple(replicates), lowest=-math.inf)


def bootstrapped_clip_mmd(real: RealSide, made: Tensor, counts: Tensor) -> dict[str, Figure]:
    """``cmmd``, where the features are CLIP's. made, counts: as for :func:`bootstrapped_kernel_distance`."""
    if real.mean_gaussian is None:
        return {}
    within = mean_gaussian(made, x_counts=counts)
    between = mean_gaussian(real.features, made, real.counts, counts)
    value, *replicates = (CMMD_SCALE * (real.mean_gaussian + within - 2 * between)).tolist()
    return {"cmmd": Figure(value, tuple(replicates))}


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


def _recognition(seen: Seen, unchanged: Tensor, domain: int, counts: Tensor) -> dict[str, Figure]:
    """``accuracy``: the share of translations in which the domain is seen. ``kept``, where there are other domains that
    translation leaves as they are: the share of those that are seen where they were in the source, and only there."""
    accuracy = averaged(seen.after[:, :, domain].double().mean(dim=1), counts, 1.0)
    compared = (unchanged & seen.known).double()  # n×N
    same = (seen.after == seen.before[:, None]).double().mean(dim=1)
    entries, right = compared.sum(dim=1), (same * compared).sum(dim=1)
    if not bool(entries.any()):
        return {"accuracy": accuracy}
    weights = counts.double()
    replicates = weights @ right / (weights @ entries)
    kept = Figure(float(right.sum() / entries.sum()), tuple(replicates.tolist()), 1.0)
    return {"accuracy": accuracy, "kept": kept}
