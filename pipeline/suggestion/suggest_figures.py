"""How many images of a store each suggested word and group has, and which show it best, in one pass over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.suggestion.unexplained import Pick

if TYPE_CHECKING:
    from pipeline.store.store import Store

SHOWN = 5  # images of each word and group
_SPARE = 4  # times as many candidates: copies of an image are shown once


@dataclass(frozen=True)
class Found:
    """How to find the images of a word. direction: float32 (k), times an embedding its margin.

    news: float32 (k), and constant: times an embedding, less the constant, what the margin exceeds the expected one by.
    """

    direction: np.ndarray
    news: np.ndarray
    constant: float


@dataclass(frozen=True)
class Shown:
    """images: of the word or the group; uncovered: those without a label. rows: the best, best first."""

    images: int
    uncovered: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Figures:
    """One entry for each word and for each group."""

    words: tuple[Shown, ...]
    groups: tuple[Shown, ...]


@dataclass
class _Tally:
    """images, uncovered: so far. keys, rows: the highest keys and their rows, highest first."""

    images: int = 0
    uncovered: int = 0
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def add(self, keys: np.ndarray, mine: np.ndarray, bare: np.ndarray, start: int) -> None:
        """keys: (b), of rows ``start`` and on; mine, bare: bool (b), which belong here, which have no label."""
        chosen = np.flatnonzero(mine)
        self.images += len(chosen)
        self.uncovered += int(bare[chosen].sum())
        if len(self.keys) == SHOWN * _SPARE:
            chosen = chosen[keys[chosen] > self.keys[-1]]
        keys, rows = np.append(self.keys, keys[chosen]), np.append(self.rows, chosen + start)
        order = np.lexsort((rows, -keys))[: SHOWN * _SPARE]
        self.keys, self.rows = keys[order], rows[order]


def found_by(picks: Sequence[Pick], directions: np.ndarray, known: np.ndarray) -> list[Found]:
    """directions: float32 (V×k), of all words; known: float32 (p×k), of the prompts."""
    found, said = [], known
    for pick in picks:
        direction = directions[pick.word]
        news = direction - pick.weights.astype(np.float32) @ said
        found.append(Found(direction, news, pick.constant))
        said = np.concatenate([said, direction[None]])
    return found


def count_images(store: Store, bare: np.ndarray, words: Sequence[Found], centres: np.ndarray) -> Figures:
    """bare: bool (n), the images without a label, which ``centres``, float32 (groups×k), divide into groups.

    An image belongs to a word where its margin is positive, and shows it the better, the more that margin exceeds what
    the prompts lead to expect; to the group of its nearest centre, and shows it the better, the nearer it is.
    """
    dim = store.embedding_dim
    directions = np.array([word.direction for word in words], np.float32).reshape(-1, dim)
    news = np.array([word.news for word in words], np.float32).reshape(-1, dim)
    word_tallies, group_tallies = [_Tally() for _ in words], [_Tally() for _ in centres]
    start = 0
    for part in store.embedding_parts():
        mine = bare[start : start + len(part)]
        margin, beyond = part @ directions.T, part @ news.T
        for n, tally in enumerate(word_tallies):
            tally.add(beyond[:, n] - words[n].constant, margin[:, n] > 0, mine, start)
        if len(centres):
            closeness = part @ centres.T
            nearest = np.where(mine, closeness.argmax(axis=1), -1)
            for n, tally in enumerate(group_tallies):
                tally.add(closeness[:, n], nearest == n, mine, start)
        start += len(part)
    content = _content_of(store, [*word_tallies, *group_tallies])
    return Figures(*(tuple(_shown(each, content) for each in side) for side in (word_tallies, group_tallies)))


def _content_of(store: Store, tallies: Sequence[_Tally]) -> dict[int, str]:
    rows = np.unique(np.concatenate([np.empty(0, np.int64), *(tally.rows for tally in tallies)]))
    return dict(zip(rows.tolist(), store.images_of(rows, ["sha256"])["sha256"].to_pylist(), strict=True))


def _shown(tally: _Tally, content: dict[int, str]) -> Shown:
    different = {content[row]: row for row in reversed(tally.rows.tolist())}  # of equal images, the best row
    rows = [row for row in tally.rows.tolist() if different[content[row]] == row]
    return Shown(tally.images, tally.uncovered, tuple(rows[:SHOWN]))
