"""Domains that nobody listed: clusters of look-alikes, named by the words nearest to them (METHOD §7).

What all images have in common says nothing about a cluster, so words are ranked by how much more they say of it than of
the images on the whole: (c − m)·ū_word for its centre c and the mean m of all embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lanit.errors import LanitError
from lanit.linear_head import LinearHead
from lanit.rules import K_MEANS, MUTUAL_INFORMATION, Rule
from pipeline.commands import store_option
from pipeline.progress import Progress
from pipeline.prompts.prompt_sets import PromptSet, prompt_set_of
from pipeline.words.kmeans import cluster_centres
from pipeline.words.vocabulary import Vocabulary, new_words
from pipeline.words.word_directions import cached_directions, directions_of, known_readable

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.store.store import Store

MOST_FITTED = 65_536
"""Images that k-means sees, at most: bounds its memory and its time at any size of the store."""

_FINALISTS = 16  # words of each cluster that are read in all templates, at least
_BEHIND = 16.0  # more than any two values of (c − m)·(ū_word − ū_base) differ, each of which is within ±4


@dataclass(frozen=True)
class Clusters:
    """K clusters, those of most images first. prompts: their names, as a prompt set. head: gives each image the
    nearest centre, unit-norm float32 (K×k), under ``rule``. fitted: images that they were found in."""

    prompts: PromptSet
    head: LinearHead
    rule: Rule
    fitted: int


def find_clusters(
    store: Store,
    clip: ClipModel,
    count: int,
    vocabulary: Vocabulary,
    *,
    noun: str | None = None,
    seed: int = 0,
    by: str = K_MEANS,
    progress: Progress | None = None,
) -> Clusters:
    """Group the images of ``store`` into ``count`` clusters, and name each by a word.

    by: spherical k-means, or mutual information of two crops of some images (which are embedded where they are not
    yet), beginning at those.

    vocabulary: the words to choose from; no two clusters get the same one, nor two forms of one while there are others.
    noun: what the images show; gives the templates that the names are put into. seed: of the sample and of k-means.
    progress: called with (words read, words in all). Equal arguments give equal clusters.
    Raises LanitError where ``clip`` is not the model that filled the store, where the images do not fill the clusters,
    where ``clip`` knows too few of the words, or where faiss is missing.
    """
    store.check_fingerprint(clip.fingerprint)
    rule = Rule("clusters", count, seed, by)
    if store.ok < count:
        message = f"the store {store.root} has {store.ok} images with an embedding, too few for {count} clusters"
        fewer = f"Try --clusters {store.ok}, or embed" if store.ok > 1 else "Embed"
        raise LanitError(message, f"{fewer} more: lanit embed DIR{store_option(store.root)}")
    every_word, words = _words_for(store, clip, count, vocabulary, noun)
    embeddings = store.embeddings_of(_fitted_rows(store.ok, seed))
    centres = _filled(cluster_centres(embeddings, count, seed), embeddings)
    head = LinearHead(centres, np.zeros(count, np.float32), one_hot=True)
    if by == MUTUAL_INFORMATION:
        from pipeline.stability.crops import make_views
        from pipeline.stability.information_clusters import information_head

        head = information_head(make_views(store, clip, progress), centres, progress)
        head, centres = _ordered(head, embeddings)
    mean = embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
    names = _named(store, clip, centres, mean, every_word, words, progress)
    return Clusters(every_word.about(names), head, rule, len(embeddings))


def nearest_names(
    store: Store,
    clip: ClipModel,
    centres: np.ndarray,
    mean: np.ndarray,
    vocabulary: Vocabulary,
    taken: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[str]:
    """A word for each of K clusters, however they were found: centres, float32 (K×k), mean embeddings of their images;
    mean, (k), that of all. taken: names that are none of theirs, in no form. Raises LanitError as above."""
    every_word, words = _words_for(store, clip, len(centres) + len(taken), vocabulary, None)
    free = [words[n] for n in new_words(words, taken)]
    if len(free) < len(centres):
        raise LanitError(f"the vocabulary '{vocabulary.name}' has too few words to name {len(centres)} clusters")
    return _named(store, clip, centres, mean, every_word, free, progress)


def _words_for(
    store: Store, clip: ClipModel, count: int, vocabulary: Vocabulary, noun: str | None
) -> tuple[PromptSet, list[str]]:
    """All words in their templates, and those that ``clip`` can read. Raises LanitError where those are too few."""
    every_word = prompt_set_of(vocabulary.words, f"the vocabulary {vocabulary.name}", f"clusters-{count}", noun)
    words = known_readable(store, clip, every_word.domains, every_word.templates)
    if len(words) < count:
        raise LanitError(
            f"the vocabulary '{vocabulary.name}' has {len(words)} words that this CLIP knows, too few to name "
            f"{count} clusters",
            "Give more with --words FILE" + (f", or try --clusters {len(words)}." if len(words) > 1 else "."),
        )
    return every_word, words


def _named(
    store: Store,
    clip: ClipModel,
    centres: np.ndarray,
    mean: np.ndarray,
    every_word: PromptSet,
    words: Sequence[str],
    progress: Progress | None,
) -> list[str]:
    directions = cached_directions(store, clip, every_word.first_template(), words, progress)
    finalists = _finalists(_values(centres, mean, directions))
    chosen = [words[n] for n in finalists]
    values = _values(centres, mean, directions_of(clip, every_word, chosen, progress))
    return [chosen[n] for n in name_each(values, chosen)]


def name_each(values: np.ndarray, words: Sequence[str]) -> list[int]:
    """For each of K clusters the number of its word, no word twice: the pair of the highest value first, and so on.

    values: float (K×V), K ≤ V. Another form of a word that is taken ("smile", "smiling") is taken only where no other
    word is left.
    """
    left = values.astype(np.float64)
    names = [-1] * len(left)
    for _ in names:
        cluster, word = np.unravel_index(int(left.argmax()), left.shape)
        names[int(cluster)] = int(word)
        fresh = np.zeros(len(words), bool)
        fresh[new_words(words, [words[int(word)]])] = True
        left[:, ~fresh] -= _BEHIND
        left[cluster, :] = left[:, word] = -np.inf
    return names


def _fitted_rows(rows: int, seed: int) -> np.ndarray:
    """Numbers of the images that k-means sees, int64, rising."""
    if rows <= MOST_FITTED:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, MOST_FITTED, replace=False, shuffle=False))


def _filled(centres: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """The centres (K×k), that of most images first. Raises LanitError where one has no image."""
    sizes = np.bincount((embeddings @ centres.T).argmax(axis=1), minlength=len(centres))
    filled = int((sizes > 0).sum())
    if filled < len(centres):
        raise LanitError(
            f"the images fall into {filled} clusters, not {len(centres)}: too many are the same",
            f"Try --clusters {filled}." if filled > 1 else "Label by words: --prompts FILE in the place of --clusters.",
        )
    return np.ascontiguousarray(centres[np.argsort(-sizes, kind="stable")])


def _ordered(head: LinearHead, embeddings: np.ndarray) -> tuple[LinearHead, np.ndarray]:
    """The head, that of most images first, and the mean embedding of each of its clusters, unit-norm (K×k).

    Raises LanitError where one has no image.
    """
    labels = head.labels(embeddings)
    sizes = labels.sum(axis=0)
    if not sizes.all():
        filled = int((sizes > 0).sum())
        message = f"by mutual information the images fall into {filled} clusters, not {len(sizes)}"
        raise LanitError(message, f"Try --clusters {max(filled, 2)}, or leave out --by.")
    order = np.argsort(-sizes, kind="stable")
    means = labels.T[order].astype(np.float32) @ embeddings
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return LinearHead(head.weights[order], head.bias[order], one_hot=True), means


def _values(centres: np.ndarray, mean: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """How well each word names each cluster, float32 (K×V); see the module.

    centres: (K×k). mean: (k), of all embeddings. directions: ū_word − ū_base, (V×k).
    """
    values: np.ndarray = (centres - mean) @ directions.T
    return values


def _finalists(values: np.ndarray) -> np.ndarray:
    """Numbers of the words, rising, that are among the best of a cluster: for each at least as many as clusters."""
    each = min(max(_FINALISTS, len(values)), values.shape[1])
    best = np.argsort(-values, axis=1, kind="stable")[:, :each]
    return np.unique(best)
