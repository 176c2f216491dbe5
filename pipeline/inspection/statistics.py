"""Statistics of a label revision, in two passes over its file and in memory that does not grow with it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lanit.errors import UsageError
from pipeline.inspection.margin_statistics import FirstPass, SecondPass
from pipeline.inspection.scores import Scores
from pipeline.inspection.warnings import warnings_of

if TYPE_CHECKING:
    from pipeline.store.label_revisions import LabelBlock, Labels

DEFAULT_EPSILON_SHARE = 0.1
"""The default ε is this share of the standard deviation of all margins: margins of different CLIPs differ in scale
(0.01 is much for OpenAI's, little for a small model), and about a twelfth of normally spread margins falls within."""

NEAR_SYNONYMS = 0.8
"""Two prompts whose labels correlate (φ) this strongly or more say the same of nearly every image. φ rather than the
share of labels in common, which is high between any two prompts that fire nearly always."""

MINIMUM_IMAGES = 100
"""The fewest images of a domain worth training on: the smallest sets that Zhao et al. (Differentiable Augmentation for
Data-Efficient GAN Training, NeurIPS 2020) learn to generate from scratch, and that needs their augmentation."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Companion:
    """The domain that goes with another most: of the largest φ among those with φ > 0.

    share: of the other's images that carry it too. lift: how many times as often as among all images.
    phi: correlation of the two columns of labels, −1 to 1.
    """

    domain: str
    share: float
    lift: float
    phi: float


@dataclass(frozen=True)
class DomainStatistics:
    """One prompt. share: of all images. mean_margin: f_n − f_base over all images; mean_margin_labelled: over those it
    labels, None where it labels none. ambiguous_share: of all images, with |f_n − f_base − offset| < ε.

    margin_p5, margin_p50, margin_p95: percentiles over all images, exact. histogram: images in each bin of
    ``LabelStatistics.histogram_edges``. only_count: images on which it is the only label; only_share: of those it
    labels. offset, weight: of the prompt file. human: labels of it that people set, on or off.
    mirror_flips, crop_flips: share of a sample of images whose label changes; None where not asked for.
    """

    domain: str
    count: int
    share: float
    mean_margin: float
    mean_margin_labelled: float | None
    ambiguous_share: float
    margin_p5: float
    margin_p50: float
    margin_p95: float
    histogram: tuple[int, ...]
    only_count: int
    only_share: float | None
    companion: Companion | None
    offset: float = 0.0
    weight: float = 1.0
    human: int = 0
    mirror_flips: float | None = None
    crop_flips: float | None = None


@dataclass(frozen=True)
class NearSynonyms:
    """Two prompts that label nearly the same images: φ of at least ``NEAR_SYNONYMS``."""

    first: str
    second: str
    phi: float


@dataclass(frozen=True)
class Augmented:
    """What flips were counted on. images: sampled and read; failed: sampled, but gone or damaged by now."""

    images: int
    failed: int
    seed: int


@dataclass(frozen=True)
class Leak:
    """Two splits of the store, such as folders train and test. groups: of near-duplicates with images in both."""

    first: str
    second: str
    groups: int


@dataclass(frozen=True)
class Duplicates:
    """What ``lanit duplicates`` finds in the whole store, in short. share: of the images, those it could do without."""

    threshold: float
    groups: int
    exact_copies: int
    near_copies: int
    share: float
    leaks: tuple[Leak, ...]


@dataclass(frozen=True)
class LabelStatistics:
    """What ``lanit inspect-labels`` reports.

    coverage: share of images with at least one label; slack_share: the rest (METHOD 3).
    labels_per_image: their mean; label_counts[i]: number of images with i labels, i from 0 to the largest.
    epsilon: a label is ambiguous where its margin lies this close to where labels begin.
    histogram_edges: B+1 margins, the same for all domains; 0 is one of them where margins have both signs.
    cooccurrence: N×N, images with both labels, on the diagonal with the one.
    smallest: the domain with the fewest images; minimum: the fewest worth training on.
    human: labels that people set. augmented, duplicates, scores: where asked for.
    """

    revision: int
    origin: str
    rule: dict[str, Any]
    images: int
    domains: tuple[DomainStatistics, ...]
    coverage: float
    slack_share: float
    labels_per_image: float
    label_counts: tuple[int, ...]
    epsilon: float
    warnings: tuple[str, ...]
    histogram_edges: tuple[float, ...]
    cooccurrence: tuple[tuple[int, ...], ...]
    near_synonyms: tuple[NearSynonyms, ...]
    smallest: str
    smallest_count: int
    minimum: int = MINIMUM_IMAGES
    human: int = 0
    augmented: Augmented | None = None
    duplicates: Duplicates | None = None
    scores: Scores | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and texts; no number is NaN."""
        return dataclasses.asdict(self)

    def with_warnings(self) -> LabelStatistics:
        """The same with the warnings that its figures call for."""
        return dataclasses.replace(self, warnings=tuple(warnings_of(self)))


def summarise(revision: Labels, epsilon: float | None = None) -> LabelStatistics:
    """The statistics of a revision of n images and N domains, without warnings.

    epsilon: where given, in units of the cosine; by default ``DEFAULT_EPSILON_SHARE`` of the spread of all margins.
    """
    if epsilon is not None and not (math.isfinite(epsilon) and epsilon >= 0):
        raise UsageError(f"--epsilon must be a number of at least 0, not {epsilon:g}", "Leave it out for the default.")
    margins, counts = FirstPass(len(revision.domains)), _Counts(len(revision.domains))
    for block in revision.blocks(active=True, margin=True, human=revision.has_human):
        margins.add(block.margin)
        counts.add(block)
        if revision.has_human:
            counts.human += block.human.sum(axis=0)
    if epsilon is None:
        epsilon = DEFAULT_EPSILON_SHARE * margins.spread()
    second = SecondPass(margins, revision.prompt_set.offsets, epsilon)
    for block in revision.blocks(margin=True):
        second.add(block.margin)
    images = counts.images
    per_image = np.trim_zeros(counts.labels_per_image, "b")
    smallest = int(np.argmin(counts.active))
    return LabelStatistics(
        revision=revision.number,
        origin=revision.origin,
        rule=dict(revision.rule),
        images=images,
        domains=tuple(_domain(revision, n, counts, margins, second) for n in range(len(revision.domains))),
        coverage=1 - int(per_image[0]) / images,
        slack_share=int(per_image[0]) / images,
        labels_per_image=int(counts.active.sum()) / images,
        label_counts=tuple(int(count) for count in per_image),
        epsilon=epsilon,
        warnings=(),
        histogram_edges=second.edges,
        cooccurrence=tuple(tuple(int(count) for count in row) for row in counts.together),
        near_synonyms=_near_synonyms(revision.domains, counts),
        smallest=revision.domains[smallest],
        smallest_count=int(counts.active[smallest]),
        human=int(counts.human.sum()),
    )


class _Counts:
    """Counts of labels: of each domain, on its own, of each pair, of each image."""

    def __init__(self, domains: int) -> None:
        self.images = 0
        self.only: Ints = np.zeros(domains, np.int64)
        self.human: Ints = np.zeros(domains, np.int64)
        self.labelled_margin = np.zeros(domains)
        self.together: Ints = np.zeros((domains, domains), np.int64)
        self.labels_per_image: Ints = np.zeros(domains + 1, np.int64)

    def add(self, block: LabelBlock) -> None:
        active = block.active
        per_image = active.sum(axis=1)
        numbers = active.astype(np.float32)  # counts in a block of at most 2^16 rows are exact
        self.images += block.rows
        self.labels_per_image += np.bincount(per_image, minlength=len(self.labels_per_image))
        self.together += (numbers.T @ numbers).astype(np.int64)
        self.only += active[per_image == 1].sum(axis=0)
        self.labelled_margin += (block.margin * numbers).sum(axis=0, dtype=np.float64)

    @property
    def active(self) -> Ints:
        return np.diagonal(self.together)

    def phi(self) -> NDArray[np.float64]:
        """Correlation of every two columns of labels, (N×N); 0 where one of them is constant."""
        share = self.active / self.images
        covariance = self.together / self.images - np.outer(share, share)
        spread = np.sqrt(share * (1 - share))
        product = np.outer(spread, spread)
        return np.divide(covariance, product, out=np.zeros_like(covariance), where=product > 0)


def _domain(revision: Labels, n: int, counts: _Counts, first: FirstPass, second: SecondPass) -> DomainStatistics:
    count, only = int(counts.active[n]), int(counts.only[n])
    p5, p50, p95 = second.percentiles(n)
    return DomainStatistics(
        domain=revision.domains[n],
        count=count,
        share=count / counts.images,
        mean_margin=float(first.mean()[n]),
        mean_margin_labelled=float(counts.labelled_margin[n]) / count if count else None,
        ambiguous_share=int(second.ambiguous[n]) / counts.images,
        margin_p5=p5,
        margin_p50=p50,
        margin_p95=p95,
        histogram=tuple(int(images) for images in second.histograms[n]),
        only_count=only,
        only_share=only / count if count else None,
        companion=_companion(revision.domains, n, counts),
        offset=revision.prompt_set.offsets[n],
        weight=revision.prompt_set.weights[n],
        human=int(counts.human[n]),
    )


def _companion(domains: tuple[str, ...], n: int, counts: _Counts) -> Companion | None:
    phi = counts.phi()[n]
    phi[n] = 0
    other = int(np.argmax(phi))
    if phi[other] <= 0:
        return None
    share = int(counts.together[n, other]) / int(counts.active[n])
    return Companion(domains[other], share, share * counts.images / int(counts.active[other]), float(phi[other]))


def _near_synonyms(domains: tuple[str, ...], counts: _Counts) -> tuple[NearSynonyms, ...]:
    phi = counts.phi()
    pairs = [(a, b) for a in range(len(domains)) for b in range(a) if phi[a, b] >= NEAR_SYNONYMS]
    pairs.sort(key=lambda pair: -phi[pair])
    return tuple(NearSynonyms(domains[b], domains[a], float(phi[a, b])) for a, b in pairs)
