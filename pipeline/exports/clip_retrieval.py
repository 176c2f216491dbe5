"""clip-retrieval: embeddings as NumPy files beside metadata as Parquet, as ``clip-retrieval inference`` writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.exports.destination import flush_to_disk
from pipeline.exports.inventory import Writes, Written
from pipeline.exports.layouts import ExportRequest
from pipeline.exports.selection import Advance, Chunk, Record, Selection
from pipeline.store.schemas import STORAGE_TYPES

_SHARD_ROWS = 250_000
_COLUMNS = {
    "image_path": pa.string(),
    "image_id": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "caption": pa.string(),
}


class ClipRetrieval:
    """``img_emb/img_emb_N.npy`` and ``metadata/metadata_N.parquet``, row by row the same images.

    Embeddings keep the type they have in the store (clip-retrieval itself writes float16 and reads both). image_path
    is where the image lies; caption, its labels, is what clip-retrieval's page shows under a picture.
    """

    READ_BY: ClassVar[str] = "clip-retrieval index --embeddings_folder {shell} --index_folder index"
    TAKES: ClassVar[frozenset[str]] = frozenset()
    NEEDS_LABELS: ClassVar[bool] = False
    writes = Writes({"img_emb": ["img_emb_*.npy"], "metadata": ["metadata_*.parquet"]})

    def __init__(
        self, selection: Selection, request: ExportRequest, advance: Advance, *, shard_rows: int = _SHARD_ROWS
    ) -> None:
        self._selection, self._advance, self._shard_rows = selection, advance, shard_rows
        shards = -(-len(selection) // shard_rows)
        self._digits = len(str(shards))  # as clip-retrieval pads; its readers sort by name
        storage = selection.store.manifest.storage
        self._dtype = np.dtype(STORAGE_TYPES[storage].to_pandas_dtype())
        names = [name for name in _COLUMNS if name != "caption" or selection.labels is not None]
        self._schema = pa.schema([(name, _COLUMNS[name]) for name in names])

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        for name in ("img_emb", "metadata"):
            (folder / name).mkdir(exist_ok=True)
        records = self._selection.records(start)
        blocks = _Reblocked(self._selection.embedding_blocks(start))
        for first in range(start, len(self._selection), self._shard_rows):
            rows = min(self._shard_rows, len(self._selection) - first)
            number = f"{first // self._shard_rows:0{self._digits}d}"
            vectors = folder / "img_emb" / f"img_emb_{number}.npy"
            metadata = folder / "metadata" / f"metadata_{number}.parquet"
            done = first
            with vectors.open("wb") as sink, pq.ParquetWriter(metadata, self._schema) as writer:
                shape = (rows, self._selection.store.embedding_dim)
                header = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(sink, header)
                for block in blocks.take(rows):
                    sink.write(np.ascontiguousarray(block, self._dtype).tobytes())
                    described = [self._describe(next(records)) for _ in range(len(block))]
                    writer.write_table(pa.Table.from_pylist(described, self._schema))
                    done += len(block)
                    self._advance(done)
            for path in (vectors, metadata):
                flush_to_disk(path)
            names = (f"img_emb/{vectors.name}", f"metadata/{metadata.name}")
            yield Chunk(first + rows, tuple(Written.of(folder, name) for name in names))

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> tuple[Written, ...]:
        """Nothing stands beside the two folders."""
        return ()

    def _describe(self, record: Record) -> dict[str, Any]:
        row = {
            "image_path": record.file or f"{record.source}/{record.path}",
            "image_id": record.image_id,
            "width": record.width,
            "height": record.height,
            "caption": ", ".join(self._selection.domains[number] for number in record.labels),
        }
        return {name: row[name] for name in self._schema.names}


class _Reblocked:
    """Blocks of rows cut where another file begins."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._rest: np.ndarray | None = None

    def take(self, rows: int) -> Iterator[np.ndarray]:
        """The next ``rows`` rows, in blocks."""
        while rows:
            block = self._rest if self._rest is not None else next(self._blocks)
            yield block[:rows]
            self._rest = block[rows:] if len(block) > rows else None
            rows -= min(len(block), rows)
