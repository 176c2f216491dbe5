"""What ``lanit label`` reports: the labels it made, or would make, looked at as ``lanit inspect-labels`` does."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lanit.errors import LanitError, UsageError
from lanit.rules import Rule
from pipeline.inspection.compare import Comparison, compare_labels
from pipeline.inspection.inspect_labels import inspect_labels
from pipeline.inspection.label_statistics import LabelStatistics
from pipeline.inspection.stability import with_stability
from pipeline.labelling.label import HowToLabel, Labelled, label, trial
from pipeline.labelling.people_labels import PeopleCounts
from pipeline.labelling.people_offsets import RefittedOffset, refit_offsets_of, with_refitted
from pipeline.progress import Progress
from pipeline.prompts.embed_prompts import prompt_vectors
from pipeline.showing import console
from pipeline.stability.agreements import keep_view_labels, label_views
from pipeline.stability.choices import (
    GAIN,
    OffsetChoice,
    TemplateChoice,
    choose_offsets,
    compare_templates,
    with_offsets,
    with_templates,
)
from pipeline.stability.views import PATIENCE, Stabilise, Views, read_views

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.prompts.nearest_words import LearnedWord
    from pipeline.prompts.prompt_sets import PromptSet
    from pipeline.stability.prompt_learning import PromptLearning
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
    learned: what learned prompts are near to; else empty. templates: how stable labels are in others, where that was
    looked at; template_chosen: whether those of the revision were chosen among them. offsets: those that were chosen.
    refitted: offsets fitted to what people said, taken or not. learning: what came of learning prompts.
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
    templates: TemplateChoice | None = None
    template_chosen: bool = False
    offsets: tuple[OffsetChoice, ...] = ()
    refitted: tuple[RefittedOffset, ...] = ()
    learning: PromptLearning | None = None

    def to_json(self) -> dict[str, Any]:
        nested = (
            "unknown_words", "chance", "warnings", "people", "statistics", "comparison", "learned", "templates",
            "offsets", "refitted", "learning",
        )  # fmt: skip
        values = {name: value for name, value in vars(self).items() if name not in nested}
        return values | {
            "unknown_words": list(self.unknown_words),
            "chance": list(self.chance),
            "warnings": list(self.warnings),
            "people": asdict(self.people),
            "statistics": self.statistics.to_json(),
            "comparison": self.comparison.to_json() if self.comparison else None,
            "learned": [asdict(word) for word in self.learned],
            "templates": self.templates.to_json() if self.templates else None,
            "offsets": [asdict(choice) for choice in self.offsets],
            "refitted": [asdict(each) for each in self.refitted],
            "learning": self.learning.to_json() if self.learning else None,
        }


_PLAIN = Stabilise()


def label_and_report(
    store: Store,
    clip: ClipModel,
    prompts: PromptSet,
    how: HowToLabel | Rule,
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
    stabilise: Stabilise = _PLAIN,
) -> LabelReport:
    """Label ``store`` (:func:`pipeline.labelling.label.label`) and look at the labels.

    dry_run: write no revision; compare with the newest instead, where there is one. Raises LanitError too where
    something is to be chosen by crops, and there are too few images for it.
    """
    how = HowToLabel(how) if isinstance(how, Rule) else how
    look = _Look(store, clip, how, stabilise, progress)
    chosen = look.chosen(prompts)
    if not dry_run:
        made = label(store, clip, chosen.prompts, how, progress)
        if chosen.learning is not None and chosen.learning.accepted:
            from pipeline.stability.prompt_learning import keep_learned_prompts

            keep_learned_prompts(store, chosen.prompts)
        return look.at(made, chosen, _report(made, None, dry_run=False))
    newest = _newest(store)
    with trial(store, clip, chosen.prompts, how, progress) as made:
        report = _report(made, compare_labels(newest, made.file) if newest else None, dry_run=True)
        return look.at(made, chosen, report)


@dataclass(frozen=True)
class _Chosen:
    """Prompts to label by, and what was compared to choose their templates and offsets."""

    prompts: PromptSet
    templates: TemplateChoice | None = None
    offsets: tuple[OffsetChoice, ...] = ()
    refitted: tuple[RefittedOffset, ...] = ()
    learning: PromptLearning | None = None


@dataclass(frozen=True)
class _Look:
    """At two crops of some images, before labels are written and after."""

    store: Store
    clip: ClipModel
    how: HowToLabel
    asked: Stabilise
    progress: Progress | None

    @property
    def rule(self) -> Rule:
        return self.how.rule

    def chosen(self, prompts: PromptSet) -> _Chosen:
        """Templates first: an offset cannot mend a template that turns the directions of its phrases."""
        asked, rule = self.asked, self.rule
        if not asked.needs_crops:
            return self._refitted(_Chosen(prompts))
        if not rule.by_similarity:
            message = f"{rule.describe()} do not come from templates and offsets"
            raise UsageError(message, "Label by phrases: --prompts FILE.")
        views = self._views()
        templates, learning, offsets = None, None, tuple[OffsetChoice, ...]()
        if asked.template:
            templates = compare_templates(views, self.clip, prompts, rule, self.progress)
            prompts = with_templates(prompts, templates.taken)
        if asked.learn:
            from pipeline.stability.prompt_learning import learn_prompts

            learning = learn_prompts(views, self.clip, prompts, rule, self.progress)
            prompts = learning.prompts
        if asked.offsets:
            offsets = choose_offsets(views, self.clip, prompts, rule)
            prompts = with_offsets(prompts, offsets)
        return self._refitted(_Chosen(prompts, templates, offsets, learning=learning))

    def _refitted(self, chosen: _Chosen) -> _Chosen:
        if not self.how.refit:
            return chosen
        embedded = prompt_vectors(self.clip, chosen.prompts)
        found = refit_offsets_of(self.store, embedded, chosen.prompts, self.rule, self.how.answers)
        return replace(chosen, prompts=with_refitted(chosen.prompts, found), refitted=found)

    def at(self, made: Labelled, chosen: _Chosen, report: LabelReport) -> LabelReport:
        """The report with how stable the labels are, where there are images enough. Labels do not wait for that: they
        are written already, so that what goes wrong here is a note."""
        asked = self.asked
        report = replace(
            report, templates=chosen.templates, template_chosen=asked.template, offsets=chosen.offsets,
            refitted=chosen.refitted, learning=chosen.learning,
        )  # fmt: skip
        rule = made.file.rule
        if asked.views is False or rule.kind == "given" or self.store.ok < asked.least:
            return report
        patience = math.inf if asked.views else PATIENCE
        try:
            views = self._views(patience)
        except LanitError as error:
            console.note(f"how stable the labels are was not looked at: {error.message}. {error.hint}")
            return report
        labels = label_views(views, made.embedded, rule, made.head)
        if not report.dry_run:
            keep_view_labels(self.store, views, made.file, labels)
        report = replace(report, statistics=with_stability(report.statistics, labels.agreements()))
        new = report.created or report.dry_run
        if report.templates is None and new and self._may_be_bettered(report, chosen.prompts, rule):
            try:
                found = compare_templates(views, self.clip, chosen.prompts, self.rule, self.progress, patience)
            except LanitError as error:
                console.note(f"{error.message}. {error.hint}")
                return report
            report = replace(report, templates=found)
        return report

    def _views(self, patience: float = math.inf) -> Views:
        kept = read_views(self.store)
        if kept is not None:
            return kept
        from pipeline.stability.crops import make_views

        return make_views(self.store, self.clip, self.progress, self.asked.least, patience)

    @staticmethod
    def _may_be_bettered(report: LabelReport, prompts: PromptSet, rule: Rule) -> bool:
        """Whether other templates could be so much more stable that it would be worth a word."""
        stability = report.statistics.stability
        worth = stability is not None and stability.mean + GAIN < 1
        return worth and rule.by_similarity and prompts.learned is None


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
