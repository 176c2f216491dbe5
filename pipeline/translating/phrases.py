"""Phrases that are no domain of the model: a mix of the nearest domains, by CLIP's text side, or a refusal."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from pipeline.clip.models import ClipModel
from pipeline.models.translator import Translator
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.translating.requests import Words

NEAR = 0.6
"""Cosine from which on a domain counts as near a phrase, both measured from the base prompt (docs/LOG.md)."""

_MOST = 3  # domains in a mix
_TYPO = 0.85  # likeness of letters from which on a phrase is a domain mistyped


@dataclass(frozen=True)
class Mix:
    """What stands in for a phrase: domains with weights, the nearest 1, and its cosine to the phrase."""

    phrase: str
    domains: Words
    cosine: float

    def __str__(self) -> str:
        mix = ", ".join(name if weight == 1 else f"{name}={weight:.2g}" for name, weight in self.domains)
        return f"'{self.phrase}' is no domain of this model: taken as {mix} (nearest by CLIP, cosine {self.cosine:.2f})"


def directions(clip: ClipModel, prompts: PromptSet, phrases: Sequence[str]) -> torch.Tensor:
    """Unit vectors, float32 (P×k), from the base prompt to each phrase in the templates of ``prompts``.

    The base is taken off because all sentences of one set of templates are alike: their cosines tell little.
    """
    plain = replace(prompts, domains=tuple(phrases), offsets=(), weights=())
    embedded = embed_prompts(clip, plain)
    return F.normalize(embedded.domains - embedded.base, dim=1)


def stand_in(phrase: str, translator: Translator, clip: ClipModel) -> Mix:
    """The domains nearest to ``phrase``: at most three with a cosine of ``NEAR`` or more, weighted by their cosines.

    Raises LanitError where none is near, where the CLIP knows that it never saw a word of the phrase, or where the
    phrase looks like a domain mistyped.
    """
    if difflib.get_close_matches(phrase.casefold(), [name.casefold() for name in translator.domains], 1, _TYPO):
        raise translator.no_domain(phrase)
    unknown = clip.unknown_words([phrase])
    if unknown:
        raise translator.no_domain(phrase, f", and its CLIP never saw the word '{unknown[0]}'")
    prompts = translator.bundle.prompt_set
    one = directions(clip, prompts, [phrase])
    cosines = (directions(clip, prompts, translator.domains) @ one[0]).tolist()
    order = sorted(range(len(cosines)), key=lambda n: -cosines[n])[:_MOST]
    if cosines[order[0]] < NEAR:
        nearest = f"{translator.domains[order[0]]} {cosines[order[0]]:.2f}"
        raise translator.no_domain(phrase, f", and none is near it: the nearest is {nearest}, where {NEAR:g} is needed")
    near = [n for n in order if cosines[n] >= NEAR]
    weights = [round(cosines[n] / cosines[order[0]], 3) for n in near]
    return Mix(phrase, tuple(zip((translator.domains[n] for n in near), weights, strict=True)), cosines[order[0]])
