"""What to look at first: lists of images, of each how many are left to answer on and what an answer is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.inspection.clusters import cluster_rows, rows_of_some_parts
from pipeline.review.samples import next_of_sample, sample_of
from pipeline.review.workplace import Labelling, Workplace
from pipeline.stability.views import kept_views, views_path

SAMPLE_AT_ONCE = 200
_CLUSTERED = 4000  # unlabelled images drawn to be grouped
_SEED = 0
_LEAST_SEEN = 100  # images with crops, to judge others by
_LIKELY = 0.25  # chance of different labels, at most a half, from which on an image is worth looking at


@dataclass(frozen=True)
class Queue:
    """rows: int64, in the order to be looked at. worth: a sentence. groups: first positions in ``rows`` of groups, and
    what to call them; empty where there are none."""

    rows: np.ndarray
    worth: str
    groups: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Phrase:
    """One phrase of a labelling, as the queues need it. said: int8 (n), negative where nobody said anything."""

    place: Workplace
    labelling: Labelling
    domain: int

    @property
    def margins(self) -> np.ndarray:
        return self.labelling.columns[self.domain].margins

    @property
    def strata(self) -> np.ndarray:
        return self.labelling.columns[self.domain].strata

    @property
    def falling(self) -> np.ndarray:
        return self.labelling.columns[self.domain].falling

    @property
    def by_clip(self) -> np.ndarray:
        return self.labelling.columns[self.domain].by_clip

    @property
    def said(self) -> np.ndarray:
        return self.labelling.answers.values(self.domain)

    @property
    def offset(self) -> float:
        return self.labelling.revision.prompt_set.offsets[self.domain]


def queue_of(name: str, phrase: Phrase) -> Queue:
    """name: one of :data:`QUEUES`."""
    return QUEUES[name](phrase)


def _near(phrase: Phrase) -> Queue:
    waiting = np.flatnonzero(phrase.said < 0)
    nearness = np.abs(phrase.margins[waiting] - np.float32(phrase.offset))
    rows = waiting[np.argsort(nearness, kind="stable")]
    return Queue(rows, "CLIP is least sure of these: they say where the threshold belongs.")


def _first(phrase: Phrase) -> Queue:
    """By turns, until the sample of this time is used up; then the nearest."""
    near, sample = _near(phrase).rows, _random(phrase).rows
    turns = np.stack([sample, near[: len(sample)]], axis=1).ravel() if len(near) >= len(sample) else sample
    turns = np.array(list(dict.fromkeys(turns.tolist())), np.int64)
    rows = np.concatenate([turns, near[~np.isin(near, turns, kind="table")]])
    worth = "By turns near the threshold, which says where it belongs, and at random, which says how good labels are."
    return Queue(rows, worth)


def _random(phrase: Phrase) -> Queue:
    keys, said = phrase.place.random_keys, phrase.said
    sample = sample_of(keys, phrase.strata, said)
    rows = next_of_sample(keys, sample, said, phrase.by_clip, SAMPLE_AT_ONCE)
    worth = "Drawn at random, more of them where CLIP may be wrong: the figures rest on these answers alone."
    return Queue(rows, f"{worth} So far {sample.size:,}; with four times as many the interval is half as wide.")


def _unstable(phrase: Phrase) -> Queue:
    """Of the images with two crops those whose crops get different labels, the largest difference first; then those
    without, in the order of the chance that crops of theirs would."""
    store, column = phrase.place.store, phrase.domain
    kept = kept_views(views_path(store), store.embedding_dim)
    stability = _view_margins(phrase)
    if kept is None or stability is None:
        return Queue(np.empty(0, np.int64), "No crops are kept of this revision: lanit label --views makes them.")
    active, margins = (each[:, :, column] for each in stability)
    ids = pa.array(np.char.decode(kept["image_id"], "ascii"), pa.string())
    place = pc.fill_null(pc.index_in(phrase.place.image_ids, value_set=ids), -1).to_numpy()
    seen = np.flatnonzero(place >= 0)  # rows of the store, and which of the crops are theirs
    crops = place[seen]
    differ = np.flatnonzero(active[0, crops] != active[1, crops])
    spread = np.abs(margins[0, crops[differ]] - margins[1, crops[differ]])
    observed = seen[differ[np.argsort(-spread, kind="stable")]]
    share = len(differ) / max(len(seen), 1)
    worth = (
        f"Two crops of the first {len(differ):,} got different labels, {100 * share:.1f} % of the {len(seen):,} that "
        "have two: here the label says more about the crop than about the image."
    )
    if phrase.labelling.revision.rule.kind != "adaptive" or len(seen) < _LEAST_SEEN:
        return Queue(observed, worth)
    chances = disagreement(phrase.margins, phrase.margins[seen], margins[:, crops], phrase.offset)
    chances[seen] = 0
    others = np.flatnonzero(chances >= _LIKELY)
    others = others[np.argsort(-chances[others], kind="stable")]
    worth += " Of the others no crops are kept; so far from the threshold as they are, crops of them differ as often."
    return Queue(np.concatenate([observed, others]), worth)


def disagreement(margins: np.ndarray, seen: np.ndarray, crops: np.ndarray, offset: float) -> np.ndarray:
    """The chance that two crops of an image get different labels, float64 (n), of its margin (n).

    seen, crops: margins of m images, and of two crops of each (2×m), which give the line and the spread of the margin
    of a crop about that of its image, normal and the same everywhere.
    """
    both = np.concatenate([seen, seen]).astype(np.float64)
    slope, level = np.polyfit(both, crops.ravel().astype(np.float64), 1)
    spread = max(float(np.std(crops.ravel() - slope * both - level)), 1e-9)
    above = 1 / (1 + np.exp(-np.clip(1.702 * (slope * margins + level - offset) / spread, -30, 30)))  # nearly normal
    chances: np.ndarray = 2 * above * (1 - above)
    return chances


def _view_margins(phrase: Phrase) -> tuple[np.ndarray, np.ndarray] | None:
    from pipeline.stability.agreements import read_view_labels

    found = read_view_labels(phrase.place.store, phrase.labelling.revision)
    return None if found is None else (found.active, found.margins)


def _against(phrase: Phrase) -> Queue:
    said = phrase.said
    rows = np.flatnonzero((said >= 0) & ((said == 1) != phrase.by_clip))
    farthest = np.argsort(-np.abs(phrase.margins[rows] - np.float32(phrase.offset)), kind="stable")
    return Queue(rows[farthest], "People say otherwise than CLIP, where CLIP is surest first: a slip of a key shows "
                                 "here, and so does what the phrase does not mean to CLIP.")  # fmt: skip


def _unlabelled(phrase: Phrase) -> Queue:
    """In groups of look-alikes, the largest first."""
    labelling, store = phrase.labelling, phrase.place.store
    none = np.ones(store.ok, bool)
    for block in labelling.revision.blocks(active=True):
        none[block.start : block.start + block.rows] = ~block.active.any(axis=1)
    for domain in range(len(labelling.revision.domains)):
        if labelling.answers.count(domain):
            none &= labelling.answers.values(domain) != 1
    rows = np.flatnonzero(none)
    worth = "No phrase describes these: an answer here gives an image its first label, a group of them asks for a word."
    if not len(rows):
        return Queue(rows, worth)
    drawn = rows_of_some_parts(store, rows, _SEED)
    rng = np.random.default_rng(_SEED)
    drawn = np.sort(rng.choice(drawn, min(_CLUSTERED, len(drawn)), replace=False))
    clusters = cluster_rows(store, labelling.revision, drawn, len(drawn), _SEED)
    starts = np.cumsum([0, *(len(each.rows) for each in clusters)])
    names = (f"{100 * each.share:.0f} % of the unlabelled, nearest to {each.closest}" for each in clusters)
    ordered = np.array([row for each in clusters for row in each.rows], np.int64)
    return Queue(ordered, worth, tuple(zip(starts.tolist(), names, strict=False)))


def _by_margin(on: bool, surest: bool, worth: str) -> Callable[[Phrase], Queue]:
    def made(phrase: Phrase) -> Queue:
        labels = phrase.labelling.labels(phrase.domain)
        rows = np.flatnonzero(labels == on)
        falling = on == surest
        margins = phrase.margins[rows]
        return Queue(rows[np.argsort(-margins if falling else margins, kind="stable")], worth)

    return made


def _all(phrase: Phrase) -> Queue:
    return Queue(np.arange(phrase.place.store.ok), "Every image, in the order of the store.")


QUEUES: dict[str, Callable[[Phrase], Queue]] = {
    "first": _first,
    "near": _near,
    "random": _random,
    "unstable": _unstable,
    "against": _against,
    "unlabelled": _unlabelled,
    "surest": _by_margin(True, True, "All with the label, the surest first: a wrong one among the first is a word "
                                     "misunderstood."),
    "above": _by_margin(True, False, "With the label by a hair: too many wrong ones ask for a higher threshold."),
    "below": _by_margin(False, False, "Without the label by a hair: too many that have it ask for a lower one."),
    "least": _by_margin(False, True, "Without the label, the surest first."),
    "all": _all,
}  # fmt: skip
"""What can be looked at, by the name that the page gives it."""


def left(phrase: Phrase, rows: np.ndarray) -> int:
    """How many of ``rows`` nobody has answered on."""
    return int((phrase.said[rows] < 0).sum())
