"""Statistics of a label revision, in two passes over its file and in memory that does not grow with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lanit.errors import UsageError
from pipeline.inspection.label_counts import LabelCounts
from pipeline.inspection.label_statistics import (
    NEAR_SYNONYMS,
    Alike,
    Companion,
    DomainStatistics,
    LabelStatistics,
    NearSynonyms,
)
from pipeline.inspection.margin_statistics import MarginPasses, MarginStatistics

if TYPE_CHECKING:
    from pipeline.store.label_revisions import Labels

DEFAULT_EPSILON_SHARE = 0.1
"""The default ε is this share of the standard deviation of all margins: margins of different CLIPs differ in scale
(0.01 is much for OpenAI's, little for a small model), and about a twelfth of normally spread margins falls within."""


MOST_PAIRS = 100
"""Pairs of near-synonyms that are listed: among many prompts there are as many as the square of their number."""

MOST_TOGETHER = 100
"""Domains whose labels are counted in pairs, at most: those of the most images."""


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
        rule=revision.rule,
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
        fill=revision.fill,
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
