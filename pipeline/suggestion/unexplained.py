"""What a word would say about images beyond what is said already: the score of ``lanit suggest-prompts``.

The *news* of a word about an image is how far naming it beats both the base prompt and what the present prompts lead
to expect of that image: m − e where m > 0 and m > e, else 0. m is the word's margin, f_word − f_base. e is a constant
plus a sum of the present prompts' margins with weights of at least 0, fitted to m over all images by least squares.
The constant takes from a word what it says of every image; the sum what other words say as well, so that synonyms of a
prompt and pairs of prompts ("black hat" beside "black hair" and "wearing hat") score next to nothing. No weight is
negative, because the absence of other labels describes no image: with one hair colour left out, it would follow from
the others and never be found. The *score* is the weighted mean of the news over images, times the weighted share of the
images that the word would not label, since a label that all have tells none of them from the others. Words are picked
one at a time, and each then counts as a prompt, so that the next one says something new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SAME_NEWS = 0.9
"""Words whose news have at least this cosine over the images catch the same ones: one suggestion, not two."""

NEARLY_AS_MUCH = 0.85
"""A phrase that contains the best of such words and scores at least this share of it is the clearer name for it."""

HALF_AS_MUCH = 0.5
"""Words of the same news that score less than this share of the best are no other names for it."""

_BLOCK = 256  # words compared at once
_SWEEPS = 200
_TOLERANCE = 1e-4  # of the largest standard deviation of a margin


@dataclass(frozen=True)
class Pick:
    """A word worth suggesting. word: its number. also: numbers of words that catch the same images, best first.

    constant, weights (p): the expectation that its news exceeds; p counts the prompts and the words picked before it.
    """

    word: int
    also: tuple[int, ...]
    score: float
    constant: float
    weights: np.ndarray


class Scorer:
    """Scores V words over s images against p prompts, to which words that are picked are added.

    constant: float64 (V), and weights: float64 (V×p), at least 0: what the prompts lead to expect of each word.
    """

    def __init__(self, margins: np.ndarray, known: np.ndarray, importance: np.ndarray) -> None:
        """margins: float32 (V×s), of the words. known: float32 (p×s), of the prompts. importance: (s), sum 1."""
        self.margins = margins
        self.known = known.astype(np.float32)
        self.importance = importance.astype(np.float32)
        self._mean = self._over_images(lambda each: each)
        self._unlabelled = self._over_images(lambda each: each <= 0)
        variance = self._over_images(np.square) - self._mean**2
        self._tolerance = _TOLERANCE * float(np.sqrt(variance.max(initial=0)))
        self._cross = self._covariances(self.known)
        self._fit(np.zeros((len(margins), len(known))))

    def scores(self, among: np.ndarray | None = None) -> np.ndarray:
        """(V), of every word against the prompts so far. among: bool (s), images that alone count, and equally."""
        weights = self.importance if among is None else (among / among.sum()).astype(np.float32)
        means = [self._news(words) @ weights for words in self._blocks()]
        return np.concatenate([np.empty(0), *means]) * self._unlabelled

    def likeness(self, word: int, others: np.ndarray) -> np.ndarray:
        """Cosines of the news of ``word`` and of each of ``others`` over the images, (others); 0 without news."""
        mine, theirs = self._news(np.array([word]))[0], self._news(others)
        norms = np.sqrt((mine**2 @ self.importance) * (theirs**2 @ self.importance))
        return np.divide(theirs @ (self.importance * mine), norms, out=np.zeros_like(norms), where=norms > 0)

    def add(self, word: int) -> None:
        """Let ``word`` count as a prompt from here on."""
        margins = self.margins[word : word + 1]
        self.known = np.concatenate([self.known, margins])
        self._cross = np.concatenate([self._cross, self._covariances(margins)], axis=1)
        self._fit(np.concatenate([self.weights, np.zeros((len(self.margins), 1))], axis=1))

    def _fit(self, start: np.ndarray) -> None:
        centre = self.known @ self.importance
        centred = (self.known - centre[:, None]).astype(np.float64)
        self.weights = _least_squares((centred * self.importance) @ centred.T, self._cross, start, self._tolerance)
        self.constant = self._mean - self.weights @ centre

    def _covariances(self, known: np.ndarray) -> np.ndarray:
        """With every word, float64 (V × rows of ``known``)."""
        centred = (known - (known @ self.importance)[:, None]) * self.importance
        cross: np.ndarray = self.margins @ centred.T
        return cross.astype(np.float64)

    def _over_images(self, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The weighted mean of a function of the margins, float64 (V)."""
        means = [function(self.margins[words]) @ self.importance for words in self._blocks()]
        return np.concatenate([np.empty(0), *means])

    def _blocks(self) -> Iterator[slice]:
        return (slice(start, start + _BLOCK) for start in range(0, len(self.margins), _BLOCK))

    def _news(self, words: slice | np.ndarray) -> np.ndarray:
        """float32 (words×s), at least 0."""
        margins = self.margins[words]
        beyond = margins - self.weights[words].astype(np.float32) @ self.known
        beyond -= self.constant[words, None].astype(np.float32)
        np.maximum(beyond, 0, out=beyond)
        beyond[margins <= 0] = 0
        return beyond


def pick_words(
    scorer: Scorer, phrases: Sequence[str], count: int, least: float = 0.0, trust: np.ndarray | None = None
) -> list[Pick]:
    """At most ``count`` words, best first, each scoring more than ``least`` beside those before it.

    phrases: the V words themselves. trust: float (V), what their scores are multiplied by. ``scorer`` counts the picked
    words as prompts afterwards.
    """
    picks: list[Pick] = []
    taken = np.zeros(len(phrases), bool)
    while len(picks) < count and not taken.all():
        scores = np.where(taken, -1, scorer.scores() * (1 if trust is None else trust))
        best = int(scores.argmax())
        if scores[best] <= least:
            break
        order = same_news(scorer, scores, best)
        clearer = [word for word in order if _says_more(phrases[word], phrases[best])]
        word = next((word for word in clearer if scores[word] >= NEARLY_AS_MUCH * scores[best]), best)
        also = tuple(other for other in order if other != word)
        picks.append(Pick(word, also, float(scores[word]), float(scorer.constant[word]), scorer.weights[word].copy()))
        taken[order] = True
        scorer.add(word)
    return picks


def same_news(scorer: Scorer, scores: np.ndarray, word: int) -> list[int]:
    """Words that catch the same images as ``word`` and score at least ``HALF_AS_MUCH`` of what it does, best first.

    scores: (V). ``word`` is one of them.
    """
    close = np.flatnonzero(scores >= HALF_AS_MUCH * scores[word])
    close = close[np.argsort(-scores[close], kind="stable")]
    return [int(each) for each in close[scorer.likeness(word, close) >= SAME_NEWS]]


def _says_more(phrase: str, word: str) -> bool:
    """Whether ``phrase`` has all that ``word`` has, and more."""
    return set(word.casefold().split()) < set(phrase.casefold().split())


def _least_squares(gram: np.ndarray, cross: np.ndarray, start: np.ndarray, tolerance: float) -> np.ndarray:
    """Weights W ≥ 0 (V×p) that minimise tr(W·gram·Wᵀ) − 2·tr(W·crossᵀ), by coordinate descent from ``start``.

    gram: (p×p), covariances of the prompts' margins. cross: (V×p), theirs with the words'. tolerance: of the margins.
    """
    weights = np.ascontiguousarray(start.T)
    useful = [row for row in range(len(gram)) if gram[row, row] > 0]
    for _ in range(_SWEEPS):
        change = 0.0
        for row in useful:
            step = (cross[:, row] - gram[row] @ weights) / gram[row, row]
            new = np.maximum(weights[row] + step, 0)
            change = max(change, float(np.abs(new - weights[row]).max(initial=0)) * float(np.sqrt(gram[row, row])))
            weights[row] = new
        if change <= tolerance:
            break
    return np.ascontiguousarray(weights.T)
