"""Offsets of phrases refitted to what people said: where labels begin, so that they agree with the answers best.

An offset is the cut between two margins of answered images at which the F1 of the answers is largest. What it gains is
measured on answers that it was not fitted to (``_FOLDS`` of cross-validation), with an interval by bootstrap over the
answers. Rule: a phrase keeps the offset that it has unless the 95 % interval of the gain lies above 0. Answers are not
all images: where people were shown those near the bar, the F1 is of such images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lanit.errors import LanitError, UsageError
from lanit.rules import Rule
from pipeline.labelling.people import read_people
from pipeline.labelling.people_labels import AppliedLabels, answers_of, apply_people

if TYPE_CHECKING:
    from lanit.labels import EmbeddedPrompts
    from pipeline.labelling.known_labels import Truth
    from pipeline.prompts.prompt_sets import PromptSet
    from pipeline.store.label_revisions import RevisionFile
    from pipeline.store.store import Store

LEAST_ANSWERS = 5
"""Answers of yes, and as many of no, below which a phrase is left as it is."""

_MOST_ANSWERS = 4096  # of a phrase, drawn by a fixed seed: bounds time and memory, and more tell no more
_FOLDS = 10
_ROUNDS = 1000  # of the bootstrap
_BLOCK = 100  # of them at once
_ENDS = (0.025, 0.975)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class OffsetFit:
    """offset: fitted to all answers; low, high: its 95 % interval. f1_before: of the answers under the offset that the
    phrase has; f1_after: of answers that an offset was not fitted to; gain_low, gain_high: the 95 % interval of the
    difference. taken: whether that lies above 0."""

    offset: float
    low: float
    high: float
    f1_before: float
    f1_after: float
    gain_low: float
    gain_high: float
    taken: bool


@dataclass(frozen=True)
class RefittedOffset:
    """A phrase and the answers on it: how many, and how many of them say yes, that an image has the phrase.

    before: the offset that the phrase has. fit: none where nothing was fitted; then why_not says why.
    """

    domain: str
    answers: int
    yes: int
    before: float
    fit: OffsetFit | None = None
    why_not: str = ""

    @property
    def offset(self) -> float:
        """The offset to use: the fitted one where it was taken."""
        return self.fit.offset if self.fit is not None and self.fit.taken else self.before

    @property
    def text(self) -> str:
        """In a line: "smiling | offset=0.012: F1 0.81 -> 0.93 on your 120 answers, gain 0.05 to 0.18"."""
        if self.fit is None:
            return f"{self.domain}: the offset stays {self.before:g}, {self.why_not}"
        fit, kept = self.fit, "" if self.fit.taken else f"; not taken, the offset stays {self.before:g}"
        figures = f"F1 {fit.f1_before:.2f} -> {fit.f1_after:.2f} on your {self.answers:,} answers"
        return f"{self.domain} | offset={fit.offset:g}: {figures}, gain {fit.gain_low:.2f} to {fit.gain_high:.2f}{kept}"


def refit_offsets(store: Store, revision: RevisionFile) -> tuple[RefittedOffset, ...]:
    """For each phrase of ``revision`` on which people answered, its offset refitted to the answers kept in ``store``.

    Needs neither CLIP nor images: the margins are those of the revision. Equal answers give equal offsets; nothing is
    written. :func:`with_refitted` puts those taken into a prompt set, by which the store can be labelled again. Raises
    UsageError for a rule other than the adaptive one, under which phrases depend on each other, and LanitError where
    the revision is of other images than the store holds now.
    """
    _check_rule(revision.rule)
    store.check_current(revision)
    applied = apply_people(read_people(store), store, revision.domains)
    rows, places = np.unique(applied.rows, return_inverse=True)
    margins = revision.take(rows.tolist()).margin[places, applied.columns]
    return _refitted(applied, margins, revision.domains, revision.prompt_set.offsets)


def refit_offsets_of(
    store: Store, embedded: EmbeddedPrompts, prompts: PromptSet, rule: Rule, given: Truth | None = None
) -> tuple[RefittedOffset, ...]:
    """The same for prompts that no revision has yet. embedded: they. rule: what will decide. given:
    answers that are about to be kept too. Raises LanitError too where there are no answers."""
    _check_rule(rule)
    people = read_people(store)
    if given is not None:
        people = people.plus(answers_of(given, store, prompts.domains)[0])
    applied = apply_people(people, store, prompts.domains)
    if not len(applied.rows):
        raise LanitError(
            "no person said anything about these phrases and images, so there is nothing to fit offsets to",
            "Add --labels FILE, with a column of 1, 0 or nothing for each phrase.",
        )
    rows, places = np.unique(applied.rows, return_inverse=True)
    margins = embedded.arrays().margins(store.embeddings_of(rows))[places, applied.columns]
    return _refitted(applied, margins, prompts.domains, prompts.offsets)


def with_refitted(prompts: PromptSet, found: Sequence[RefittedOffset]) -> PromptSet:
    """The prompts with the offsets that were taken; the others stay as they are."""
    refitted = {each.domain: each.offset for each in found}
    offsets = (refitted.get(domain, own) for domain, own in zip(prompts.domains, prompts.offsets, strict=True))
    return replace(prompts, offsets=tuple(offsets))


def _check_rule(rule: Rule) -> None:
    if rule.kind != "adaptive":
        message = f"offsets are fitted under the adaptive rule, not under {rule.describe()}"
        raise UsageError(message, "Leave one of them out.")


def _refitted(
    applied: AppliedLabels, margins: np.ndarray, domains: Sequence[str], offsets: Sequence[float]
) -> tuple[RefittedOffset, ...]:
    """margins: float32 (a), of each answer."""
    found = []
    for n, (domain, own) in enumerate(zip(domains, offsets, strict=True)):
        mine = applied.columns == n
        if mine.any():
            found.append(refit(domain, margins[mine], applied.on[mine], own))
    return tuple(found)


def refit(domain: str, margins: np.ndarray, yes: Bools, own: float) -> RefittedOffset:
    """An offset for ``a`` answers. margins: float32 (a); yes: bool (a); own: the offset that the phrase has."""
    first = RefittedOffset(domain, len(yes), int(yes.sum()), own)
    if min(first.yes, first.answers - first.yes) < LEAST_ANSWERS:
        return replace(first, why_not=f"it takes {LEAST_ANSWERS} answers of yes and as many of no")
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(yes))[:_MOST_ANSWERS])
    order = chosen[np.argsort(margins[chosen], kind="stable")]
    values, said = margins[order].astype(np.float64), yes[order]
    if _order(values, said) <= 0.5:  # such as answers to wrong labels alone
        return replace(first, why_not="larger margins do not go with yes; answer some labels that are right, too")
    best = _best_offset(values, said, own)
    by_own, by_fit = values > own, _held_out(values, said, own, rng)
    drawn = [
        rng.multinomial(len(said), np.full(len(said), 1 / len(said)), size=_BLOCK) for _ in range(_ROUNDS // _BLOCK)
    ]
    gains = np.concatenate([_f1(by_fit, said, counts) - _f1(by_own, said, counts) for counts in drawn])
    fits = np.concatenate([_best_offsets(values, said, counts) for counts in drawn])
    (low, high), (gain_low, gain_high) = np.quantile(fits, _ENDS).tolist(), np.quantile(gains, _ENDS).tolist()
    once = np.ones((1, len(said)))
    f1_before, f1_after = float(_f1(by_own, said, once)[0]), float(_f1(by_fit, said, once)[0])
    fit = OffsetFit(
        offset=best, low=min(low, best), high=max(high, best), f1_before=f1_before, f1_after=f1_after,
        gain_low=gain_low, gain_high=gain_high, taken=gain_low > 0 and best != own,
    )  # fmt: skip
    return replace(first, fit=fit)


def _order(values: Floats, said: Bools) -> float:
    """The share of pairs of a yes and a no in which the yes has the larger margin, ties half; values: rising."""
    _, group = np.unique(values, return_inverse=True)
    no = np.bincount(group, weights=~said)
    below = np.concatenate([[0.0], np.cumsum(no)[:-1]]) + no / 2
    return float(below[group[said]].mean() / no.sum())


def _f1(labels: Bools, said: Bools, counts: np.ndarray) -> Floats:
    """F1 (b) of labels, bool (a), each answer being there ``counts`` times, (b×a)."""
    right = counts @ (labels & said).astype(float)
    both = counts @ labels.astype(float) + counts @ said.astype(float)
    out: Floats = np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)
    return out


def _f1_of_cuts(values: Floats, said: Bools, counts: np.ndarray) -> tuple[Floats, Floats]:
    """Cuts half-way between neighbouring different margins, (c), and the F1 that each has, (b×c); values: rising."""
    ends = np.flatnonzero(values[1:] > values[:-1])
    below, yes_below = np.cumsum(counts, axis=1), np.cumsum(counts * said, axis=1)
    all_of, yes = below[:, -1:], yes_below[:, -1:]
    below, yes_below = below[:, ends], yes_below[:, ends]
    return (values[ends] + values[ends + 1]) / 2, 2 * (yes - yes_below) / np.maximum(all_of - below + yes, 1)


def _best_offsets(values: Floats, said: Bools, counts: np.ndarray) -> Floats:
    """The cut of the largest F1 for each of b ways to count the answers, (b)."""
    cuts, scores = _f1_of_cuts(values, said, counts)
    best: Floats = cuts[scores.argmax(axis=1)]
    return best


def _best_offset(values: Floats, said: Bools, own: float) -> float:
    """The cut of the largest F1; of equal ones that in the widest gap, and ``own`` where none is better."""
    cuts, [scores] = _f1_of_cuts(values, said, np.ones((1, len(said))))
    if not len(cuts) or scores.max() <= _f1(values > own, said, np.ones((1, len(said))))[0]:
        return own
    ends = np.unique(values)
    best = max(np.flatnonzero(scores == scores.max()), key=lambda cut: ends[cut + 1] - ends[cut])
    return _written(float(cuts[best]), ends[best], ends[best + 1])


def _written(cut: float, low: float, high: float) -> float:
    """``cut`` in three digits, or as many more as it takes to stay between two margins."""
    rounded = (float(f"{cut:.{digits}g}") for digits in range(3, 17))
    return next((value for value in rounded if low <= value < high), cut)


def _held_out(values: Floats, said: Bools, own: float, rng: np.random.Generator) -> Bools:
    """Labels of each answer by an offset that was fitted to the answers of other folds."""
    fold = np.empty(len(said), np.int64)
    for kind in (said, ~said):
        fold[kind] = rng.permutation(int(kind.sum())) % _FOLDS
    labels = np.empty(len(said), bool)
    for number in range(_FOLDS):
        held = fold == number
        if held.any():
            labels[held] = values[held] > _best_offset(values[~held], said[~held], own)
    return labels
