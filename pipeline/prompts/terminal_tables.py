"""What a terminal shows of CLIPs and prompts: models, words as they were learned, and those that say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lanit.errors import listed
from pipeline.extras import install
from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.clip.model_list import ModelList
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


def show_models(found: ModelList) -> None:
    """The recommended CLIPs, then how the speed was estimated and what else there is to know."""
    rows = [
        (model.preset, model.clip, f"{model.size}", f"{model.parameters} M", f"{model.context}",
         f"{model.accuracy:.1f} %", model.licence, "yes" if model.cached else "no", f"{model.images_per_second:g}")
        for model in found.models
    ]  # fmt: skip
    columns = ("--clip", "in open_clip", "px", "weights", "tokens", "ImageNet", "licence", "here", "images/s")
    console.table("CLIPs", columns, rows, left=2)
    console.say(
        f"images/s: estimated, by {found.gigaflops:,.0f} GFLOP/s on {found.device} just now, decoding left out. "
        "ImageNet: without training, as published. here: in the cache."
    )
    extra = " and ".join(model.preset for model in found.models if model.extra)
    console.say(f"{extra}: read over 100 languages by {install('transformers')}; their prompts do not learn.")
