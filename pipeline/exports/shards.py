"""Images packed into files of about one size, as tars and tables of images are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline.exports.destination import flush_to_disk
from pipeline.exports.inventory import Written
from pipeline.exports.selection import Advance, Chunk, Missing, Record, Selection, read_ahead
from pipeline.store.store_images import StoreImages

_BATCH_ROWS = 100
_BATCH_BYTES = 32_000_000


class Shard(Protocol):
    """A file that is being filled."""

    path: Path

    def add(self, record: Record, data: bytes, embedding: np.ndarray | None) -> None:
        """data: of the image, as it was found; embedding: float32 (k), where it goes along."""

    def close(self) -> None:
        """Complete the file."""


def image_row(record: Record, data: bytes) -> dict[str, Any]:
    """The columns of a table of images, as Hugging Face has them: ``image`` as its bytes and the name of its file."""
    return {
        "image": {"bytes": data, "path": PurePosixPath(record.path).name},
        "image_id": record.image_id,
        "path": record.path,
        "width": record.width,
        "height": record.height,
    }


class RowBatches:
    """Rows of a table until there are enough of them for a batch: what a reader must hold to show one of them."""

    def __init__(self, schema: pa.Schema, write: Callable[[pa.Table], object]) -> None:
        self._schema, self._write = schema, write
        self._rows: list[dict[str, Any]] = []
        self._size = 0

    def add(self, row: dict[str, Any], size: int) -> None:
        """row: more than the columns of the schema, perhaps. size: of its image, in bytes."""
        self._rows.append({name: row[name] for name in self._schema.names})
        self._size += size
        if len(self._rows) == _BATCH_ROWS or self._size >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are waiting."""
        if self._rows:
            self._write(pa.Table.from_pylist(self._rows, self._schema))
            self._rows, self._size = [], 0


def write_shards(
    selection: Selection,
    folder: Path,
    start: int,
    files: int,
    open_shard: Callable[[int], Shard],
    *,
    limit: int,
    embeddings: bool,
    advance: Advance,
) -> Iterator[Chunk]:
    """Write images into shard after shard, each of at most ``limit`` bytes of images, or of one image.

    open_shard: makes the shard of a number. Memory holds a few images, whatever the size of a shard.
    """
    images = StoreImages(selection.store)
    vectors = selection.embeddings(start) if embeddings else None
    shard: Shard | None = None
    size, missing = 0, list[Missing]()
    for record, data in read_ahead(images, selection.records(start)):
        embedding = next(vectors) if vectors is not None else None
        if isinstance(data, Missing):
            missing.append(data)
        else:
            if shard is not None and size + len(data) > limit:
                yield _closed(shard, folder, record.position, missing)
                shard, size, missing, files = None, 0, [], files + 1
            if shard is None:
                shard = open_shard(files)
            shard.add(record, data, embedding)
            size += len(data)
        advance(record.position + 1)
    if shard is not None:
        yield _closed(shard, folder, len(selection), missing)
    elif missing:
        yield Chunk(len(selection), (), tuple(missing))


def _closed(shard: Shard, folder: Path, stop: int, missing: list[Missing]) -> Chunk:
    shard.close()
    flush_to_disk(shard.path)
    name = shard.path.relative_to(folder).as_posix()
    return Chunk(stop, (Written.of(folder, name),), tuple(missing))
