"""Phrases that tell no more than chance: whose margins vary over the images no more than those of shuffled letters do.

A phrase that CLIP understands and that some images show and others do not spreads their margins. One that it does not
understand, or that none or all of the images show, spreads them as text without a meaning does: its labels are noise.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lanit.errors import listed
from pipeline.prompts.embed_prompts import prompt_vectors
from pipeline.store.store_clip import sampled_embeddings

if TYPE_CHECKING:
    from lanit.labels import EmbeddedPrompts
    from pipeline.clip.models import ClipModel
    from pipeline.prompts.prompt_sets import PromptSet
    from pipeline.store.store import Store

LEAST_IMAGES = 50  # below, a spread is a guess
_NAMED = 20
_ROUNDING = 1e-4  # of float32 sums: to a small CLIP some words are one and the same
_SHUFFLED = 16  # phrases of shuffled letters that chance is judged by


def phrases_of_chance(store: Store, clip: ClipModel, prompts: PromptSet, embedded: EmbeddedPrompts) -> tuple[str, ...]:
    """Those phrases of ``prompts`` that tell no more than the middle one of phrases whose letters are shuffled, on a
    sample of the images; none where there are too few images or letters to say. embedded: the prompts. All templates
    are looked at, or the first alone where that takes CLIP fewer sentences.
    """
    words = shuffled_phrases(prompts.domains)
    embeddings = sampled_embeddings(store)
    if len(embeddings) < LEAST_IMAGES or len(words) < _SHUFFLED:
        return ()
    if len(words) * len(prompts.templates) > len(words) + len(prompts.domains):
        prompts = prompts.first_template()
        embedded = prompt_vectors(clip, prompts)
    chance = np.median(_spreads(embeddings, prompt_vectors(clip, prompts.about(words))))
    pairs = zip(prompts.domains, _spreads(embeddings, embedded), strict=True)
    return tuple(phrase for phrase, spread in pairs if spread <= chance * (1 + _ROUNDING))


def _spreads(embeddings: np.ndarray, prompts: EmbeddedPrompts) -> np.ndarray:
    """Standard deviations of the margins of each phrase, float32 (N), over images (n×k)."""
    spreads: np.ndarray = prompts.arrays().margins(embeddings).std(axis=0)
    return spreads


def warn_of_chance(phrases: Sequence[str]) -> list[str]:
    """A sentence that names phrases whose labels are noise, if there are any."""
    names = listed([f"'{phrase}'" for phrase in phrases], _NAMED)
    told = f"no more than chance, as shuffled letters tell of these images: {names}; use other words"
    return [told] if phrases else []


def shuffled_phrases(phrases: Sequence[str]) -> list[str]:
    """As many phrases as chance is judged by, made of the letters of some of ``phrases``; equal ones give equal ones.

    Fewer where they have too few different letters.
    """
    known, made = {phrase.casefold() for phrase in phrases}, dict[str, None]()
    step = max(1, len(phrases) // _SHUFFLED)
    for attempt in range(4 * _SHUFFLED):
        phrase = phrases[attempt * step % len(phrases)]
        letters = [letter for letter in phrase if letter.isalnum()]
        random.Random(f"{attempt} {phrase}").shuffle(letters)
        rest = iter(letters)
        mixed = "".join(next(rest) if letter.isalnum() else letter for letter in phrase)
        if mixed.casefold() not in known and len(made) < _SHUFFLED:
            made[mixed] = None
    return list(made)
