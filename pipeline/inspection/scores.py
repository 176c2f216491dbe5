"""Labels against known truth: precision, recall, F1 and average precision, and what is mistaken for what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lanit.errors import LanitError
from pipeline.labelling.known_labels import Truth

if TYPE_CHECKING:
    from pipeline.store.label_revisions import Labels

CONFUSIONS = 10
"""Confusions listed at most."""

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DomainScores:
    """One prompt against truth. count: images that carry it. average_precision: ranked by margin; None at count 0.

    best_offset: the offset of the prompt file with the best F1 on these images, and best_f1 what it would be under the
    adaptive rule; None at count 0.
    """

    domain: str
    count: int
    precision: float
    recall: float
    f1: float
    average_precision: float | None
    best_offset: float | None = None
    best_f1: float | None = None


@dataclass(frozen=True)
class Confusion:
    """Images that carry ``actual`` but lack its label, and are labelled ``predicted`` wrongly.

    share: of the images that carry ``actual``.
    """

    actual: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Scores:
    """Labels against truth, over the images and domains known to both; a ratio over nothing is 0, as in scikit-learn.

    images: scored; without_truth: labelled images that the truth lacks; not_in_store: truth rows without an image here.
    micro: over all entries; macro: mean over domains. micro_average_precision ranks all entries together.
    subset_accuracy: the share of images on which every scored domain is right. confusions: the most frequent first.
    """

    images: int
    without_truth: int
    not_in_store: int
    domains: tuple[DomainScores, ...]
    domains_without_truth: tuple[str, ...]
    micro_precision: float
    micro_recall: float
    micro_f1: float
    micro_average_precision: float | None
    macro_precision: float
    macro_recall: float
    macro_f1: float
    mean_average_precision: float | None
    subset_accuracy: float
    confusions: tuple[Confusion, ...]


def keys_of(revision: Labels) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """image_id and path of every row."""
    chunks = [(block.image_ids, block.paths) for block in revision.blocks(keys=True)]
    ids, paths = (pa.chunked_array([chunk[side] for chunk in chunks], pa.string()) for side in (0, 1))
    return ids, paths


def score(revision: Labels, truth: Truth) -> Scores:
    """Compare a revision with the truth of its images.

    Holds the margins of the images that have truth, 4 bytes for each domain. Raises LanitError where revision and
    truth have no image in common, or the truth has blanks.
    """
    if truth.known is not None:
        raise LanitError("the truth leaves some labels blank", "Write 0 or 1 everywhere.")
    rows = truth.align(*keys_of(revision))
    names = [name for name in revision.domains if name in truth.domains]
    columns = [revision.domains.index(name) for name in names]
    labels = truth.labels[:, [truth.domains.index(name) for name in names]]
    table = _Table(len(names), int((rows >= 0).sum()))
    for block in revision.blocks(active=True, margin=True):
        positions = rows[block.start : block.start + block.rows]
        has = positions >= 0
        table.add(block.active[:, columns][has], block.margin[:, columns][has], labels[positions[has]])
    domains = tuple(table.domain(n, name) for n, name in enumerate(names))
    precisions = [each.average_precision for each in domains if each.average_precision is not None]
    micro = _ratios(int(table.right.sum()), int(table.predicted.sum()), int(table.actual.sum()))
    return Scores(
        images=table.images,
        without_truth=len(rows) - table.images,
        not_in_store=0 if truth.key == "folder" else len(truth.keys) - table.images,
        domains=domains,
        domains_without_truth=tuple(name for name in revision.domains if name not in names),
        micro_precision=micro[0],
        micro_recall=micro[1],
        micro_f1=micro[2],
        micro_average_precision=average_precision(table.margin.ravel(), table.truth.ravel()),
        macro_precision=float(np.mean([each.precision for each in domains])),
        macro_recall=float(np.mean([each.recall for each in domains])),
        macro_f1=float(np.mean([each.f1 for each in domains])),
        mean_average_precision=float(np.mean(precisions)) if precisions else None,
        subset_accuracy=table.all_right / table.images,
        confusions=_confusions(names, table),
    )


class _Table:
    """Counts of agreement, and margins and truth of the scored images, domain by domain: (D×n)."""

    def __init__(self, domains: int, images: int) -> None:
        self.images = 0
        self.all_right = 0
        self.right: Ints = np.zeros(domains, np.int64)
        self.predicted: Ints = np.zeros(domains, np.int64)
        self.actual: Ints = np.zeros(domains, np.int64)
        self.mistaken: Ints = np.zeros((domains, domains), np.int64)
        self.margin = np.empty((domains, images), np.float32)
        self.truth = np.empty((domains, images), np.bool_)

    def add(self, predicted: Bools, margin: Floats, actual: Bools) -> None:
        """All (b×D)."""
        rows = slice(self.images, self.images + len(actual))
        self.margin[:, rows], self.truth[:, rows] = margin.T, actual.T
        self.images += len(actual)
        self.all_right += int((predicted == actual).all(axis=1).sum())
        self.right += (predicted & actual).sum(axis=0)
        self.predicted += predicted.sum(axis=0)
        self.actual += actual.sum(axis=0)
        missed, wrong = (actual & ~predicted).astype(np.float32), (predicted & ~actual).astype(np.float32)
        self.mistaken += (missed.T @ wrong).astype(np.int64)

    def domain(self, n: int, name: str) -> DomainScores:
        count = int(self.actual[n])
        ratios = _ratios(int(self.right[n]), int(self.predicted[n]), count)
        if not count:
            return DomainScores(name, count, *ratios, None)
        ranked = _rank(self.margin[n], self.truth[n])
        return DomainScores(name, count, *ratios, ranked.average_precision(), *ranked.best_offset())


def _ratios(right: int, predicted: int, actual: int) -> tuple[float, float, float]:
    return right / max(predicted, 1), right / max(actual, 1), 2 * right / max(predicted + actual, 1)


@dataclass(frozen=True)
class _Ranked:
    """At each distinct value, largest first: how many entries are at least it, and how many of those are true."""

    values: Floats
    entries: Ints
    right: Ints

    def average_precision(self) -> float:
        recall = self.right / self.right[-1]
        return float((np.diff(recall, prepend=0.0) * self.right / self.entries).sum())

    def best_offset(self) -> tuple[float, float]:
        f1 = 2 * self.right / (self.entries + self.right[-1])
        best = int(np.argmax(f1))
        value = float(self.values[best])
        below = float(self.values[best + 1]) if best + 1 < len(self.values) else value - abs(value) - 1e-6
        return (value + below) / 2, float(f1[best])


def _rank(ranking: Floats, actual: Bools) -> _Ranked:
    order = np.argsort(-ranking)
    values = ranking[order]
    ends = np.append(np.flatnonzero(np.diff(values)), len(order) - 1)  # ties are taken together
    return _Ranked(values[ends], ends + 1, np.cumsum(actual[order])[ends])


def average_precision(ranking: Floats, actual: Bools) -> float | None:
    """Σ (R_i − R_{i−1}) P_i over the distinct values of ``ranking`` (n), largest first; None without a positive."""
    return _rank(ranking, actual).average_precision() if actual.any() else None


def _confusions(names: list[str], table: _Table) -> tuple[Confusion, ...]:
    pairs = [(int(table.mistaken[a, b]), a, b) for a in range(len(names)) for b in range(len(names))]
    worst = sorted((pair for pair in pairs if pair[0]), key=lambda pair: (-pair[0], pair[1:]))[:CONFUSIONS]
    return tuple(Confusion(names[a], names[b], count, count / int(table.actual[a])) for count, a, b in worst)
