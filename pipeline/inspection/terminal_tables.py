"""What ``lanit inspect-labels`` prints: a revision, two of them side by side, or several rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lanit.agreement import LEAST_GAIN
from lanit.errors import listed
from pipeline.inspection.table import (
    LARGEST,
    listed_domains,
    margin,
    say_more,
    say_people,
    say_summary,
    show_fill,
    show_statistics,
    warn,
)
from pipeline.prompts.terminal_tables import show_learned_words
from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.inspection.compare import Comparison
    from pipeline.inspection.inspect_labels import Inspection
    from pipeline.inspection.label_report import LabelReport
    from pipeline.inspection.label_statistics import LabelStatistics
    from pipeline.inspection.rules_table import RuleOutcome
    from pipeline.labelling.people_offsets import RefittedOffset
    from pipeline.stability.choices import Candidate
    from pipeline.stability.prompt_learning import PromptLearning

_CANDIDATES = 8  # templates shown of those compared
_SHOWN = 3  # flipped images named for each domain and direction


def show_inspection(report: Inspection) -> None:
    """The revision, or what the options asked for instead."""
    if report.comparison is not None:
        show_comparison(report.comparison)
    if report.rules:
        show_rules(report.revision.domains, report.rules, report.statistics.images)
    if report.comparison is None and not report.rules:
        show_statistics(report.statistics, hints=True)
    console.note("margin, offset, stability and other words: docs/GLOSSARY.md, or the page that --html writes")


def show_comparison(comparison: Comparison) -> None:
    """What flipped in each domain, with a few of the images; the change of coverage; domains that one side lacks."""
    after = f"revision {comparison.after}" if comparison.after else "these labels, not written,"
    shown = [comparison.domains[n] for n in listed_domains([d.on + d.off for d in comparison.domains])]
    rows = [
        (d.domain, f"{d.count_before:,}", f"{d.count_after:,}", f"+{d.on:,}", f"-{d.off:,}", console.percent(d.share))
        for d in shown
    ]
    title = f"Flips from revision {comparison.before} to {after} over {comparison.images:,} images"
    if rows:
        console.table(title, ("domain", "before", "after", "on", "off", "flipped"), rows)
        if len(comparison.domains) > len(shown):
            console.say(f"and {len(comparison.domains) - len(shown):,} more, of fewer flips: --json has them all\n")
    else:
        console.say(f"{title}: they have no phrase in common")
    flipped = [
        (d.domain, sign, image.path, f"{margin(image.margin_before)} to {margin(image.margin_after)}")
        for d in shown
        for sign, images in (("+", d.turned_on), ("-", d.turned_off))
        for image in images[:_SHOWN]
    ]
    if flipped:
        console.table("Images that flipped, largest change first", ("domain", "", "image", "margin"), flipped, left=3)
    shares = [console.percent(share) for share in (comparison.coverage_before, comparison.coverage_after)]
    console.say(f"coverage          {shares[0]} before, {shares[1]} after")
    for name, domains in (("new domains", comparison.added), ("domains gone", comparison.removed)):
        if domains:
            console.say(f"{name:18}{listed(domains, LARGEST)}")
    for count, number in ((comparison.only_before, comparison.before), (comparison.only_after, comparison.after)):
        if count:
            console.say(f"not compared      {count:,} images that only {f'revision {number}' if number else after} has")
    console.say("")


def show_rules(domains: Sequence[str], outcomes: Sequence[RuleOutcome], images: int) -> None:
    """The share of images that each rule labels, and its F1 where there is truth."""
    scored = any(outcome.macro_f1 is not None for outcome in outcomes)
    rows = []
    for n in listed_domains([max(outcome.counts[n] for outcome in outcomes) for n in range(len(domains))]):
        name = domains[n]
        shares = [console.percent(outcome.counts[n] / images) for outcome in outcomes]
        rows.append(_row(name, shares, [_score(o.f1[n] if o.f1 else None) for o in outcomes] if scored else []))
    none = [""] * len(outcomes) if scored else []
    rows.append(_row("coverage", [console.percent(o.coverage) for o in outcomes], none))
    rows.append(_row("labels per image", [f"{o.labels_per_image:.2f}" for o in outcomes], none))
    if any(outcome.stability is not None for outcome in outcomes):
        rows.append(_row("stability", [_score(o.stability) for o in outcomes], none))
    if scored:
        rows.append(_row("macro F1", none, [_score(o.macro_f1) for o in outcomes]))
        rows.append(_row("micro F1", none, [_score(o.micro_f1) for o in outcomes]))
    columns = _row("domain", [o.name for o in outcomes], ["F1"] * len(outcomes) if scored else [])
    console.table(f"Rules side by side, share of {images:,} images", columns, rows)
    say_more(len(domains))


def _row(name: str, first: Sequence[str], second: Sequence[str]) -> list[str]:
    """A row of one cell, or a pair of cells, for each rule."""
    pairs = zip(first, second, strict=True) if second else ((cell,) for cell in first)
    return [name, *(cell for pair in pairs for cell in pair)]


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def show_label(report: LabelReport) -> None:
    """The new labels in three lines, what a dry run would change, then images = labelled + without a label + failed.

    Figures of each phrase are those of lanit inspect-labels; of labels that are not written, they are here.
    """
    if not report.created and not report.dry_run:
        console.note(f"revision {report.revision} already has these labels: nothing written")
    if report.learned:
        show_learned_words(report.learned)
    if report.dry_run:
        show_statistics(report.statistics)
    else:
        say_summary(report.statistics)
        say_people(report.statistics)
        if report.statistics.fill is not None:
            show_fill(report.statistics.fill)
        warn(report.statistics)
    _show_choices(report)
    if report.comparison is not None:
        show_comparison(report.comparison)
    if report.not_in_store:
        console.note(
            f"{report.not_in_store:,} rows of the labels given name no image of the store: kept until it has one"
        )
    entries = {"images": report.images, "labelled": report.labelled, "without a label": report.unlabelled}
    console.counts("Images of the store", entries | {"failed to embed": report.failed})
    if not report.dry_run:
        console.note("figures of each phrase: lanit inspect-labels; to look at the images and answer: lanit review")


def _show_choices(report: LabelReport) -> None:
    """Templates and offsets that were chosen, as lines of a prompt file; templates that would be more stable."""
    templates = report.templates
    if templates is not None and report.template_chosen:
        rows = [(candidate.title, f"{candidate.score:.3f}") for candidate in templates.candidates[:_CANDIDATES]]
        console.table(f"Templates, of {len(templates.candidates)}, by agreement of two crops", ("template", "κ"), rows)
        if templates.taken is templates.own:
            console.note("the templates stay as they were given: none is clearly more stable")
        else:
            console.note(f"chosen; in the prompt file: {_lines(templates.taken)}")
    elif templates is not None and templates.is_worth_a_word:
        console.note(
            f"other templates would be more stable (κ {templates.best.score:.2f}, now {templates.own.score:.2f}): "
            f"{_lines(templates.best)}; --choose-template takes them"
        )
    if report.offsets:
        chosen = [(o.domain, f"{o.offset:g}", f"{o.before:.3f}", f"{o.after:.3f}") for o in report.offsets]
        console.table("Offsets chosen by agreement of two crops", ("phrase", "offset", "κ before", "κ after"), chosen)
    if report.learning is not None:
        _show_learning(report.learning, report.dry_run)
    if report.refitted:
        _show_refitted(report.refitted)


def _show_learning(found: PromptLearning, dry_run: bool) -> None:

    teaching, judging = found.images
    how = f"κ {found.before:.3f} before, {found.after:.3f} after, on {judging:,} images; {teaching:,} others taught"
    if found.accepted:
        where = "" if dry_run else "; label by them again with the store's folder as --prompts"
        console.note(f"prompts learned (experimental): {how}{where}")
    elif found.alike:
        pairs = listed([f"'{first}' and '{second}'" for first, second in found.alike], LARGEST)
        console.note(f"what was learned is not taken: {pairs} would label the same images ({how})")
    else:
        console.note(f"what was learned is not taken: it is not more stable by {LEAST_GAIN:g} ({how})")


def _show_refitted(refitted: Sequence[RefittedOffset]) -> None:
    """Offsets fitted to answers of people, taken or not; and why others were not fitted."""
    rows = [
        (each.domain, f"{each.answers:,}", f"{each.before:g}", f"{fit.offset:g}", f"{fit.low:.3g} to {fit.high:.3g}",
         _score(fit.f1_before), _score(fit.f1_after), f"{fit.gain_low:.2f} to {fit.gain_high:.2f}",
         "yes" if fit.taken else "no")
        for each in refitted if (fit := each.fit) is not None
    ]  # fmt: skip
    columns = ("phrase", "answers", "offset", "fitted", "95 %", "F1", "F1 fitted", "gain, 95 %", "taken")
    if rows:
        console.table("Offsets fitted to labels by people; F1 of answers that were left out of the fit", columns, rows)
    for each in refitted:
        if each.fit is None:
            console.note(each.text)


def _lines(candidate: Candidate) -> str:
    return ", ".join(f"template: {template}" for template in candidate.templates)


def show_coverage(statistics: LabelStatistics) -> None:
    """What training is about to learn from, on stderr, with a warning for each prompt that teaches nothing."""
    console.note(f"label revision {statistics.revision}: {console.percent(statistics.coverage)} of images have a label")
    if statistics.people.not_in_revision:
        console.warn(f"{statistics.people.not_in_revision:,} labels by people are not in it: lanit label applies them")
    for warning in statistics.warnings:
        console.warn(warning)
