"""Stage ``inspect-labels``: a label revision to statistics, scores against known truth, and warnings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanit.errors import UsageError
from pipeline.inspection.compare import Comparison, compare_labels, write_flips
from pipeline.inspection.label_statistics import LabelStatistics
from pipeline.inspection.scores import keys_of, score
from pipeline.inspection.stability import with_rule_stability, with_stability
from pipeline.inspection.statistics import summarise
from pipeline.inspection.warnings import with_warnings
from pipeline.labelling.image_folders import folders_of_paths, image_folders
from pipeline.labelling.known_labels import FOLDERS, Truth, folder_truth, read_truth
from pipeline.labelling.label_sources import told
from pipeline.labelling.people import read_people
from pipeline.labelling.people_labels import PeopleCounts, apply_people
from pipeline.stability.agreements import read_view_labels

if TYPE_CHECKING:
    from pipeline.inspection.rules_table import RuleOutcome
    from pipeline.progress import Progress
    from pipeline.store.label_revisions import Labels, RevisionFile
    from pipeline.store.store import Store

_OF_OTHERS = "these labels are of other images than the store holds now: label them again, by lanit label"


@dataclass(frozen=True)
class InspectOptions:
    """What to look at. revision: none for the newest. truth: a file, or ``folders``. rules: as ``--rules`` has them.

    compare: two revisions, of which the second is reported on; flips: a CSV file for what differs.
    augment: images to mirror and crop, 0 for none.
    duplicates: whether to look for near-duplicates. epsilon: see :func:`inspect_labels`. seed: of what is drawn.
    clip, clip_architecture: the CLIP for ``augment``, the store's unless named; device: where it works.
    """

    revision: int | None = None
    truth: str | None = None
    rules: str | None = None
    compare: tuple[int, int] | None = None
    augment: int = 0
    duplicates: bool = False
    epsilon: float | None = None
    seed: int = 0
    clip: str | None = None
    clip_architecture: str | None = None
    flips: Path | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Inspection:
    """What ``lanit inspect-labels`` found. rules: side by side, where asked for; comparison: with another revision."""

    revision: RevisionFile
    truth: Truth | None
    statistics: LabelStatistics
    rules: tuple[RuleOutcome, ...]
    comparison: Comparison | None

    def to_json(self) -> dict[str, Any]:
        return self.statistics.to_json() | {
            "rules": [outcome.to_json() for outcome in self.rules],
            "comparison": self.comparison.to_json() if self.comparison else None,
        }


def inspect_store(store: Store, options: InspectOptions, progress: Progress | None = None) -> Inspection:
    """Report on a revision of ``store``.

    Reads the revision and the ids of the images alone, unless the options ask for what needs more: images and CLIP
    (augment), embeddings (duplicates). progress: of these. Raises LanitError where revisions, truth or images do not
    fit.
    """
    if options.compare is not None and options.revision is not None:
        raise UsageError("--compare names the revisions itself", "Leave --revision out.")
    if options.flips is not None and options.compare is None:
        raise UsageError("--csv is for the labels that flipped between two revisions", "Add --compare A B.")
    revision = store.revision_file(options.compare[1] if options.compare else options.revision)
    earlier = store.revision_file(options.compare[0]) if options.compare else None
    truth = truth_of(revision, options.truth, store) if options.truth is not None else None
    people = people_of(store, revision)
    statistics = inspect_labels(revision, epsilon=options.epsilon, truth=truth, people=people)
    rules: tuple[RuleOutcome, ...] = ()
    if options.rules is not None:
        from pipeline.inspection.rules_table import (  # torch, which the plain report does without
            compare_rules,
            parse_rules,
        )

        rules = compare_rules(revision, parse_rules(options.rules), truth)
    crops = read_view_labels(store, revision)
    if crops is not None:
        statistics = with_stability(statistics, crops.agreements())
        rules = with_rule_stability(rules, crops, revision)
    if options.augment:
        from pipeline.inspection.flips import count_flips
        from pipeline.store.store_clip import clip_of

        clip = clip_of(store, options.clip, options.clip_architecture, options.device)
        statistics = count_flips(store, revision, clip, options.augment, options.seed, progress).added_to(statistics)
    if options.duplicates:
        from pipeline.inspection.duplicates import with_duplicates
        from pipeline.searching.duplicates import find_duplicates

        statistics = with_duplicates(statistics, find_duplicates(store, progress=progress))
    comparison = None
    if earlier is not None:
        comparison = compare_labels(earlier, revision)
        if options.flips is not None:
            write_flips(earlier, revision, options.flips)
    if not store.is_current(revision):
        statistics = dataclasses.replace(statistics, warnings=(_OF_OTHERS, *statistics.warnings))
    return Inspection(revision, truth, statistics, rules, comparison)


def inspect_labels(
    revision: Labels, *, epsilon: float | None = None, truth: Truth | None = None, people: PeopleCounts | None = None
) -> LabelStatistics:
    """Summarise a revision, with warnings, and score it where the truth is known.

    epsilon: margins this close to where labels begin are ambiguous; by default a share of their spread.
    people: labels by people that are kept with the store.
    """
    statistics = dataclasses.replace(summarise(revision, epsilon), people=people or PeopleCounts())
    if truth is not None:
        statistics = dataclasses.replace(statistics, scores=score(revision, truth))
    return with_warnings(statistics)


def people_of(store: Store, revision: Labels) -> PeopleCounts:
    """What people said that counts for ``revision``, and whether it shows it."""
    people = read_people(store)
    if not people.kept:
        return PeopleCounts()
    applied = apply_people(people, store, revision.domains)
    if not store.is_current(revision):
        return applied.counts
    missing = 0
    for block in revision.blocks(active=True, human=True):
        said = applied.values(block.start, block.rows, len(revision.domains))
        missing += int(((said >= 0) & ~(block.human & (block.active == (said == 1)))).sum())
    return dataclasses.replace(applied.counts, not_in_revision=missing)


def truth_of(revision: Labels, source: str, store: Store | None = None) -> Truth:
    """The truth that ``--truth`` names: a table (:func:`pipeline.labelling.known_labels.read_truth`), or ``folders``,
    the folders that the images lie in.

    store: that of the revision, which knows the images' full names; without it folders are those of paths alone.
    """
    keys = keys_of(revision)
    if source == FOLDERS and not Path(source).is_file():
        return folder_truth(folders_of_paths(*keys) if store is None else image_folders(store), revision.domains)
    return told(read_truth(Path(source), revision.domains), store, keys)
