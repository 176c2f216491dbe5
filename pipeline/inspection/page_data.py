"""What the page of labels shows beside its figures: the chosen images, their rows and their thumbnails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from lanit.errors import LanitError
from pipeline.decoding.limits import ChangedImage, ImageError
from pipeline.inspection.clusters import Cluster, cluster_rows, rows_of_some_parts
from pipeline.inspection.rows import Ints, KnownRows, Strip, choose_rows
from pipeline.progress import Progress
from pipeline.store.store_images import StoreImages

if TYPE_CHECKING:
    from pipeline.inspection.compare import Comparison
    from pipeline.labelling.known_labels import Truth
    from pipeline.store.label_revisions import LabelBlock, RevisionFile
    from pipeline.store.store import Store

SIDE = 128
"""Longer side of a thumbnail, pixels."""

MOST_EACH = 6  # images in each part of a strip
MOST_IN_STRIPS = 960  # thumbnails of about 4 kB in all strips together: the page stays below 10 MB
THUMBNAIL_BYTES = 6_000_000  # base64 makes them a third larger
SAMPLE = 20_000  # unlabelled images that are clustered
WHOLE = 400  # images: where a revision has no more, the page holds all of them
_CLUSTER_EACH = 8
_THREADS = 4
_DETAILS = ["source", "width", "height", "bytes"]
_STALE = "Images were added or dropped since these labels: run lanit label again to see them in groups."


@dataclass(frozen=True)
class ShownImage:
    """One image of the page. margins: N; active: N; truth: N, none where unknown; human: N, bits that a person set; all
    of the domains that the page shows. more: labels of others.

    image_id: as the store has it. width, height, bytes: none where the store no longer has the image. thumbnail:
    position among the page's thumbnails, or none: see :attr:`PageData.gone` and :attr:`PageData.left_out`.
    has_changed: whether there is none because the image is another by now.
    """

    image_id: str
    path: str
    source: str
    width: int | None
    height: int | None
    bytes: int | None
    base: float
    margins: tuple[float, ...]
    active: tuple[bool, ...]
    human: tuple[bool, ...]
    truth: tuple[bool | None, ...]
    more: int
    thumbnail: int | None
    has_changed: bool


@dataclass(frozen=True)
class FlippedImages:
    """Images of one domain that gained or lost its label: positions among the page's images."""

    domain: str
    on: tuple[int, ...]
    off: tuple[int, ...]


@dataclass(frozen=True)
class PageData:
    """images: each once. strips: for each domain shown, in positions among ``images``. clusters: likewise, of a sample
    (``sampled`` images) of the ``unlabelled`` ones. clusters_note: why there are none, where that needs saying.

    thumbnails: JPEG data, each once. gone: images that could not be read; left_out: that found no room on the page.
    """

    @property
    def changed(self) -> int:
        """Images that are others by now."""
        return sum(image.has_changed for image in self.images)

    images: tuple[ShownImage, ...]
    strips: tuple[Strip, ...]
    clusters: tuple[Cluster, ...]
    unlabelled: int
    sampled: int
    clusters_note: str
    flips: tuple[FlippedImages, ...]
    thumbnails: tuple[bytes, ...]
    gone: int
    left_out: int


def gather(
    store: Store,
    revision: RevisionFile,
    *,
    truth: Truth | None = None,
    comparison: Comparison | None = None,
    shown: Sequence[int] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> PageData:
    """Choose the images of a revision's page and read their rows and thumbnails.

    comparison: with this revision as the later one. shown: numbers of the domains to show; none for all.
    progress: called with (thumbnails read, all). Memory does not grow with the revision, but by 8 bytes an image where
    there is truth.
    """
    known = None if truth is None else KnownRows(revision, truth)
    parts = 4 if truth is None else 6
    shown = range(len(revision.domains)) if shown is None else shown
    each = max(1, min(MOST_EACH, MOST_IN_STRIPS // (parts * len(shown))))
    chosen = choose_rows(revision, each, SAMPLE, seed, known, shown)
    sample = rows_of_some_parts(store, chosen.unlabelled, seed)
    current = store.is_current(revision)
    clusters, note = _clusters(store, revision, sample, seed) if current else ((), _STALE)
    names = {revision.domains[n] for n in shown}
    flipped = [] if comparison is None else [d for d in comparison.domains if d.domain in names]
    flips = [
        FlippedImages(d.domain, *(tuple(image.row for image in side) for side in (d.turned_on, d.turned_off)))
        for d in flipped
    ]
    wanted = _in_turn(
        [*(strip.rows() for strip in chosen.strips), *(c.rows for c in clusters), *(f.on + f.off for f in flips)]
    )
    if revision.rows <= WHOLE:
        wanted = list(dict.fromkeys([*wanted, *range(revision.rows)]))
    block = revision.take(wanted)
    places = wanted if current else _in_store(store, block)
    images, thumbnails, gone, left_out = _images(
        store, block, places, shown, None if known is None else known.of(wanted), progress
    )
    at = {row: position for position, row in enumerate(wanted)}
    return PageData(
        images=images,
        strips=tuple(_moved(strip, at) for strip in chosen.strips),
        clusters=tuple(Cluster(c.share, _positions(c.rows, at), c.closest, c.margin) for c in clusters),
        unlabelled=chosen.unlabelled_count,
        sampled=len(sample),
        clusters_note=note,
        flips=tuple(FlippedImages(f.domain, _positions(f.on, at), _positions(f.off, at)) for f in flips),
        thumbnails=thumbnails,
        gone=gone,
        left_out=left_out,
    )


def _clusters(store: Store, revision: RevisionFile, rows: Ints, seed: int) -> tuple[tuple[Cluster, ...], str]:
    """Clusters of ``rows``, or why there are none."""
    if not len(rows):
        return (), ""
    try:
        return cluster_rows(store, revision, rows, _CLUSTER_EACH, seed), ""
    except LanitError as error:  # there is no faiss
        return (), f"They are not shown in groups: {error}"


def _in_turn(groups: Iterable[Sequence[int]]) -> list[int]:
    """Every row once: the first of each group, then the second of each, so that all have some where room runs out."""
    queues = [list(group) for group in groups]
    longest = max((len(queue) for queue in queues), default=0)
    rows = (queue[i] for i in range(longest) for queue in queues if i < len(queue))
    return list(dict.fromkeys(rows))


def _moved(strip: Strip, at: dict[int, int]) -> Strip:
    parts = (strip.surest, strip.above, strip.below, strip.least, strip.wrong, strip.missed)
    return Strip(*(_positions(part, at) for part in parts))


def _positions(rows: Iterable[int], at: dict[int, int]) -> tuple[int, ...]:
    return tuple(at[row] for row in rows)


def _images(
    store: Store,
    block: LabelBlock,
    places: Sequence[int | None],
    shown: Sequence[int],
    truth: np.ndarray | None,
    progress: Progress | None,
) -> tuple[tuple[ShownImage, ...], tuple[bytes, ...], int, int]:
    """The images of ``block``, which lie at ``places`` of the store, with their distinct thumbnails, how many images
    are gone, and how many thumbnails found no room. shown: numbers of domains. truth: see :meth:`KnownRows.of`."""
    columns = list(shown)
    held = np.array([place for place in places if place is not None], np.int64)
    number = {int(place): i for i, place in enumerate(held)}
    details = store.images_of(held, _DETAILS).to_pylist()
    read = [None if place is None else number[place] for place in places]
    thumbnails, numbers, changed, gone, left_out = _thumbnails(StoreImages(store, held), read, progress)
    truth = np.full((block.rows, len(columns)), -1) if truth is None else truth[:, columns]
    margin, active, human = (values[:, columns] for values in (block.margin, block.active, block.human))
    more = block.active.sum(axis=1) - active.sum(axis=1)
    images = []
    for i, (image_id, path) in enumerate(zip(block.image_ids.to_pylist(), block.paths.to_pylist(), strict=True)):
        row = read[i]
        found: dict[str, Any] = dict.fromkeys(_DETAILS) if row is None else details[row]
        images.append(
            ShownImage(
                image_id=image_id,
                path=path,
                source=found["source"] or "",
                width=found["width"],
                height=found["height"],
                bytes=found["bytes"],
                base=float(block.similarity_base[i]),
                margins=tuple(margin[i].tolist()),
                active=tuple(active[i].tolist()),
                human=tuple(human[i].tolist()),
                truth=tuple(None if value < 0 else bool(value) for value in truth[i]),
                more=int(more[i]),
                thumbnail=numbers[i],
                has_changed=i in changed,
            )
        )
    return tuple(images), thumbnails, gone, left_out


def _in_store(store: Store, block: LabelBlock) -> list[int | None]:
    """The row of each image among those of the store now, or none."""
    places = np.full(block.rows, -1, np.int64)
    start = 0
    for part in store.ok_parts(["image_id"]):
        found = pc.index_in(part["image_id"], value_set=block.image_ids).to_numpy()  # NaN where it is not of them
        here = np.flatnonzero(~np.isnan(found.astype(np.float64)))
        places[found[here].astype(np.int64)] = start + here
        start += len(part)
    return [None if place < 0 else int(place) for place in places]


def _thumbnails(
    images: StoreImages, rows: Sequence[int | None], progress: Progress | None
) -> tuple[tuple[bytes, ...], list[int | None], set[int], int, int]:
    """Distinct thumbnails, the position of each row's among them, which of ``rows`` are others by now, how many are
    gone, and how many found no room.

    rows: of ``images``; none where the image is known to be gone.
    """
    position_of: dict[bytes, int] = {}
    places: list[int | None] = []
    changed: set[int] = set()
    gone = left_out = used = 0

    def read(row: int | None) -> bytes | ImageError | None:
        try:
            return None if row is None else images.thumbnail(row, SIDE)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(_THREADS) as threads:
        for done, data in enumerate(threads.map(read, rows), 1):
            place: int | None = None
            if isinstance(data, ChangedImage):
                changed.add(done - 1)
            elif data is None or isinstance(data, ImageError):
                gone += 1
            elif data in position_of or used + len(data) <= THUMBNAIL_BYTES:
                used += 0 if data in position_of else len(data)
                place = position_of.setdefault(data, len(position_of))
            else:
                left_out += 1
            places.append(place)
            if progress is not None:
                progress(done, len(rows))
    return tuple(position_of), places, changed, gone, left_out
