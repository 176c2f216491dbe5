"""What became of each image, as tables: parts while the run lasts, then one table as Parquet and as CSV."""

from __future__ import annotations

import contextlib
import csv
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.column_names import own_columns
from pipeline.files import atomic_path, sealed, unsealed
from pipeline.inputs.places import image_id
from pipeline.parquet_seals import close_sealed, is_whole
from pipeline.store.schemas import MARGIN_PREFIX
from pipeline.translating.source_images import SourceImage

SCHEMA_VERSION = 1
KIND = "translations"
TABLE_NAME = "translations.csv"
PARQUET_NAME = "translations.parquet"
LABELS_NAME = "labels.csv"
BEFORE_PREFIX = "before:"
"""Of the columns with the margins of the source; those of the result begin with ``MARGIN_PREFIX``."""

_OF_IMAGE = ("path", "source", "offset", "bytes", "modified_ns")
_OF_ROW = ("output", "output_bytes", "status", "error_message", "style", "width", "height",
           "before", "requested", "after")  # fmt: skip
_METADATA_KEY = b"lanit"
_CACHED_TABLES = 4
_ONLY_PARQUET = ("offset", "bytes", "modified_ns", "output_bytes")  # of use to a resumed run alone


def results_schema(domains: Sequence[str]) -> pa.Schema:
    """Columns of ``translations.parquet``; the CSV lacks offset, bytes, modified_ns and output_bytes."""
    texts = ["path", "output", "status", "error_message", "before", "requested", "after", "source"]
    numbers = {"style": pa.int32(), "width": pa.int32(), "height": pa.int32(), "offset": pa.int64(),
               "bytes": pa.int64(), "modified_ns": pa.int64(), "output_bytes": pa.int64()}  # fmt: skip
    columns = [pa.field(name, pa.string()) for name in texts]
    columns += [pa.field(name, kind) for name, kind in numbers.items()]
    columns += [pa.field("targets", pa.list_(pa.int32()))]
    for prefix in (BEFORE_PREFIX, MARGIN_PREFIX):
        columns += [pa.field(prefix + domain, pa.float32()) for domain in domains]
    return pa.schema(columns)


def to_table(images: Sequence[SourceImage], domains: Sequence[str], identity: dict[str, Any]) -> pa.Table:
    """The rows of ``images`` as a table, whose metadata say what run it is of."""
    columns: dict[str, list[Any]] = {name: [] for name in results_schema(domains).names}
    for image, row in ((source, row) for source in images for row in source.rows):
        values: dict[str, Any] = {name: getattr(image, name) for name in _OF_IMAGE}
        values |= {name: getattr(row, name) for name in _OF_ROW}
        values["targets"] = None if row.target is None else np.flatnonzero(row.target).tolist()
        for prefix, margins in ((BEFORE_PREFIX, row.before_margins), (MARGIN_PREFIX, row.margins)):
            numbers = [None] * len(domains) if margins is None else margins.tolist()
            values |= {prefix + domain: value for domain, value in zip(domains, numbers, strict=True)}
        for name, value in values.items():
            columns[name].append(value)
    return pa.table(columns, schema=_schema_of(domains, identity))


def _schema_of(domains: Sequence[str], identity: dict[str, Any]) -> pa.Schema:
    """With metadata that say what run the table is of."""
    metadata = {_METADATA_KEY: json.dumps(sealed(identity), sort_keys=True).encode()}
    return results_schema(domains).with_metadata(metadata)


def identity_of(path: Path) -> dict[str, Any] | None:
    """The run that a table is of; none where it is no table of results, or is damaged so that this cannot be told."""
    found = _metadata_of(path)
    try:
        return None if found is None else unsealed(found)
    except ValueError:
        return None


def _metadata_of(path: Path) -> dict[str, Any] | None:
    try:
        metadata = pq.read_schema(path).metadata or {}
        found = json.loads(metadata.get(_METADATA_KEY, b"null"))
    except (OSError, ValueError, RecursionError, pa.ArrowException):
        return None
    return found if isinstance(found, dict) and found.get("kind") == KIND else None


def is_intact(path: Path, domains: Sequence[str]) -> bool:
    """Whether a finished table, of which :func:`identity_of` is known, is as it was written. Of one without seals, as
    lanit once wrote them, only the columns can be told."""
    try:
        metadata = _metadata_of(path)
        if metadata is not None and unsealed(metadata) != metadata:
            return is_whole(path)
        return pq.read_table(path, partitioning=None).schema.equals(results_schema(domains))
    except (OSError, ValueError, pa.ArrowException):
        return False


def outputs_of(path: Path) -> Iterator[tuple[str, int]]:
    """The results that a table names, and their sizes in bytes; of a damaged one, those that can be read."""
    with (
        contextlib.suppress(OSError, ValueError, KeyError, pa.ArrowException),
        pq.ParquetFile(path, page_checksum_verification=True) as file,
    ):
        for batch in file.iter_batches(columns=["output", "output_bytes"]):
            for output, size in zip(batch["output"].to_pylist(), batch["output_bytes"].to_pylist(), strict=True):
                if isinstance(output, str) and isinstance(size, int):
                    yield output, size


class Tables:
    """Earlier tables, of which a few are kept: rows are asked for in order."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()

    def rows(self, file: int, start: int, count: int) -> pa.Table:
        if file not in self._cache:
            self._cache[file] = pq.read_table(self.files[file], partitioning=None)
            while len(self._cache) > _CACHED_TABLES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(file)
        return self._cache[file].slice(start, count)


def write_results(out: Path, parts: Sequence[Path], domains: Sequence[str], identity: dict[str, Any]) -> None:
    """``labels.csv``, ``translations.csv`` and, last, ``translations.parquet`` of the parts, one part in memory at a
    time. Equal parts give equal bytes."""
    source = str(out.resolve())
    schema = _schema_of(domains, identity)
    names = [name for name in schema.names if name not in (*_ONLY_PARQUET, "targets")]
    with (
        atomic_path(out / PARQUET_NAME) as parquet,
        atomic_path(out / TABLE_NAME) as table,
        atomic_path(out / LABELS_NAME) as labels,
        table.open("w", encoding="utf-8", newline="") as table_file,
        labels.open("w", encoding="utf-8", newline="") as labels_file,
        contextlib.ExitStack() as stack,
    ):
        sink = pq.ParquetWriter(parquet, schema, write_page_checksum=True)
        stack.callback(sink.close)
        results, wanted = csv.writer(table_file), csv.writer(labels_file)
        results.writerow(names)
        wanted.writerow(label_columns(domains))
        for part in parts:
            rows = pq.read_table(part, schema=schema, partitioning=None)
            sink.write_table(rows)
            results.writerows(zip(*(_texts(rows[name]) for name in names), strict=True))
            for output, targets in zip(rows["output"].to_pylist(), rows["targets"].to_pylist(), strict=True):
                if output is not None:
                    on = set(targets)
                    bits = (int(number in on) for number in range(len(domains)))
                    wanted.writerow([image_id(source, output), output, *bits])
        close_sealed(sink, parquet)


def label_columns(domains: Sequence[str]) -> list[str]:
    """The header of ``labels.csv``; where a domain is called as a column of ours, ours gives way."""
    return [*own_columns(("image_id", "path"), domains), *domains]


def _texts(column: pa.ChunkedArray) -> Iterator[str]:
    """Cells of a CSV; the fewest digits that are the same float32."""
    if pa.types.is_float32(column.type):
        yield from ("" if value is None else str(np.float32(value)) for value in column.to_pylist())
    else:
        yield from ("" if value is None else str(value) for value in column.to_pylist())
