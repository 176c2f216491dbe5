"""Embedding Atlas: Parquet files of images, labels, margins and vectors, a column for each thing to filter by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.exports.inventory import Writes, Written
from pipeline.exports.layouts import ExportRequest
from pipeline.exports.selection import Advance, Chunk, Record, Selection
from pipeline.exports.shards import RowBatches, image_row, write_shards


class EmbeddingAtlas:
    """``atlas-NNNNN.parquet`` with image (bytes and path, which it shows), image_id, path, width, height; labels, as
    one text, ``label: PHRASE``, true or false, and ``margin: PHRASE`` for each, where the store has labels; and vector,
    the embedding, from which it draws its map."""

    READ_BY: ClassVar[str] = "embedding-atlas {shell}/atlas-*.parquet --image image --vector vector"
    TAKES: ClassVar[frozenset[str]] = frozenset({"shard_mb"})
    NEEDS_LABELS: ClassVar[bool] = False
    writes = Writes({"": ["atlas-*.parquet"]})

    def __init__(self, selection: Selection, request: ExportRequest, advance: Advance) -> None:
        self._selection, self._limit, self._advance = selection, request.shard_bytes, advance
        self._schema = atlas_schema(selection.domains, selection.store.embedding_dim)

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        def open_shard(number: int) -> _Table:
            return _Table(folder / f"atlas-{number:05d}.parquet", self._schema, self._selection.domains)

        return write_shards(
            self._selection, folder, start, files, open_shard, limit=self._limit, embeddings=True,
            advance=self._advance,
        )  # fmt: skip

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> tuple[Written, ...]:
        """Nothing stands beside the tables."""
        return ()


def atlas_schema(domains: tuple[str, ...], embedding_dim: int) -> pa.Schema:
    columns = [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
    if domains:
        columns.append(("labels", pa.string()))
        columns += [(_label(name), pa.bool_()) for name in domains]
        columns += [(_margin(name), pa.float32()) for name in domains]
    columns.append(("vector", pa.list_(pa.float32(), embedding_dim)))
    return pa.schema(columns)


def _label(domain: str) -> str:
    """No phrase is taken for another column."""
    return f"label: {domain}"


def _margin(domain: str) -> str:
    return f"margin: {domain}"


class _Table:
    def __init__(self, path: Path, schema: pa.Schema, domains: tuple[str, ...]) -> None:
        self.path, self._domains = path, domains
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._rows = RowBatches(schema, self._writer.write_table)

    def add(self, record: Record, data: bytes, embedding: np.ndarray | None) -> None:
        row = image_row(record, data) | {
            "labels": ", ".join(self._domains[number] for number in record.labels),
            "vector": embedding,
        }
        for number, name in enumerate(self._domains):
            row[_label(name)] = number in record.labels
            row[_margin(name)] = None if record.margins is None else record.margins[number]
        self._rows.add(row, len(data))

    def close(self) -> None:
        self._rows.flush()
        self._writer.close()
