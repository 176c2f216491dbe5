"""The figures of a label revision, as records."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from lanit.agreement import NEAR_SYNONYMS as NEAR_SYNONYMS
from lanit.rules import Rule
from pipeline.inspection.scores import Scores
from pipeline.labelling.people_labels import PeopleCounts
from pipeline.store.fill_figures import FillFigures

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
    stability: Cohen's κ of the labels of two crops, stability_low and stability_high: its 95 % interval; None where no
    crops were embedded, and where the label is on all of them, or on none.
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
    stability: float | None = None
    stability_low: float | None = None
    stability_high: float | None = None
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
class Stability:
    """How far the labels of two crops agree beyond chance. images: of which crops were embedded. mean: of κ over the
    domains, as labels are chosen by: a domain that is on all images, or on none, counts as 0."""

    images: int
    mean: float


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
    with the store. fill: of labels filled in from known ones. stability: where crops were embedded. augmented,
    duplicates, scores: where asked for.
    """

    revision: int
    origin: str
    rule: Rule
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
    fill: FillFigures | None = None
    stability: Stability | None = None
    augmented: Augmented | None = None
    duplicates: Duplicates | None = None
    scores: Scores | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and texts; no number is NaN."""
        return dataclasses.asdict(self) | {"rule": self.rule.to_json()}
