"""Templates and offsets chosen by how far the labels of two crops agree, without any truth."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lanit.agreement import mean_score
from lanit.errors import LanitError, UsageError
from lanit.rules import Rule
from lanit.sentences import without_phrase
from pipeline.progress import Progress
from pipeline.prompts.embed_prompts import prompt_vectors
from pipeline.prompts.prompt_sets import GENERAL_TEMPLATES, PromptSet
from pipeline.stability.agreements import agreements_of, label_views
from pipeline.stability.views import Views

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel

GAIN = 0.005
"""By so much other templates must be more stable to be worth a word to a person who did not ask for them."""

_LEFT = 0.85
"""Other templates are taken where they leave less than this share of the disagreement of two crops, 1 − κ. Those that
differ by less are, on photographs, as often worse as better."""

OFFSET_GAIN = 0.2
"""By so much another offset must be more stable to be taken: where margins have a valley and labels began elsewhere. On
photographs margins often have none, and small gains of κ lead to shares that are wrong."""

_PHRASES = 32  # templates are compared on so many phrases at most, evenly spread: a text pass for each
_SHARES = (0.04, 0.90)  # of the images that a domain may label for its offset to be looked for
_OFFSETS = 49  # tried between these shares


@dataclass(frozen=True)
class Candidate:
    """Templates in which the phrases may stand. title: for people. score: mean κ over the phrases compared."""

    title: str
    templates: tuple[str, ...]
    bases: tuple[str, ...]
    score: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"templates": list(self.templates), "bases": list(self.bases)}


@dataclass(frozen=True)
class TemplateChoice:
    """Candidates, the most stable first; own: as the prompts were given. phrases: that they were compared on."""

    own: Candidate
    candidates: tuple[Candidate, ...]
    phrases: int

    @property
    def best(self) -> Candidate:
        return self.candidates[0]

    @property
    def taken(self) -> Candidate:
        """The best where crops disagree so much less that it is worth a change, else the user's own."""
        return self.best if 1 - self.best.score < _LEFT * (1 - self.own.score) else self.own

    @property
    def is_worth_a_word(self) -> bool:
        """Whether a person who did not ask for other templates should know of them."""
        return self.taken.score > self.own.score + GAIN

    def to_json(self) -> dict[str, Any]:
        found = [candidate.to_json() for candidate in self.candidates]
        return {"own": self.own.to_json(), "candidates": found, "phrases": self.phrases}


@dataclass(frozen=True)
class OffsetChoice:
    """An offset that is more stable than what the phrase has. before, after: κ, as :attr:`Agreement.score` has it."""

    domain: str
    offset: float
    before: float
    after: float


def candidate_templates(prompts: PromptSet) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Title, templates and bases of each candidate, each once, the user's own first.

    Of one template all that deleting a run of its words leaves, down to the phrase alone; of several each by itself;
    and the general ones.
    """
    found = {prompts.templates: ("as given", prompts.bases)}
    if len(prompts.templates) == 1:
        for template in shortened(prompts.templates[0]):
            found.setdefault((template,), (template, (without_phrase(template),)))
    else:
        for template, base in zip(prompts.templates, prompts.bases, strict=True):
            found.setdefault((template,), (template, (base,)))
        found.setdefault(("{}.",), ("{}.", (".",)))
    bases = tuple(without_phrase(template) for template in GENERAL_TEMPLATES)
    found.setdefault(GENERAL_TEMPLATES, ("the general templates", bases))
    return [(title, templates, bases) for templates, (title, bases) in found.items()]


def shortened(template: str) -> list[str]:
    """What deleting one run of words leaves of a template, its phrase kept, where that leaves a base prompt too."""
    words = template.split()
    place = next(number for number, word in enumerate(words) if "{}" in word)
    runs = [(a, b) for a in range(len(words)) for b in range(a + 1, len(words) + 1) if not a <= place < b]
    left = (" ".join(words[:a] + words[b:]) for a, b in runs)
    return [text for text in dict.fromkeys(left) if without_phrase(text)]


def compare_templates(
    views: Views,
    clip: ClipModel,
    prompts: PromptSet,
    rule: Rule,
    progress: Progress | None = None,
    patience: float = math.inf,
) -> TemplateChoice:
    """How stable labels are in each candidate's sentences.

    Offsets count for the templates that they were given with alone. progress: called with (candidates done, in all).
    Raises LanitError where prompts were learned, since no template says what those are, and as soon as it shows that
    it would take longer than ``patience`` seconds.
    """
    if prompts.learned is not None:
        raise LanitError(
            "prompts that were learned have no template to choose", "Leave out --choose-template, or give phrases."
        )
    chosen = np.unique(np.linspace(0, len(prompts.domains) - 1, _PHRASES).round().astype(int))
    phrases = tuple(prompts.domains[n] for n in chosen)
    offsets = tuple(prompts.offsets[n] for n in chosen)
    weights = tuple(prompts.weights[n] for n in chosen)
    sample = replace(prompts, domains=phrases, offsets=offsets, weights=weights)
    rows = candidate_templates(prompts)
    found: list[Candidate] = []
    begun = time.monotonic()
    for number, (title, templates, bases) in enumerate(rows, 1):
        other = sample if not found else replace(sample, templates=templates, bases=bases, offsets=())
        scores = label_views(views, prompt_vectors(clip, other), rule).agreements()
        found.append(Candidate(title, templates, bases, mean_score(scores)))
        if progress is not None:
            progress(number, len(rows), "templates")
        if (time.monotonic() - begun) * len(rows) / number > patience:
            message = f"other templates were not tried, which would take over {patience:.0f} seconds here"
            raise LanitError(message, "Add --choose-template --dry-run to see them.")
    ranked = tuple(sorted(found, key=lambda candidate: -candidate.score))  # stable: of equal ones the user's own first
    return TemplateChoice(found[0], ranked, len(phrases))


def with_templates(prompts: PromptSet, candidate: Candidate) -> PromptSet:
    """The phrases in other templates; offsets, which are margins to the templates before, go with those."""
    if candidate.templates == prompts.templates:
        return prompts
    return replace(prompts, templates=candidate.templates, bases=candidate.bases, offsets=())


def choose_offsets(
    views: Views, clip: ClipModel, prompts: PromptSet, rule: Rule, gain: float = OFFSET_GAIN
) -> tuple[OffsetChoice, ...]:
    """For each phrase the offset at which labels of two crops agree most, where κ there is more than ``gain`` above
    that at the offset that the phrase has; a phrase at a time.

    Raises UsageError for a rule other than the adaptive one, under which phrases depend on each other.
    """
    if rule.kind != "adaptive":
        raise UsageError(
            f"--choose-offsets goes with the adaptive rule, not with {rule.text}", "Leave one of them out."
        )
    margins = label_views(views, prompt_vectors(clip, prompts), rule).margins
    found = []
    for domain, own, column in zip(prompts.domains, prompts.offsets, np.moveaxis(margins, 2, 0), strict=True):
        tried = _offsets_to_try(column)
        [before], after = _scores(column, [own]), _scores(column, tried)
        best = int(np.argmax(after))
        if after[best] > before + gain:
            found.append(OffsetChoice(domain, tried[best], before, after[best]))
    return tuple(found)


def with_offsets(prompts: PromptSet, choices: Sequence[OffsetChoice]) -> PromptSet:
    """The prompts with these offsets; the others stay as they are."""
    chosen = {choice.domain: choice.offset for choice in choices}
    offsets = (chosen.get(domain, own) for domain, own in zip(prompts.domains, prompts.offsets, strict=True))
    return replace(prompts, offsets=tuple(offsets))


def _offsets_to_try(margins: np.ndarray) -> list[float]:
    """Margins, float32 (2×n), above which a share of the images lies, and those half-way between two of them, which lie
    in a valley where no image does; in as many digits as a person would write."""
    least, most = _SHARES
    levels = np.quantile(margins.mean(axis=0), np.linspace(1 - most, 1 - least, _OFFSETS))
    tried = np.concatenate([levels, (levels[1:] + levels[:-1]) / 2])
    return [float(f"{value:.3g}") for value in tried]


def _scores(margins: np.ndarray, offsets: Sequence[float]) -> list[float]:
    """κ of a label that begins at each of the offsets. margins: float32 (2×n)."""
    first, second = (each[:, None] > np.asarray(offsets, np.float32) for each in margins)
    return [agreement.score for agreement in agreements_of(first, second)]
