"""What each command prints about the report that its stage returned: tables and a line or two."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lanit.errors import listed
from pipeline import console
from pipeline.inspection.table import show_statistics
from pipeline.inspection.terminal_tables import show_comparison

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.embedding.embed import EmbedReport
    from pipeline.exports.export import ExportReport
    from pipeline.inspection.label_report import LabelReport
    from pipeline.inspection.statistics import LabelStatistics
    from pipeline.labelling.nearest_words import LearnedWord
    from pipeline.model_exports.export_model import ExportModelReport
    from pipeline.searching.duplicates import DuplicateReport
    from pipeline.searching.search import SearchReport
    from pipeline.store.index import IndexReport
    from pipeline.suggestion.suggest import SuggestReport
    from pipeline.training.training import TrainReport
    from pipeline.translating.translation import TranslateReport


def show_embed(report: EmbedReport) -> None:
    """images = embedded + failed + skipped."""
    names = ", ".join(report.sources[:3]) + (f" and {len(report.sources) - 3} more" if len(report.sources) > 3 else "")
    entries = {"images found": report.found, "embedded": report.ok, "failed": report.failed}
    console.counts(f"Images of {names}", entries | {"skipped (unchanged)": report.skipped})
    shares = {"waiting for images to decode": report.waiting, "in CLIP": report.model, "writing": report.writing}
    text = ", ".join(f"{share:.0%} {name}" for name, share in shares.items())
    console.say(f"{report.seconds:.1f} s, {report.images_per_second:.1f} images/s on {report.device}: {text}")
    if report.more_workers:
        console.say(f"the loader is the limit: try --workers {2 * report.workers}")
    if report.dropped or report.kept:
        away = f" ({report.away:,} of them of what cannot be found or listed now)" if report.away else ""
        console.say(
            f"{report.dropped:,} rows of images that are gone dropped, {report.kept:,} of other inputs kept{away}"
        )
    console.say(f"the store {report.store} holds {report.stored:,} embeddings; index {report.index}")


def show_label(report: LabelReport) -> None:
    """The new labels, what a dry run would change, then images = labelled + without a label + failed."""
    if not report.created and not report.dry_run:
        console.note(f"revision {report.revision} already has these labels: nothing written")
    if report.learned:
        show_learned_words(report.learned)
    show_statistics(report.statistics)
    if report.comparison is not None:
        show_comparison(report.comparison)
    if report.not_in_store:
        console.note(
            f"{report.not_in_store:,} rows of the labels given name no image of the store: kept until it has one"
        )
    entries = {"images": report.images, "labelled": report.labelled, "without a label": report.unlabelled}
    console.counts("Images of the store", entries | {"failed to embed": report.failed})


_WORDS_SHOWN = 3
_WORDS_NAMED = 20


def show_learned_words(words: Sequence[LearnedWord]) -> None:
    """What each learned embedding was, which words it is near now, and how far it moved."""
    rows = [
        (word.template if word.position == 0 else "", word.initial,
         ", ".join(f"{near.token} {near.cosine:.2f}" for near in word.nearest[:_WORDS_SHOWN]),
         console.percent(word.moved / word.length if word.length else None))
        for word in words
    ]  # fmt: skip
    columns = ("template", "word", "nearest words, with their cosine", "moved by")
    console.table("Prompts as learned", columns, rows, left=3)


def warn_of_words(words: tuple[str, ...]) -> None:
    """A warning that names words which CLIP never saw, if there are any."""
    if words:
        names = listed([f"'{word}'" for word in words], _WORDS_NAMED)
        console.warn(f"this CLIP never saw {names}: expect nothing of prompts with such words")


_LARGE = 128  # pixels; at this size and above, a step on a CPU takes tens of seconds


def show_options(title: str, options: Mapping[str, object], device: str) -> None:
    """Resolved options on stderr, written as ``--set`` takes them; a warning where the device is no match for them."""
    values = (f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in options.items())
    console.note(f"{title}: {' '.join(values)}")
    size = options["size"]
    if device == "cpu" and isinstance(size, int) and size >= _LARGE:
        console.warn(f"{size} px on a CPU takes days; try --preset small-32, minutes for drawings, or --device cuda")


def show_coverage(statistics: LabelStatistics) -> None:
    """What training is about to learn from, on stderr, with a warning for each prompt that teaches nothing."""
    console.note(f"label revision {statistics.revision}: {console.percent(statistics.coverage)} of images have a label")
    if statistics.people.not_in_revision:
        console.warn(f"{statistics.people.not_in_revision:,} labels by people are not in it: lanit label applies them")
    for warning in statistics.warnings:
        console.warn(warning)


def show_train(report: TrainReport) -> None:
    begun = f" ({report.started_at:,} of them before)" if report.started_at else ""
    where = report.device if report.processes == 1 else f"{report.processes} processes"
    console.say(f"{report.steps:,} steps{begun}, {report.images:,} images, {report.seconds:,.0f} s on {where}")
    console.say(f"{report.seconds_per_step:.3f} s a step; trained on label revision {report.label_revision}")
    console.say(f"the model of this run is in {report.run}/model")
    if report.best is not None and report.best_step != report.steps:
        console.say(f"the best by {report.best_by} ({report.best:.4g}, step {report.best_step:,}) in {report.run}/best")
    if report.learned:
        show_learned_words(report.learned)
        console.say(f"its prompts, as learned, are for: lanit label --prompts {shlex.quote(report.run)}")


def show_translate(report: TranslateReport) -> None:
    """images = translated + failed."""
    counts = {"images found": report.found, "translated": report.ok, "failed": report.failed}
    if report.done_before:
        counts["of the translated before"] = report.done_before
    if report.results != report.ok:
        counts["files"] = report.results
    console.counts(f"Images to {report.out}", counts)
    if report.images_per_second:
        shares = f"decode {report.waiting:.0%}, model {report.model_share:.0%}, write {report.writing:.0%}"
        console.say(f"{report.images_per_second:,.1f} images/s on {report.device} ({shares})")
    if report.recognised is not None:
        console.say(f"CLIP sees {console.percent(report.recognised)} of the labels asked for in the results")
    console.say(f"one row for each in {report.table}, and the labels asked for in {report.labels}")
    if report.grid is not None:
        console.say(f"sources and translations side by side in {report.grid}")


def show_search(report: SearchReport, page: Path | None) -> None:
    """The images found, nearest first."""
    several = len({hit.source for hit in report.hits}) > 1
    rows = [(str(hit.rank), hit.path, *([hit.source] if several else []), f"{hit.cosine:.4f}") for hit in report.hits]
    query = f"“{report.query}”" if report.kind == "text" else report.query
    columns = ("rank", "image", "source", "cosine") if several else ("rank", "image", "cosine")
    of = f"{report.searched:,} images" + (f" labelled {' and '.join(report.labels)}" if report.labels else "")
    console.table(f"Nearest to {query}, of {of}", columns, rows, left=len(columns) - 1)
    if page is not None:
        console.say(f"their thumbnails are in {page}")


_GROUPS_SHOWN = 10


def show_duplicates(report: DuplicateReport, page: Path | None, table: Path | None) -> None:
    """images = to keep + copies + near-duplicates; the largest groups; how near images are to each other."""
    copies = {"of the same content": report.exact_copies, "near-duplicates": report.near_copies}
    if report.between is None or report.sizes is None:
        title = f"Images of {report.store}, near-duplicates from a cosine of {report.threshold:g} on"
        entries = {"images": report.images, "without those below": report.images - sum(copies.values())}
    else:
        first, second = report.between
        title = f"Images of {second} that are in {first} too, from a cosine of {report.threshold:g} on"
        entries = {f"images of {second}": report.sizes[1], "not there": report.sizes[1] - sum(copies.values())}
    console.counts(title, entries | copies)
    if report.group_count:
        shown = list(report.groups(_GROUPS_SHOWN))
        rows = [
            (group.members[0].path, group.members[1].path, f"{len(group.members):,}",
             f"{min(member.cosine for member in group.members[1:]):.4f}") for group in shown
        ]  # fmt: skip
        title = f"The largest of {report.group_count:,} groups" if report.group_count > len(shown) else "Groups"
        console.table(title, ("first", "second", "images", "lowest cosine"), rows, left=2)
    if report.nearest:
        parts = (f"{100 * share:g} % of images at most {cosine:.4f}" for share, cosine in report.nearest)
        console.say(f"cosine with the nearest other image: {', '.join(parts)}")
    for what, file in (("the groups' thumbnails are", page), ("all groups are", table)):
        if file is not None:
            console.say(f"{what} in {file}")


def show_index(report: IndexReport) -> None:
    """What kind it is, and how large."""
    lists = f", {report.probes:,} of {report.lists:,} lists looked through" if report.lists else ""
    state = f"built in {report.seconds:.1f} s" if report.built else "unchanged"
    console.say(f"index of {report.rows:,} embeddings: {report.kind}{lists}, {report.bytes / 1e6:,.1f} MB, {state}")


def show_export(report: ExportReport) -> None:
    """Images of each label or folder; images = exported + missing + left out + failed; what reads the result."""
    if not report.created:
        console.note(f"{report.out} already has this export: nothing written (--overwrite writes it anew)")
    if report.groups:
        source = f"label revision {report.revision}"
        console.table(f"Exported from {source}", ("", "images"), [(n, f"{c:,}") for n, c in report.groups.items()])
    entries = {"images": report.images, "exported": report.exported, "missing or changed": report.missing}
    console.counts("Images of the store", entries | {"left out": report.left_out, "failed to embed": report.failed})
    if report.missing_list is not None:
        console.say(f"those missing are listed in {report.missing_list}")
    console.say(f"{report.files:,} files in {report.out}; read them with:")
    console.say(report.read_by)


def show_export_model(report: ExportModelReport) -> None:
    """Its files, how far ONNX is from torch, and what to do with the folder."""
    rows = [(name, f"{size / 1e6:,.2f}") for name, size in report.files.items()]
    console.table(f"{report.domains} domains at {report.image_size} px in {report.out}", ("file", "MB"), rows)
    for name, difference in (report.onnx or {}).items():
        console.say(f"{name}.onnx: at most {difference:.1e} from torch")
    for text in report.warnings:
        console.warn(text)
    typed = shlex.quote(report.out)
    console.say(f"use it: lanit.load({report.out!r}), or --model {typed}; share it: lanit push {typed} OWNER/NAME")


def show_suggestions(report: SuggestReport, page: Path | None) -> None:
    """Words to add with the images that show them, then the images without a label in groups."""
    if not report.uncovered:
        console.note("every image has a label: words are suggested for what the labels leave unsaid")
    rows = [
        (", ".join([each.word, *(f"({other})" for other in each.also)]), " ".join(one.path for one in each.examples),
         f"{each.images:,}", f"{each.uncovered:,}", f"{each.score:.4f}")
        for each in report.suggestions
    ]  # fmt: skip
    about = f"revision {report.revision} ({report.prompt_set}), of {report.compared:,} words compared"
    if rows:
        columns = ("word", "images that show it best", "images", "without a label", "score")
        console.table(f"Words to add to {about}", columns, rows, left=2)
    else:
        console.say(f"no word to add to {about}: none says much that its prompts do not say")
    groups = [
        (", ".join(word.word for word in group.words) or "-", " ".join(one.path for one in group.examples),
         f"{group.size:,}")
        for group in report.groups
    ]  # fmt: skip
    if groups:
        title = f"The {report.uncovered:,} of {report.images:,} images without a label, in groups of look-alikes"
        console.table(title, ("words that say most of it", "images nearest its centre", "images"), groups, left=2)
    if page is not None:
        console.say(f"the images themselves are in {page}")
    if rows:
        console.say("add the words that you mean to the prompt file, then: lanit label --prompts FILE --dry-run")
