"""Stage ``suggest-prompts``: from stored embeddings and labels to words that the prompt file lacks.

How a word is scored stands in :mod:`pipeline.suggestion.unexplained`; where two crops of some images are embedded, the
score is multiplied by κ, how far the labels that the word would give to both agree beyond chance. An image with L
labels counts 1/(1 + L) there, so the images that no prompt covers count most. They are also grouped by look, with the
words that fit each group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lanit.agreement import Agreement
from lanit.errors import LanitError
from pipeline.commands import store_option
from pipeline.progress import Progress
from pipeline.stability.agreements import agreements_of
from pipeline.stability.views import read_views
from pipeline.suggestion.suggest_figures import Shown, count_images, found_by
from pipeline.suggestion.unexplained import Pick, Scorer, pick_words, same_news
from pipeline.words.kmeans import cluster_centres
from pipeline.words.vocabulary import Vocabulary, new_words
from pipeline.words.word_directions import cached_directions, directions_of, known_readable

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.store.label_revisions import RevisionFile
    from pipeline.store.store import Store

DEFAULT_TOP = 10
DEFAULT_CLUSTERS = 8
SHOWN_WORDS = 5  # of a group
LEAST_SHARE = 0.1
"""A word that scores less than this share of what the median of the present prompts scores is not suggested."""

_SAMPLE = 4096  # images without a label, and as many with one, at most, on which words are compared
_SHORTLIST = 1024  # words compared more than once: bounds the memory for a vocabulary of any size
_SPARE = 3  # times as many words as asked for win under the first template, to be compared again
_ALSO = 3  # other names of one suggestion, at most
_FEWEST_EACH = 10  # images for each group on average; below, a group says little


@dataclass(frozen=True)
class Example:
    """An image that shows a word or a group. row: among those with status ok, in store order."""

    row: int
    image_id: str
    source: str
    path: str


@dataclass(frozen=True)
class Suggestion:
    """A word to add. also: words that catch the same images. score: see :mod:`pipeline.suggestion.unexplained`, a
    cosine. stability: κ of two crops; none where none are embedded, or the word would be on all of them, or on none.

    images: how many have a positive margin, under all templates; uncovered: how many of those have no label yet.
    """

    word: str
    also: tuple[str, ...]
    score: float
    images: int
    uncovered: int
    examples: tuple[Example, ...]
    stability: float | None = None


@dataclass(frozen=True)
class GroupWord:
    """score: the mean news over the group. share: of its images, those with a positive margin."""

    word: str
    score: float
    share: float


@dataclass(frozen=True)
class ImageGroup:
    """Images without a label that look alike. examples: those nearest the centre."""

    size: int
    words: tuple[GroupWord, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class SuggestReport:
    """What ``lanit suggest-prompts`` found. words: of the vocabulary; compared: those that this CLIP can read and that
    are no prompts yet. sampled: images on which they were compared; all counts are over all ``images``."""

    revision: int
    prompt_set: str
    images: int
    uncovered: int
    vocabulary: str
    words: int
    compared: int
    sampled: int
    suggestions: tuple[Suggestion, ...]
    groups: tuple[ImageGroup, ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class SuggestOptions:
    """top: suggestions at most. clusters: groups at most. seed: of the sample and of the groups."""

    top: int = DEFAULT_TOP
    clusters: int = DEFAULT_CLUSTERS
    seed: int = 0


@dataclass(frozen=True)
class _Sample:
    """Images on which words are compared. embeddings: float32 (s×k). importance: float64 (s), sums to 1.

    group_of: int64 (s), the group of an image without a label, −1 for one with a label. centres: float32 (groups×k).
    """

    embeddings: np.ndarray
    importance: np.ndarray
    group_of: np.ndarray
    centres: np.ndarray

    def groups(self) -> list[np.ndarray]:
        """bool (s), for each group its images."""
        return [self.group_of == number for number in range(len(self.centres))]

    def scorer(self, directions: np.ndarray, known: np.ndarray) -> Scorer:
        """directions: float32 (V×k), of words; known: float32 (p×k), of prompts."""
        return Scorer(directions @ self.embeddings.T, known @ self.embeddings.T, self.importance)


def suggest_prompts(
    store: Store,
    clip: ClipModel,
    vocabulary: Vocabulary,
    revision: int | None = None,
    options: SuggestOptions | None = None,
    progress: Progress | None = None,
) -> SuggestReport:
    """Rank the words of ``vocabulary`` by what they would say beyond the prompts of a label revision.

    All words are compared under the first template of its prompt set, the best of them again under all templates.
    progress: called with (words read, words in all). No image is opened; equal arguments give equal results.
    Raises LanitError where ``clip`` is not the model that filled the store, where the revision labels other images,
    where there is no word to compare, or where faiss is missing.
    """
    options = options or SuggestOptions()
    store.check_fingerprint(clip.fingerprint)
    labels = store.revision_file(revision)
    store.check_current(labels)
    if not labels.rows:
        raise LanitError(
            f"the store {store.root} has no image with an embedding", f"Run: lanit embed DIR{store_option(store.root)}"
        )
    prompts = labels.prompt_set
    words = known_readable(store, clip, vocabulary.words, prompts.templates)
    compared = new_words(words, prompts.domains)
    if not compared:
        message = f"the vocabulary '{vocabulary.name}' has no word that this CLIP knows and that is no prompt yet"
        raise LanitError(message, "Give other words with --vocabulary FILE.")
    counts = _labels_per_image(labels)
    sample = _sample(store, counts, options)
    first = prompts.first_template()
    directions = cached_directions(store, clip, first, words, progress)[compared]
    words = [words[n] for n in compared]
    finalists = _finalists(words, directions, directions_of(clip, first, prompts.domains), sample, options.top)
    directions, known = (directions_of(clip, prompts, phrases) for phrases in (finalists, prompts.domains))
    scorer = sample.scorer(directions, known)
    least = LEAST_SHARE * _typical_score(sample, known)
    agreements = _agreements(store, directions)
    trust = None if agreements is None else np.array([max(each.score, 0.0) for each in agreements])
    group_words = _group_words(scorer, finalists, sample, least, trust)
    picks = pick_words(scorer, finalists, options.top, least, trust)
    figures = count_images(store, counts == 0, found_by(picks, directions, known), sample.centres)
    example_of = _examples(store, [*figures.words, *figures.groups])
    groups = [
        ImageGroup(shown.images, said, tuple(example_of[row] for row in shown.rows))
        for said, shown in zip(group_words, figures.groups, strict=True)
    ]
    return SuggestReport(
        revision=labels.number,
        prompt_set=prompts.name,
        images=store.ok,
        uncovered=int((counts == 0).sum()),
        vocabulary=vocabulary.name,
        words=len(vocabulary.words),
        compared=len(compared),
        sampled=len(sample.embeddings),
        suggestions=tuple(
            _suggestion(finalists, pick, shown, example_of, agreements)
            for pick, shown in zip(picks, figures.words, strict=True)
        ),
        groups=tuple(sorted(groups, key=lambda group: -group.size)),
    )


def _agreements(store: Store, directions: np.ndarray) -> tuple[Agreement, ...] | None:
    """Of the labels of each word on two crops, where there are any. directions: float32 (V×k)."""
    views = read_views(store)
    return None if views is None else agreements_of(*(crop @ directions.T > 0 for crop in views.crops))


def _suggestion(
    words: Sequence[str],
    pick: Pick,
    shown: Shown,
    example_of: dict[int, Example],
    agreements: Sequence[Agreement] | None,
) -> Suggestion:
    return Suggestion(
        word=words[pick.word],
        also=tuple(words[other] for other in pick.also[:_ALSO]),
        score=pick.score,
        images=shown.images,
        uncovered=shown.uncovered,
        examples=tuple(example_of[row] for row in shown.rows),
        stability=None if agreements is None else agreements[pick.word].kappa,
    )


def _labels_per_image(labels: RevisionFile) -> np.ndarray:
    """int32 (n)"""
    return np.concatenate([block.active.sum(axis=1, dtype=np.int32) for block in labels.blocks(active=True)])


def _sample(store: Store, counts: np.ndarray, options: SuggestOptions) -> _Sample:
    """At most ``_SAMPLE`` images without a label and as many with one; each stands for its share of those."""
    rng = np.random.default_rng(options.seed)
    rows, importance = [], []
    for stratum in (np.flatnonzero(counts == 0), np.flatnonzero(counts)):
        chosen = np.sort(rng.choice(stratum, min(len(stratum), _SAMPLE), replace=False))
        rows.append(chosen)
        importance.append(len(stratum) / max(len(chosen), 1) / (1 + counts[chosen]))
    weight = np.concatenate(importance)
    embeddings = store.embeddings_of(np.concatenate(rows))
    bare = embeddings[: len(rows[0])]
    group_of, centres = np.full(len(embeddings), -1), np.empty((0, embeddings.shape[1]), np.float32)
    if len(bare):
        groups = max(1, min(options.clusters, len(bare) // _FEWEST_EACH))
        centres = cluster_centres(bare, groups, options.seed)
        filled, group_of[: len(bare)] = np.unique((bare @ centres.T).argmax(axis=1), return_inverse=True)
        centres = centres[filled]
    return _Sample(embeddings, weight / weight.sum(), group_of, centres)


def _finalists(words: Sequence[str], directions: np.ndarray, known: np.ndarray, sample: _Sample, top: int) -> list[str]:
    """Those of ``words`` that win overall or in a group, in their order.

    directions: float32 (V×k), of the words; known: float32 (p×k), of the prompts.
    """
    score, in_groups = [], []
    for start in range(0, len(words), _SHORTLIST):
        scorer = sample.scorer(directions[start : start + _SHORTLIST], known)
        score.append(scorer.scores())
        in_groups.append([scorer.scores(members) for members in sample.groups()])
    shortlist = np.sort(np.argsort(-np.concatenate(score), kind="stable")[:_SHORTLIST])
    scorer = sample.scorer(directions[shortlist], known)
    least = LEAST_SHARE * _typical_score(sample, known) / _SPARE  # with all templates, a word may score more
    picks = pick_words(scorer, [words[word] for word in shortlist], _SPARE * top, least)
    chosen = {int(shortlist[word]) for pick in picks for word in (pick.word, *pick.also[:_ALSO])}
    for group in zip(*in_groups, strict=True):
        order = np.argsort(-np.concatenate(group), kind="stable")
        chosen.update(order[: _SPARE * SHOWN_WORDS].tolist())
    return [words[word] for word in sorted(chosen)]


def _group_words(
    scorer: Scorer, words: Sequence[str], sample: _Sample, least: float, trust: np.ndarray | None
) -> list[tuple[GroupWord, ...]]:
    """For each group the words of the largest score there; of words that catch the same images, one."""
    found = []
    for members in sample.groups():
        scores = scorer.scores(members) * (1 if trust is None else trust)
        chosen: list[int] = []
        named: set[int] = set()
        for word in np.argsort(-scores, kind="stable").tolist():
            if len(chosen) == SHOWN_WORDS or scores[word] <= least:
                break
            if word not in named:
                chosen.append(word)
                named.update(same_news(scorer, scores, word))
        shares = (scorer.margins[:, members] > 0).mean(axis=1)
        found.append(tuple(GroupWord(words[word], float(scores[word]), float(shares[word])) for word in chosen))
    return found


def _typical_score(sample: _Sample, known: np.ndarray) -> float:
    """What the median of the present prompts scores if only the constant is expected of them."""
    return float(np.median(sample.scorer(known, known[:0]).scores()))


def _examples(store: Store, shown: Sequence[Shown]) -> dict[int, Example]:
    """Every row that is shown, by its number."""
    rows = sorted({row for each in shown for row in each.rows})
    table = store.images_of(np.array(rows, np.int64), ["image_id", "source", "path"])
    return {row: Example(row, **keys) for row, keys in zip(rows, table.to_pylist(), strict=True)}
