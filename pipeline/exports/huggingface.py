"""Hugging Face: Parquet files that ``datasets`` reads as images with labels, and the card of the dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.exports.inventory import Writes, Written
from pipeline.exports.layouts import ExportRequest
from pipeline.exports.selection import Advance, Chunk, Record, Selection
from pipeline.exports.shards import RowBatches, image_row, write_shards
from pipeline.files import write_bytes
from pipeline.showing.markdown import markdown_text

CARD_NAME = "README.md"


class HuggingFace:
    """``data/train-NNNNN.parquet`` with image, image_id, path, width and height; labels as a sequence of class labels
    and margins, where the store has labels; and the embedding, where asked for. ``README.md`` is the dataset's card."""

    READ_BY: ClassVar[str] = 'datasets.load_dataset("{out}")'
    TAKES: ClassVar[frozenset[str]] = frozenset({"embeddings", "shard_mb"})
    NEEDS_LABELS: ClassVar[bool] = False
    writes = Writes({"data": ["train-*.parquet"], "": [CARD_NAME]})

    def __init__(self, selection: Selection, request: ExportRequest, advance: Advance) -> None:
        self._selection, self._limit, self._embeddings = selection, request.shard_bytes, request.embeddings
        self._advance = advance
        dim = selection.store.embedding_dim if request.embeddings else None
        self._schema = dataset_schema(selection.domains, dim)

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        (folder / "data").mkdir(exist_ok=True)

        def open_shard(number: int) -> _Table:
            return _Table(folder / "data" / f"train-{number:05d}.parquet", self._schema)

        return write_shards(
            self._selection,
            folder,
            start,
            files,
            open_shard,
            limit=self._limit,
            embeddings=self._embeddings,
            advance=self._advance,
        )

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> tuple[Written, ...]:
        text = dataset_card(self._selection, counts, exported)
        write_bytes(folder / CARD_NAME, text.encode())
        return (Written.of(folder, CARD_NAME),)


def dataset_schema(domains: tuple[str, ...], embedding_dim: int | None) -> pa.Schema:
    """The columns, with the metadata by which ``datasets`` makes them images and class labels."""
    columns: list[tuple[str, pa.DataType, dict[str, Any]]] = [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"}),
        ("image_id", pa.string(), _value("string")),
        ("path", pa.string(), _value("string")),
        ("width", pa.int32(), _value("int32")),
        ("height", pa.int32(), _value("int32")),
    ]
    if domains:
        names = {"names": list(domains), "_type": "ClassLabel"}
        columns.append(("labels", pa.list_(pa.int64()), {"feature": names, "_type": "Sequence"}))
        margins = {"feature": _value("float32"), "length": len(domains), "_type": "Sequence"}
        columns.append(("margins", pa.list_(pa.float32(), len(domains)), margins))
    if embedding_dim is not None:
        embedding = {"feature": _value("float32"), "length": embedding_dim, "_type": "Sequence"}
        columns.append(("embedding", pa.list_(pa.float32(), embedding_dim), embedding))
    features = {name: feature for name, _, feature in columns}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}, ensure_ascii=False)}
    return pa.schema([(name, kind) for name, kind, _ in columns], metadata)


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}


class _Table:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self._writer = pq.ParquetWriter(path, schema, compression="snappy")
        self._rows = RowBatches(schema, self._writer.write_table)  # a batch is a row group

    def add(self, record: Record, data: bytes, embedding: np.ndarray | None) -> None:
        row = image_row(record, data) | {
            "labels": list(record.labels),
            "margins": record.margins,
            "embedding": embedding,
        }
        self._rows.add(row, len(data))

    def close(self) -> None:
        self._rows.flush()
        self._writer.close()


def dataset_card(selection: Selection, counts: dict[str, int], exported: int) -> str:
    """``README.md``: where the data is, how many images there are of what, and what made the labels."""
    header = ["---", "configs:", "- config_name: default", "  data_files:", "  - split: train"]
    header += ["    path: data/train-*.parquet", f"size_categories:\n- {_size_category(exported)}"]
    if selection.domains:
        header += ["task_categories:", "- image-classification", "- zero-shot-image-classification"]
    lines = [*header, "---", "", f"# {exported:,} images", ""]
    model = markdown_text(selection.store.fingerprint.describe())
    if selection.labels is not None:
        rule = markdown_text(selection.labels.rule.describe())
        human = ", and by people where they gave one" if selection.labels.has_human else ", unseen by a human eye"
        lines += [
            f"Labels were given by CLIP from phrases{human}: {model}; rule: {rule}. An image has any",
            "number of labels, none included. `margins` holds, for each label, the cosine of the image to the phrase",
            "minus that to the same sentence without it.",
            "",
            "| label | images | share |",
            "|---|---:|---:|",
        ]
        for name, count in counts.items():
            lines.append(f"| {markdown_text(name)} | {count:,} | {count / exported:.1%} |")
        lines.append("")
    lines += ["Image files are as they were found, not encoded again. Exported by lanit.", ""]
    return "\n".join(lines)


def _size_category(count: int) -> str:
    """As the hub names them."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
              (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"))  # fmt: skip
    return next((name for bound, name in bounds if count < bound), "100M<n<1B")
