"""What the page shows beside its controls, as HTML: notices, results, which words are seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from pipeline.play.workbench import Reading, Result
from pipeline.showing.pages import render_page

_LEAST_SCALE = 0.05
SAMPLE_REMARK = (
    "The sample model knows drawn faces and nothing else: pick one of those below. Photographs come out as nonsense."
)


@dataclass(frozen=True)
class MarginRow:
    """A word in what is seen. before, after: margins of the picture and, as the mean over its styles, of the result.
    start, end: where they lie on the scale, in percent. asked: whether the result shall have it. verdict: how that
    went, in words; good: none where there is nothing to say."""

    word: str
    before: float
    after: float
    start: float
    end: float
    asked: bool
    had: bool
    verdict: str
    good: bool | None


def style_sheet() -> str:
    """The CSS of the page."""
    return (files("pipeline") / "assets" / "play.css").read_text(encoding="utf-8")


def introduction(model: str, words: int, size: int, remark: str, reader: str) -> str:
    values = {"model": model, "words": words, "size": size, "remark": remark, "reader": reader}
    return render_page("play-introduction.html", values)


def notice(text: str, *, wrong: bool = False) -> str:
    """A remark that screen readers announce; nothing for an empty one."""
    return render_page("play-notice.html", {"text": text, "wrong": wrong})


def remarks(reading: Reading, reader: str) -> str:
    """What a person should know of a picture before believing what comes of it. reader: of its labels, in words."""
    found = []
    if reading.familiar is False:
        found.append("This picture looks unlike those that the model knows. Do not expect much of the result.")
    if not reading.labels.active:
        found.append(f"None of the model's words is seen in it by {reader}.")
    return notice(" ".join(found))


def results(reading: Reading | None, made: Sequence[Result]) -> str:
    """The picture as the model takes it, and what became of it, each to save."""
    square = None if reading is None else reading.square
    return render_page("play-results.html", {"square": square, "pictures": [result.picture for result in made]})


def margin_table(reading: Reading | None, made: Sequence[Result], asked: Collection[str], reader: str) -> str:
    """Every word with its margins, before and after. reader: who sees them."""
    rows = [] if reading is None else margin_rows(reading, made, asked)
    return render_page("play-margins.html", {"rows": rows, "styles": len(made), "reader": reader})


def margin_rows(reading: Reading, made: Sequence[Result], asked: Collection[str]) -> list[MarginRow]:
    before = reading.labels.margins
    after = {
        word: float(np.mean([result.labels.margins[word] for result in made] or [before[word]])) for word in before
    }
    scale = max(_LEAST_SCALE, *map(abs, before.values()), *map(abs, after.values()))
    rows = []
    for word, margin in before.items():
        seen = sum(word in result.labels.active for result in made)
        had = word in reading.labels.active
        verdict, good = _verdict(word in asked, had, seen, len(made))
        start, end = (50 + 50 * value / scale for value in (margin, after[word]))
        rows.append(MarginRow(word, margin, after[word], start, end, word in asked, had, verdict, good))
    return rows


def _verdict(asked: bool, had: bool, seen: int, styles: int) -> tuple[str, bool | None]:
    if styles == 0:
        return "", None
    if asked and seen == styles:
        return ("still there" if had else "came"), True
    if asked:
        return ("not seen" if styles == 1 else f"seen in {seen} of {styles}"), False
    if seen == 0:
        return ("gone", True) if had else ("", None)
    unwanted = "still there" if had else "came along"
    return (unwanted if styles == 1 else f"{unwanted} in {seen} of {styles}"), False
