"""Images that no phrase describes, in groups of look-alikes: what a list of words leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.suggestion.kmeans import cluster_centres

if TYPE_CHECKING:
    from pipeline.store.label_revisions import RevisionFile
    from pipeline.store.store import Store

MOST_CLUSTERS = 8
MOST_READ = 500_000  # images of the parts whose embeddings are read: enough to draw a sample from
_FEWEST_EACH = 12  # images for each cluster on average; below, a cluster says little

Floats = np.ndarray[Any, np.dtype[np.float32]]
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
    embeddings, margins = store.embeddings_of(rows), _margins(revision, rows)
    count = min(MOST_CLUSTERS, max(1, len(rows) // _FEWEST_EACH))
    closeness = embeddings @ cluster_centres(embeddings, count, seed).T
    nearest = closeness.argmax(axis=1)
    clusters = []
    for number in range(count):
        members = np.flatnonzero(nearest == number)
        if len(members):
            order = members[np.argsort(-closeness[members, number], kind="stable")][:each]
            mean = margins[members].mean(axis=0, dtype=np.float64)
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


def _margins(revision: RevisionFile, rows: Ints) -> Floats:
    """float32 (len(rows)×N), read block by block."""
    out = np.empty((len(rows), len(revision.domains)), np.float32)
    for block in revision.blocks(margin=True):
        first, last = np.searchsorted(rows, (block.start, block.start + block.rows))
        out[first:last] = block.margin[rows[first:last] - block.start]
    return out
