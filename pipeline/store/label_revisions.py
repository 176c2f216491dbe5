"""Label revisions: read in blocks or whole, and written in blocks, so that memory does not grow with the images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.labelling.prompt_sets import PromptSet
from pipeline.store.schemas import (
    ACTIVE_PREFIX,
    HUMAN_PREFIX,
    MARGIN_PREFIX,
    SCHEMA_VERSION,
    Fingerprint,
    labels_schema,
    metadata_of,
    with_metadata,
)

BLOCK_ROWS = 65536
"""Rows of a row group at most: what is in memory at once, whatever the size of the store."""

_ANEW = "Run: lanit label --prompts FILE"
_NO_KEYS = pa.array([], pa.string())


@dataclass(frozen=True)
class LabelBlock:
    """b successive rows of a revision. What was not asked for is empty: (b×0), (0) or no keys.

    start: number of the first row. rows: b. active: bool (b×N). margin: float32 (b×N), f_n − f_base, of CLIP alone.
    similarity_base: float32 (b). human: bool (b×N), labels that people set. image_ids, paths: Arrow strings.
    """

    start: int
    rows: int
    active: np.ndarray
    margin: np.ndarray
    similarity_base: np.ndarray
    human: np.ndarray
    image_ids: pa.Array = field(default_factory=lambda: _NO_KEYS)
    paths: pa.Array = field(default_factory=lambda: _NO_KEYS)


Overrides = Callable[[LabelBlock], np.ndarray]
"""Labels that people gave to the images of a block (its keys): int8 (b×N), 1 on, 0 off, −1 as CLIP says."""


@dataclass(frozen=True)
class LabelRevision:
    """The labels of n images in N domains, whole in memory.

    number: of the revision; parent: the revision it was made from, or none.
    origin: ``label``, or ``train:<run> step <k>``. rule: :meth:`lanit.labels.Rule.to_json`.
    active: bool (n×N). margin: float32 (n×N), f_n − f_base. similarity_base: float32 (n), f_base.
    image_ids, paths: arrays of n strings, in store order. human: bool (n×N), labels that people set; none if none are.
    """

    number: int
    parent: int | None
    origin: str
    rule: dict[str, Any]
    prompt_set: PromptSet
    active: np.ndarray
    margin: np.ndarray
    similarity_base: np.ndarray
    image_ids: np.ndarray
    paths: np.ndarray
    human: np.ndarray | None = None

    @property
    def domains(self) -> tuple[str, ...]:
        return self.prompt_set.domains

    @property
    def rows(self) -> int:
        return len(self.active)

    @property
    def has_human(self) -> bool:
        return self.human is not None

    def blocks(
        self, *, active: bool = False, margin: bool = False, base: bool = False, human: bool = False, keys: bool = False
    ) -> Iterator[LabelBlock]:
        """The rows in store order, as :meth:`RevisionFile.blocks` gives them."""
        for start in range(0, self.rows, BLOCK_ROWS):
            rows = slice(start, min(start + BLOCK_ROWS, self.rows))
            count = rows.stop - start
            marks = np.zeros((count, len(self.domains)), bool) if self.human is None else self.human[rows]
            yield LabelBlock(
                start,
                count,
                self.active[rows] if active else np.empty((count, 0), bool),
                self.margin[rows] if margin else np.empty((count, 0), np.float32),
                self.similarity_base[rows] if base else np.empty(0, np.float32),
                marks if human else np.empty((count, 0), bool),
                pa.array(self.image_ids[rows], pa.string()) if keys else _NO_KEYS,
                pa.array(self.paths[rows], pa.string()) if keys else _NO_KEYS,
            )


@dataclass(frozen=True)
class RevisionFile:
    """A label revision on disk, of which only the footer has been read.

    number, parent, origin, rule, prompt_set: see :class:`LabelRevision`. rows: n. has_human: whether people set labels.
    """

    path: Path
    number: int
    parent: int | None
    origin: str
    rule: dict[str, Any]
    prompt_set: PromptSet
    rows: int
    has_human: bool

    @classmethod
    def open(cls, path: Path, number: int, fingerprint: Fingerprint) -> RevisionFile:
        """Raises LanitError where the file is damaged, no revision, or of other embeddings than ``fingerprint``'s."""
        try:
            with pq.ParquetFile(path) as file:
                metadata, rows, names = metadata_of(file.schema_arrow), file.metadata.num_rows, file.schema_arrow.names
        except (OSError, ValueError, pa.ArrowException) as error:
            raise LanitError(f"label revision {number} cannot be read ({error})", _ANEW) from error
        if metadata.get("kind") != "labels" or metadata.get("schema_version") != SCHEMA_VERSION:
            raise LanitError(f"{path} is not a label revision of schema version {SCHEMA_VERSION}", _ANEW)
        made_by = Fingerprint.from_json(metadata["fingerprint"])
        if made_by != fingerprint:  # of other embeddings, so the precision counts
            raise LanitError(
                f"label revision {number} was made with {made_by.describe()}; "
                f"the store now holds {fingerprint.describe()}",
                _ANEW,
            )
        prompt_set = PromptSet.from_json(metadata["prompt_set"])
        has_human = HUMAN_PREFIX + prompt_set.domains[0] in names
        return cls(path, number, metadata["parent"], metadata["origin"], metadata["rule"], prompt_set, rows, has_human)

    @property
    def domains(self) -> tuple[str, ...]:
        return self.prompt_set.domains

    def blocks(
        self, *, active: bool = False, margin: bool = False, base: bool = False, human: bool = False, keys: bool = False
    ) -> Iterator[LabelBlock]:
        """The rows in store order, at most ``BLOCK_ROWS`` at once; only what is asked for is read.

        base: similarity_base; keys: image_ids and paths. Raises LanitError where the file is damaged.
        """
        wanted = [prefix for prefix, is_wanted in ((ACTIVE_PREFIX, active), (MARGIN_PREFIX, margin)) if is_wanted]
        if human and self.has_human:
            wanted.append(HUMAN_PREFIX)
        names = [prefix + domain for prefix in wanted for domain in self.domains]
        names += (["similarity_base"] if base else []) + (["image_id", "path"] if keys else [])
        start = 0
        with self._reading() as file:
            for group in range(file.num_row_groups):
                block = self._block(_row_group(file, group, names, self.number), start, human)
                start += block.rows
                yield block

    def take(self, rows: Sequence[int]) -> LabelBlock:
        """The rows of these numbers, in this order, with everything; ``start`` is 0.

        Reads only the row groups that hold them, one at a time.
        """
        order = np.asarray(rows, np.int64)
        pieces, places, start = [], [], 0
        names = [column.name for column in labels_schema(self.domains, human=self.has_human)]
        with self._reading() as file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                positions = np.flatnonzero((order >= start) & (order < end))
                if len(positions):
                    pieces.append(_row_group(file, group, names, self.number).take(order[positions] - start))
                    places.append(positions)
                start = end
        if sum(map(len, places)) != len(order):
            raise IndexError(f"label revision {self.number} has {self.rows} rows")
        if not pieces:
            return self._block(labels_schema(self.domains, human=self.has_human).empty_table(), 0, human=True)
        return self._block(pa.concat_tables(pieces).take(np.argsort(np.concatenate(places))), 0, human=True)

    def read(self) -> LabelRevision:
        """All of it, in memory."""
        shape = (self.rows, len(self.domains))
        active, margin = np.empty(shape, bool), np.empty(shape, np.float32)
        human = np.empty(shape, bool) if self.has_human else None
        base = np.empty(self.rows, np.float32)
        keys = [(_NO_KEYS, _NO_KEYS)]
        for block in self.blocks(active=True, margin=True, base=True, human=self.has_human, keys=True):
            rows = slice(block.start, block.start + block.rows)
            active[rows], margin[rows], base[rows] = block.active, block.margin, block.similarity_base
            if human is not None:
                human[rows] = block.human
            keys.append((block.image_ids, block.paths))
        ids, paths = (pa.chunked_array(list(side), pa.string()).to_numpy() for side in zip(*keys, strict=True))
        return LabelRevision(self.number, self.parent, self.origin, self.rule, self.prompt_set, active, margin, base,
                             ids, paths, human)  # fmt: skip

    def _reading(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path)
        except (OSError, pa.ArrowException) as error:
            raise LanitError(f"label revision {self.number} cannot be read ({error})", _ANEW) from error

    def _block(self, table: pa.Table, start: int, human: bool) -> LabelBlock:
        names, rows = set(table.column_names), table.num_rows
        keys = [table[name].combine_chunks() if name in names else _NO_KEYS for name in ("image_id", "path")]
        base = table["similarity_base"].to_numpy() if "similarity_base" in names else np.empty(0, np.float32)
        marks = _matrix(table, HUMAN_PREFIX, self.domains, bool)
        if human and not self.has_human:
            marks = np.zeros((rows, len(self.domains)), bool)
        active, margin = (
            _matrix(table, prefix, self.domains, dtype)
            for prefix, dtype in ((ACTIVE_PREFIX, bool), (MARGIN_PREFIX, np.float32))
        )
        return LabelBlock(start, rows, active, margin, base, marks, *keys)


Labels = RevisionFile | LabelRevision
"""A revision, on disk or in memory: both have ``blocks``."""


def _row_group(file: pq.ParquetFile, group: int, names: list[str], number: int) -> pa.Table:
    try:
        if names:
            return file.read_row_group(group, columns=names).select(names)
    except (OSError, pa.ArrowException) as error:
        raise LanitError(f"label revision {number} cannot be read ({error})", _ANEW) from error
    return pa.table({"": pa.nulls(file.metadata.row_group(group).num_rows)})


def _matrix(table: pa.Table, prefix: str, domains: Sequence[str], dtype: type) -> np.ndarray:
    """The columns of ``prefix``, (b×N) with contiguous columns; (b×0) where the table lacks them."""
    if prefix + domains[0] not in table.column_names:
        return np.empty((table.num_rows, 0), dtype)
    out = np.empty((len(domains), table.num_rows), dtype)
    for position, domain in enumerate(domains):
        out[position] = table[prefix + domain].to_numpy()
    return out.T


@dataclass(frozen=True)
class RevisionHeader:
    """What a revision says about itself, apart from its rows.

    inputs_sha256: over everything that decides the labels; equal headers are equal revisions.
    """

    fingerprint: Fingerprint
    prompt_set: PromptSet
    rule: dict[str, Any]
    origin: str
    parent: int | None
    inputs_sha256: str
    human: bool = False

    @property
    def metadata(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "labels",
            "fingerprint": self.fingerprint.to_json(),
            "parent": self.parent,
            "origin": self.origin,
            "rule": self.rule,
            "prompt_set": self.prompt_set.to_json(),
            "inputs_sha256": self.inputs_sha256,
        }

    @property
    def schema(self) -> pa.Schema:
        return with_metadata(labels_schema(self.prompt_set.domains, human=self.human), self.metadata)

    def is_of(self, path: Path) -> bool:
        """Whether the revision in ``path`` says exactly this; false where it cannot be read."""
        try:
            return bool(pq.read_schema(path).equals(self.schema, check_metadata=True))
        except (OSError, ValueError, pa.ArrowException):
            return False


def write_revision(path: Path, header: RevisionHeader, blocks: Iterable[LabelBlock]) -> None:
    """Write the rows of ``blocks``, of at most ``BLOCK_ROWS`` rows each, to the file ``path``."""
    settings = {"compression": "zstd", "compression_level": 1, "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(path, header.schema, **settings) as file:
        waiting: list[LabelBlock] = []
        for block in blocks:
            if waiting and sum(each.rows for each in waiting) + block.rows > BLOCK_ROWS:
                file.write_table(_table(waiting, header), row_group_size=BLOCK_ROWS)
                waiting = []
            waiting.append(block)
        if waiting:
            file.write_table(_table(waiting, header), row_group_size=BLOCK_ROWS)


def _table(blocks: Sequence[LabelBlock], header: RevisionHeader) -> pa.Table:
    def joined(name: str, column: int) -> np.ndarray:
        return np.concatenate([np.ascontiguousarray(getattr(block, name)[:, column]) for block in blocks])

    columns = [
        pa.chunked_array([block.image_ids for block in blocks], pa.string()),
        pa.chunked_array([block.paths for block in blocks], pa.string()),
        pa.array(np.concatenate([block.similarity_base for block in blocks]).astype(np.float32)),
    ]
    for n in range(len(header.prompt_set.domains)):
        columns.append(pa.array(joined("active", n).astype(bool)))
        columns.append(pa.array(joined("margin", n).astype(np.float32)))
        if header.human:
            columns.append(pa.array(joined("human", n).astype(bool)))
    return pa.table(columns, schema=header.schema)


def with_overrides(block: LabelBlock, given: np.ndarray) -> LabelBlock:
    """``block`` with the labels that people gave in the place of CLIP's. given: see :data:`Overrides`."""
    known = given >= 0
    return LabelBlock(block.start, block.rows, np.where(known, given == 1, block.active), block.margin,
                      block.similarity_base, known, block.image_ids, block.paths)  # fmt: skip


def digest_of(*arrays: np.ndarray) -> str:
    """SHA-256 (hex) of arrays: their types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
