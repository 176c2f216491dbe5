"""What ``lanit label`` reports: the labels it made, or would make, looked at as ``lanit inspect-labels`` does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lanit.errors import LanitError
from lanit.labels import Rule
from pipeline.inspection.compare import Comparison, compare_labels
from pipeline.inspection.inspect_labels import inspect_labels
from pipeline.inspection.label_statistics import LabelStatistics
from pipeline.labelling.label import HowToLabel, Labelled, label, trial
from pipeline.labelling.people_labels import PeopleCounts
from pipeline.progress import Progress
from pipeline.prompts.nearest_words import LearnedWord

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.prompts.prompt_sets import PromptSet
    from pipeline.store.label_revisions import RevisionFile
    from pipeline.store.store import Store


@dataclass(frozen=True)
class LabelReport:
    """What ``lanit label`` did, or would do in a dry run; then ``revision`` is 0.

    created: false in a dry run, and where the newest revision already says exactly this.
    images = labelled + unlabelled + failed; failed: images without an embedding, which carry no label.
    unknown_words: words of the prompts that this CLIP never saw, where it says so. chance: phrases that tell no more
    than chance. warnings: sentences about the images.
    human: labels that people set, on or off. people: labels by people, here and elsewhere. not_in_store: rows of the
    labels given that name no image here. comparison: with the newest revision, in a dry run.
    learned: what learned prompts are near to; else empty.
    """

    revision: int
    created: bool
    dry_run: bool
    images: int
    labelled: int
    unlabelled: int
    failed: int
    prompt_set: str
    unknown_words: tuple[str, ...]
    chance: tuple[str, ...]
    warnings: tuple[str, ...]
    human: int
    people: PeopleCounts
    not_in_store: int
    statistics: LabelStatistics
    comparison: Comparison | None
    learned: tuple[LearnedWord, ...]

    def to_json(self) -> dict[str, Any]:
        nested = ("unknown_words", "chance", "warnings", "people", "statistics", "comparison", "learned")
        values = {name: value for name, value in vars(self).items() if name not in nested}
        return values | {
            "unknown_words": list(self.unknown_words),
            "chance": list(self.chance),
            "warnings": list(self.warnings),
            "people": asdict(self.people),
            "statistics": self.statistics.to_json(),
            "comparison": self.comparison.to_json() if self.comparison else None,
            "learned": [asdict(word) for word in self.learned],
        }


def label_and_report(
    store: Store,
    clip: ClipModel,
    prompts: PromptSet,
    how: HowToLabel | Rule,
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
) -> LabelReport:
    """Label ``store`` (:func:`pipeline.labelling.label.label`) and look at the labels.

    dry_run: write nothing; compare with the newest revision instead, where there is one.
    """
    if not dry_run:
        return _report(label(store, clip, prompts, how, progress), None, dry_run=False)
    newest = _newest(store)
    with trial(store, clip, prompts, how, progress) as made:
        return _report(made, compare_labels(newest, made.file) if newest else None, dry_run=True)


def _report(made: Labelled, comparison: Comparison | None, *, dry_run: bool) -> LabelReport:
    statistics = inspect_labels(made.file, people=made.people)
    return LabelReport(
        revision=made.revision,
        created=made.created,
        dry_run=dry_run,
        images=made.images,
        labelled=made.file.rows - statistics.label_counts[0],
        unlabelled=statistics.label_counts[0],
        failed=made.failed,
        prompt_set=made.file.prompt_set.name,
        unknown_words=made.unknown_words,
        chance=made.chance,
        warnings=made.warnings,
        human=statistics.human,
        people=made.people,
        not_in_store=made.not_in_store,
        statistics=statistics,
        comparison=comparison,
        learned=made.learned,
    )


def _newest(store: Store) -> RevisionFile | None:
    """The newest revision that can be read, if there is one."""
    try:
        return store.revision_file()
    except LanitError:
        return None
