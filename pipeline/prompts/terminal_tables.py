"""What a terminal shows of prompts: words as they were learned, and words that a CLIP never saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lanit.errors import listed
from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.prompts.nearest_words import LearnedWord


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
