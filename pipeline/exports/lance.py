"""Lance: a dataset of images, labels and embeddings, which Lance and LanceDB read and search."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lanit.errors import LanitError
from pipeline.exports.destination import INVENTORY_NAME, flush_to_disk
from pipeline.exports.inventory import Writes, Written, entries, listed_names
from pipeline.exports.layouts import ExportRequest
from pipeline.exports.selection import Advance, Chunk, Record, Selection
from pipeline.exports.shards import RowBatches, write_shards
from pipeline.extras import install

DATASET_NAME = "images.lance"
_VERSION = "2.1"  # of Lance's files; its default moves on


class Lance:
    """``images.lance`` with image, image_id, path, width, height and vector, the embedding; labels, a list of names,
    and margins, where the store has labels, whose order the metadata ``domains`` of the schema tells.

    Data files are the same for the same inputs; Lance's own list of them holds the time and a random number.
    """

    READ_BY: ClassVar[str] = 'lance.dataset("{out}/images.lance")'
    TAKES: ClassVar[frozenset[str]] = frozenset({"shard_mb"})
    NEEDS_LABELS: ClassVar[bool] = False
    writes = Writes(
        {
            f"{DATASET_NAME}/data": ["*.lance"],
            f"{DATASET_NAME}/_versions": ["*.manifest", "latest_version_hint.json"],
            f"{DATASET_NAME}/_transactions": ["*.txn"],
        }
    )

    def __init__(self, selection: Selection, request: ExportRequest, advance: Advance) -> None:
        self._selection, self._limit, self._advance = selection, request.shard_bytes, advance
        self._lance = _import_lance()
        self._schema = lance_schema(selection.domains, selection.store.embedding_dim)

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        (folder / DATASET_NAME / "data").mkdir(parents=True, exist_ok=True)

        def open_shard(number: int) -> _DataFile:
            path = folder / DATASET_NAME / "data" / f"{number:06d}.lance"
            return _DataFile(self._lance, path, self._schema, self._selection.domains)

        return write_shards(
            self._selection,
            folder,
            start,
            files,
            open_shard,
            limit=self._limit,
            embeddings=True,
            advance=self._advance,
        )

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> tuple[Written, ...]:
        """Make the data files a dataset, in one version."""
        dataset = folder / DATASET_NAME
        for name in [name for name in entries(dataset) if not name.startswith("data/")]:
            (dataset / name).unlink()  # of a run killed as it ended
        data = [folder / name for name in listed_names(folder / INVENTORY_NAME)]
        fragments = [self._fragment(number, path) for number, path in enumerate(data)]
        operation = self._lance.LanceOperation.Overwrite(self._schema, fragments)
        self._lance.LanceDataset.commit(str(dataset), operation)
        names = [f"{DATASET_NAME}/{name}" for name in entries(dataset) if not name.startswith("data/")]
        for name in names:
            flush_to_disk(folder / name)
        return tuple(Written.of(folder, name) for name in names)

    def _fragment(self, number: int, path: Path) -> Any:
        """What Lance's list of data files says of one."""
        lance, found = self._lance, self._lance.file.LanceFileReader(str(path)).metadata()
        schema = lance.schema.LanceSchema.from_pyarrow(self._schema)
        fields = [number for field in schema.fields() for number in _leaves(field)]
        columns = list(range(len(fields)))
        size = path.stat().st_size
        file = lance.fragment.DataFile(path.name, fields, columns, found.major_version, found.minor_version, size)
        return lance.fragment.FragmentMetadata(id=number, files=[file], physical_rows=found.num_rows)


def lance_schema(domains: tuple[str, ...], embedding_dim: int) -> pa.Schema:
    columns = [
        ("image", pa.large_binary()),
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
    if domains:
        columns += [("labels", pa.list_(pa.string())), ("margins", pa.list_(pa.float32(), len(domains)))]
    columns.append(("vector", pa.list_(pa.float32(), embedding_dim)))
    return pa.schema(columns, {"domains": json.dumps(domains, ensure_ascii=False)} if domains else None)


def _leaves(field: Any) -> list[int]:
    """Numbers of what holds data in a field of Lance's: of a list that is its item."""
    return [number for child in field.children() for number in _leaves(child)] or [field.id()]


class _DataFile:
    """See :class:`pipeline.exports.shards.Shard`."""

    def __init__(self, lance: Any, path: Path, schema: pa.Schema, domains: tuple[str, ...]) -> None:
        self.path = path
        self._domains = domains
        path.unlink(missing_ok=True)
        self._writer = lance.file.LanceFileWriter(str(path), schema, version=_VERSION)
        self._rows = RowBatches(schema, self._writer.write_batch)

    def add(self, record: Record, data: bytes, embedding: np.ndarray | None) -> None:
        row = {
            "image": data,
            "image_id": record.image_id,
            "path": record.path,
            "width": record.width,
            "height": record.height,
            "labels": [self._domains[number] for number in record.labels],
            "margins": record.margins,
            "vector": embedding,
        }
        self._rows.add(row, len(data))

    def close(self) -> None:
        self._rows.flush()
        self._writer.close()


def _import_lance() -> Any:
    """Raises LanitError where it is not installed."""
    try:
        for name in ("lance.file", "lance.fragment", "lance.schema"):
            importlib.import_module(name)
        return importlib.import_module("lance")
    except ImportError as error:
        raise LanitError("--to lance needs the package pylance", f"Run: {install('lance')}") from error
