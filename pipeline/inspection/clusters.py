"""Images that no phrase describes, in groups of look-alikes: what a list of words leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.words.kmeans import cluster_centres

if TYPE_CHECKING:
    from pipeline.store.label_revisions import RevisionFile
    from pipeline.store.store import Store

MOST_CLUSTERS = 8
MOST_READ = 500_000  # images of the parts whose embeddings are read: enough to draw a sample from
_FEWEST_EACH = 12  # images for each cluster on average; below, a cluster says little

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Cluster:
    """Images alike. share: of the images clustered. rows: those nearest the centre, nearest first.
    closest: the domain of the largest mean margin, and that margin."""

    share: float
    rows: tuple[int, ...]
    closest: str
    margin: float


def cluster_rows(store: Store, revision: RevisionFile, rows: Ints, each: int, seed: int) -> tuple[Cluster, ...]:
    """Group ``rows`` (rising, at least one) by spherical k-means of their embeddings, largest group first.

    revision: current, so that its rows are the store's. each: most rows shown of a cluster. Equal arguments give equal
    clusters. Raises LanitError where faiss is not installed.
    """
    embeddings = store.embeddings_of(rows)
    count = min(MOST_CLUSTERS, max(1, len(rows) // _FEWEST_EACH))
    closeness = embeddings @ cluster_centres(embeddings, count, seed).T
    nearest = closeness.argmax(axis=1)
    margins = _margin_sums(revision, rows, nearest, count)
    clusters = []
    for number in range(count):
        members = np.flatnonzero(nearest == number)
        if len(members):
            order = members[np.argsort(-closeness[members, number], kind="stable")][:each]
            mean = margins[number] / len(members)
            best = int(mean.argmax())
            shown = tuple(rows[order].tolist())
            clusters.append(Cluster(len(members) / len(rows), shown, revision.domains[best], float(mean[best])))
    return tuple(sorted(clusters, key=lambda cluster: (-cluster.share, cluster.rows)))


def rows_of_some_parts(store: Store, rows: Ints, seed: int) -> Ints:
    """Those of ``rows`` (rising) that lie in parts drawn at random, with ``MOST_READ`` images at most (or one part)."""
    sizes = np.array([part.ok for part in store.manifest.parts])
    order = np.random.default_rng(seed).permutation(len(sizes))
    drawn = order[np.cumsum(sizes[order]) <= max(MOST_READ, sizes[order[0]])]
    return rows[np.isin(np.searchsorted(np.cumsum(sizes), rows, side="right"), drawn)]


def _margin_sums(revision: RevisionFile, rows: Ints, numbers: Ints, count: int) -> np.ndarray:
    """Margins added up over ``rows`` (rising) by their numbers: float64 (count×N), read block by block."""
    sums = np.zeros((count, len(revision.domains)))
    for block in revision.blocks(margin=True):
        first, last = np.searchsorted(rows, (block.start, block.start + block.rows))
        here, own = block.margin[rows[first:last] - block.start], numbers[first:last]
        for number in np.unique(own):
            sums[number] += here[own == number].sum(axis=0, dtype=np.float64)
    return sums
