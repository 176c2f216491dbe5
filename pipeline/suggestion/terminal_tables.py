"""What ``lanit suggest-prompts`` prints about its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.suggestion.suggest import SuggestReport


def show_suggestions(report: SuggestReport) -> None:
    """Words to add with the images that show them, then the images without a label in groups."""
    if not report.uncovered:
        console.note("every image has a label: words are suggested for what the labels leave unsaid")
    stable = any(each.stability is not None for each in report.suggestions)
    rows = [
        (", ".join([each.word, *(f"({other})" for other in each.also)]), " ".join(one.path for one in each.examples),
         f"{each.images:,}", f"{each.uncovered:,}", f"{each.score:.4f}",
         *(["-" if each.stability is None else f"{each.stability:.2f}"] if stable else []))
        for each in report.suggestions
    ]  # fmt: skip
    about = f"revision {report.revision} ({report.prompt_set}), of {report.compared:,} words compared"
    if rows:
        columns = ["word", "images that show it best", "images", "without a label", "score"]
        columns += ["stable, κ"] if stable else []
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
    if rows:
        console.say("add the words that you mean to the prompt file, then: lanit label --prompts FILE --dry-run")
