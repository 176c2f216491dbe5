"""Statistics of a label revision, in two passes over its file and in memory that does not grow with it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lanit.errors import UsageError
from pipeline.inspection.label_counts import LabelCounts
from pipeline.inspection.margin_statistics import MarginPasses, MarginStatistics
from pipeline.inspection.scores import Scores
from pipeline.inspection.warnings import warnings_of
from pipeline.labelling.people_labels import PeopleCounts

if TYPE_CHECKING:
    from pipeline.store.label_revisions import Labels

DEFAULT_EPSILON_SHARE = 0.1
"""The default ε is this share of the standard deviation of all margins: margins of different CLIPs differ in scale
(0.01 is much for OpenAI's, little for a small model), and about a twelfth of normally spread margins falls within."""

NEAR_SYNONYMS = 0.8
"""Two prompts whose labels correlate (φ) this strongly or more say the same of nearly every image. φ rather than the
share of labels in common, which is high between any two prompts that fire nearly always."""

MOST_PAIRS = 100
"""Pairs of near-synonyms that are listed: among many prompts there are as many as the square of their number."""

MOST_TOGETHER = 100
"""Domains whose labels are counted in pairs, at most: those of the most images."""

MINIMUM_IMAGES = 100
"""The fewest images of a domain worth training on: the smallest sets that Zhao et al. (Differentiable Augmentation for
Data-Efficient GAN Training, NeurIPS 2020) learn to generate from scratch, and that needs their augmentation."""


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
    labels. offset, weight: of the prompt file. human: labels of it that people set, on or off; human_differ: those that
    the rule would have set otherwise, None where it does not say (labels as given, clusters).
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
    human_differ: int | None = None
    mirror_flips: float | None = None
    crop_flips: float | None = None


@dataclass(frozen=True)
class NearSynonyms:
    """Two prompts that label nearly the same images: φ of at least ``NEAR_SYNONYMS``."""

    first: str
    second: str
    phi: float


@dataclass(frozen=True)
class Alike:
    """Prompts that all label nearly the same images as the first of them. phi: the lowest correlation with it."""

    prompts: tuple[str, ...]
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
    cooccurrence: images with both labels, on the diagonal with the one, M×M of the domains ``cooccurrence_of`` (their
    numbers): all, or the ``MOST_TOGETHER`` of the most images, in order. near_synonyms: the ``MOST_PAIRS`` that are
    most alike, of near_synonym_pairs in all; alike: all of them, in groups. smallest: the domain with the fewest
    images; minimum: the fewest worth training on.
    human: labels that people set; human_differ: see :class:`DomainStatistics`. people: labels by people that are kept
    with the store. augmented, duplicates, scores: where asked for.
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
    cooccurrence_of: tuple[int, ...] = ()
    near_synonym_pairs: int = 0
    alike: tuple[Alike, ...] = ()
    human: int = 0
    human_differ: int | None = None
    people: PeopleCounts = field(default_factory=PeopleCounts)
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
    domains = revision.domains
    counts = LabelCounts(revision)
    passes = MarginPasses(revision.rows, len(domains), lambda: (block.margin for block in revision.blocks(margin=True)))
    for block in revision.blocks(active=True, margin=True, human=revision.has_human, base=revision.has_human):
        passes.add(block.margin)
        counts.add(block)
    margins = passes.finish(revision.prompt_set.offsets, epsilon, DEFAULT_EPSILON_SHARE)
    images = counts.images
    per_image = np.trim_zeros(counts.labels_per_image, "b")
    smallest = int(np.argmin(counts.active))
    largest = np.sort(np.argsort(-counts.active, kind="stable")[:MOST_TOGETHER])
    groups = counts.near_groups(NEAR_SYNONYMS)
    pairs, total = counts.near_pairs(NEAR_SYNONYMS, MOST_PAIRS)
    return LabelStatistics(
        revision=revision.number,
        origin=revision.origin,
        rule=dict(revision.rule),
        images=images,
        domains=tuple(_domains(revision, counts, margins)),
        coverage=1 - int(per_image[0]) / images,
        slack_share=int(per_image[0]) / images,
        labels_per_image=int(counts.active.sum()) / images,
        label_counts=tuple(int(count) for count in per_image),
        epsilon=margins.epsilon,
        warnings=(),
        histogram_edges=margins.edges,
        cooccurrence=tuple(tuple(row) for row in counts.together[np.ix_(largest, largest)].tolist()),
        cooccurrence_of=tuple(largest.tolist()),
        near_synonyms=tuple(NearSynonyms(domains[b], domains[a], phi) for a, b, phi in pairs),
        near_synonym_pairs=total,
        alike=tuple(Alike(tuple(domains[n] for n in group), phi) for group, phi in groups),
        smallest=domains[smallest],
        smallest_count=int(counts.active[smallest]),
        human=int(counts.human.sum()),
        human_differ=None if counts.differ is None else int(counts.differ.sum()),
    )


def _domains(revision: Labels, counts: LabelCounts, margins: MarginStatistics) -> Iterator[DomainStatistics]:
    prompts = revision.prompt_set
    for n, (domain, (other, phi)) in enumerate(zip(prompts.domains, counts.companions(), strict=True)):
        count, only = int(counts.active[n]), int(counts.only[n])
        companion = None
        if phi > 0:
            share = int(counts.together[n, other]) / count
            lift = share * counts.images / int(counts.active[other])
            companion = Companion(prompts.domains[other], share, lift, phi)
        p5, p50, p95 = margins.percentiles[n]
        yield DomainStatistics(
            domain=domain,
            count=count,
            share=count / counts.images,
            mean_margin=float(margins.mean[n]),
            mean_margin_labelled=float(counts.labelled_margin[n]) / count if count else None,
            ambiguous_share=int(margins.ambiguous[n]) / counts.images,
            margin_p5=p5,
            margin_p50=p50,
            margin_p95=p95,
            histogram=tuple(margins.histograms[n].tolist()),
            only_count=only,
            only_share=only / count if count else None,
            companion=companion,
            offset=prompts.offsets[n],
            weight=prompts.weights[n],
            human=int(counts.human[n]),
            human_differ=None if counts.differ is None else int(counts.differ[n]),
        )
