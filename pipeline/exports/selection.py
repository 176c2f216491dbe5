"""What an export is made of: chosen rows of a store with their labels, embeddings and images, in streams."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.decoding.limits import ImageError
from pipeline.exports.inventory import Written
from pipeline.inputs.formats import folder_of
from pipeline.inputs.storage import located
from pipeline.store.label_revisions import RevisionFile
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages

Advance = Callable[[int], None]
"""Called with the number of rows of the selection that are settled."""

_COLUMNS = ["image_id", "path", "source", "offset", "bytes", "modified_ns", "width", "height", "sha256"]
_THREADS = 8
_AHEAD = 32  # images in memory at once


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a selection. position: in the selection; row: among the rows of the store with status ok.

    labels: numbers of the domains it has; groups: numbers of the selection's groups it belongs to.
    margins: float32 (N), f_n − f_base; none where the store has no labels.
    """

    position: int
    row: int
    image_id: str
    path: str
    source: str
    offset: int | None
    bytes: int | None
    modified_ns: int | None
    width: int
    height: int
    sha256: str
    labels: tuple[int, ...]
    groups: tuple[int, ...]
    margins: np.ndarray | None

    @property
    def file(self) -> str | None:
        """The path or URL of the image, where it is a file of its own, not part of a tar, zip or table."""
        try:
            return located(_folder_of(self.source), self.path) if self.offset is None else None
        except ImageError:  # a name that a table behind a URL should not have
            return None


@dataclass(frozen=True)
class Selection:
    """m of the n images that a store has embedded.

    labels: their revision; none where the store has no labels. active: bool (n×N). rows: int64 (m), ascending, the
    position of each among the n. groups: G names, what the report counts by; members: bool (n×G).
    """

    store: Store
    labels: RevisionFile | None
    active: np.ndarray
    rows: np.ndarray
    groups: tuple[str, ...]
    members: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def domains(self) -> tuple[str, ...]:
        return self.labels.domains if self.labels is not None else ()

    def tables(self, columns: list[str], start: int = 0) -> Iterator[pa.Table]:
        """Columns of the images from position ``start`` on, part by part of the store, in its order."""
        chosen, first = self.rows[start:], 0
        for part in self.store.manifest.parts:
            low, high = np.searchsorted(chosen, [first, first + part.ok])
            if high > low:
                table = self.store.ok_rows(part, columns)
                yield table.take(pa.array(chosen[low:high] - first))
            first += part.ok

    def paths(self) -> pa.ChunkedArray:
        """Of all the images."""
        return pa.concat_tables(self.tables(["path"]))["path"]

    def records(self, start: int = 0) -> Iterator[Record]:
        """The images from position ``start`` on, in the order of the store."""
        margins, position = self._margins(start), start
        for table in self.tables(_COLUMNS, start):
            for values in table.to_pylist():
                row = int(self.rows[position])
                labels = _numbers(self.active[row])
                yield Record(
                    position=position,
                    row=row,
                    labels=labels,
                    groups=labels if self.members is self.active else _numbers(self.members[row]),
                    margins=next(margins, None),
                    **values,
                )
                position += 1

    def _margins(self, start: int) -> Iterator[np.ndarray]:
        if self.labels is None:
            return
        chosen = self.rows[start:]
        for block in self.labels.blocks(margin=True):
            low, high = np.searchsorted(chosen, [block.start, block.start + block.rows])
            yield from block.margin[chosen[low:high] - block.start]

    def embedding_blocks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Embeddings of the images from position ``start`` on, float32 (b×k), part by part of the store."""
        chosen, first = self.rows[start:], 0
        for block in self.store.embedding_parts():
            low, high = np.searchsorted(chosen, [first, first + len(block)])
            if high > low:
                yield block[chosen[low:high] - first]
            first += len(block)

    def embeddings(self, start: int = 0) -> Iterator[np.ndarray]:
        """As :meth:`embedding_blocks`, one float32 (k) at a time."""
        return itertools.chain.from_iterable(self.embedding_blocks(start))


@dataclass(frozen=True)
class Missing:
    """An image of the store that could not be read again, and why."""

    record: Record
    reason: str


@dataclass(frozen=True)
class Chunk:
    """Positions of a selection that are settled, up to ``stop``: in ``files``, but for those missing."""

    stop: int
    files: tuple[Written, ...]
    missing: tuple[Missing, ...] = ()


def read_ahead(images: StoreImages, records: Iterable[Record]) -> Iterator[tuple[Record, bytes | Missing]]:
    """Each record with the data of its image, in order; some images are read ahead in threads."""
    pending: deque[tuple[Record, Future[bytes | Missing]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for record in records:
            pending.append((record, pool.submit(read_record, images, record)))
            if len(pending) == _AHEAD:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()


def read_record(images: StoreImages, record: Record) -> bytes | Missing:
    """The data of an image, where it is still the one that was embedded."""
    try:
        return images.read(record.row)
    except ImageError as error:
        return Missing(record, error.reason)


_folder_of = functools.cache(folder_of)


def _numbers(flags: np.ndarray) -> tuple[int, ...]:
    return tuple(flags.nonzero()[0].tolist())
