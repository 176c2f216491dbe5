"""Label revisions: read in blocks or whole, and written in blocks, so that memory does not grow with the images."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lanit.errors import LanitError
from lanit.rules import Rule
from pipeline.clip.fingerprint import Fingerprint
from pipeline.files import sealed, sha256_bytes, unsealed
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.fill_figures import FillFigures
from pipeline.store.label_ledger import check_entered
from pipeline.store.schemas import (
    ACTIVE_PREFIX,
    HUMAN_PREFIX,
    MARGIN_PREFIX,
    SCHEMA_VERSION,
    labels_schema,
    metadata_of,
    with_metadata,
)

BLOCK_ROWS = 65536
"""Rows of a row group at most: what is in memory at once, whatever the size of the store."""

_NO_KEYS = pa.nulls(0, pa.string())  # pa.array would import pandas


_T = TypeVar("_T")


class LabelBlock:
    """b successive rows of a revision. What was not asked for is not there: to use it raises LookupError.

    start: number of the first row. rows: b. active: bool (b×N). margin: float32 (b×N), f_n − f_base, of CLIP alone.
    similarity_base: float32 (b). human: bool (b×N), labels that people set. image_ids, paths: Arrow strings (b).
    """

    __slots__ = ("_active", "_human", "_image_ids", "_margin", "_paths", "_similarity_base", "rows", "start")

    def __init__(
        self,
        start: int,
        rows: int,
        *,
        active: np.ndarray | None = None,
        margin: np.ndarray | None = None,
        similarity_base: np.ndarray | None = None,
        human: np.ndarray | None = None,
        image_ids: pa.Array | None = None,
        paths: pa.Array | None = None,
    ) -> None:
        self.start, self.rows = start, rows
        self._active, self._margin, self._similarity_base, self._human = active, margin, similarity_base, human
        self._image_ids, self._paths = image_ids, paths

    @property
    def active(self) -> np.ndarray:
        return _asked_for(self._active, "active")

    @property
    def margin(self) -> np.ndarray:
        return _asked_for(self._margin, "margin")

    @property
    def similarity_base(self) -> np.ndarray:
        return _asked_for(self._similarity_base, "similarity_base")

    @property
    def human(self) -> np.ndarray:
        return _asked_for(self._human, "human")

    @property
    def image_ids(self) -> pa.Array:
        return _asked_for(self._image_ids, "image_ids")

    @property
    def paths(self) -> pa.Array:
        return _asked_for(self._paths, "paths")

    def relabelled(self, active: np.ndarray, human: np.ndarray | None = None) -> LabelBlock:
        """The same rows with other labels, bool (b×N), of which people set ``human``, or none."""
        return LabelBlock(
            self.start, self.rows, active=active, margin=self._margin, similarity_base=self._similarity_base,
            human=human, image_ids=self._image_ids, paths=self._paths,
        )  # fmt: skip


def _asked_for(values: _T | None, name: str) -> _T:
    if values is None:
        raise LookupError(f"{name} of these rows was not asked for")
    return values


Overrides = Callable[[LabelBlock], np.ndarray]
"""Labels that people gave to the images of a block (its keys): int8 (b×N), 1 on, 0 off, −1 as CLIP says."""


def of_training(origin: str) -> bool:
    """Whether a run wrote a revision of this origin as it learned; else ``lanit label`` did."""
    return origin.startswith("train:")


@dataclass(frozen=True)
class Revision:
    """What a label revision says of itself. number: of the revision; parent: the one it was made from, or none.

    origin: ``label``, or ``train:<run> step <k>``. rule: what labelled the images of which no person said anything.
    fill: of labels that were filled in from known ones; else none.
    """

    number: int
    parent: int | None
    origin: str
    rule: Rule
    prompt_set: PromptSet

    @property
    def domains(self) -> tuple[str, ...]:
        return self.prompt_set.domains

    @property
    def of_training(self) -> bool:
        return of_training(self.origin)


@dataclass(frozen=True)
class LabelRevision(Revision):
    """The labels of n images in N domains, whole in memory.

    active: bool (n×N). margin: float32 (n×N), f_n − f_base. similarity_base: float32 (n), f_base.
    image_ids, paths: arrays of n strings, in store order. human: bool (n×N), labels that people set; none if none are.
    """

    active: np.ndarray
    margin: np.ndarray
    similarity_base: np.ndarray
    image_ids: np.ndarray
    paths: np.ndarray
    human: np.ndarray | None = None
    fill: FillFigures | None = None

    @property
    def rows(self) -> int:
        return len(self.active)

    @property
    def has_human(self) -> bool:
        return self.human is not None

    def of_domains(self, columns: tuple[int, ...]) -> LabelRevision:
        """Some of its domains alone."""
        chosen = list(columns)
        return replace(
            self, prompt_set=self.prompt_set.of_domains(columns), active=self.active[:, chosen],
            margin=self.margin[:, chosen], human=None if self.human is None else self.human[:, chosen], fill=None,
        )  # fmt: skip

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
                active=self.active[rows] if active else None,
                margin=self.margin[rows] if margin else None,
                similarity_base=self.similarity_base[rows] if base else None,
                human=marks if human else None,
                image_ids=pa.array(self.image_ids[rows], pa.string()) if keys else None,
                paths=pa.array(self.paths[rows], pa.string()) if keys else None,
            )


@dataclass(frozen=True)
class RevisionFile(Revision):
    """A label revision on disk, of which only the footer has been read. rows: n. has_human: if people set labels.

    header_sha256: of what it says of itself; equal ones are equal labels.
    """

    path: Path
    rows: int
    has_human: bool
    header_sha256: str
    fill: FillFigures | None = None

    @classmethod
    def open(cls, path: Path, number: int, fingerprint: Fingerprint) -> RevisionFile:
        """Raises LanitError where the file is damaged, no revision, another than the ledger beside it says, or of
        other embeddings than ``fingerprint``'s."""
        with _noticing_damage(path, number):
            with pq.ParquetFile(path) as file:
                schema, footer = file.schema_arrow, file.metadata
            metadata = unsealed(metadata_of(schema))
            check_entered(path)
        if metadata.get("kind") != "labels" or metadata.get("schema_version") != SCHEMA_VERSION:
            raise LanitError(f"{path} is not a label revision of schema version {SCHEMA_VERSION}", _anew(path))
        with _noticing_damage(path, number):
            made_by = Fingerprint.from_json(metadata["fingerprint"])
            prompt_set = PromptSet.from_json(metadata["prompt_set"])
            has_human = HUMAN_PREFIX + prompt_set.domains[0] in schema.names
            if not schema.remove_metadata().equals(labels_schema(prompt_set.domains, human=has_human)):
                raise ValueError("its columns are not those of its prompts")
            rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
            if sum(rows) != footer.num_rows:
                raise ValueError(f"it counts {footer.num_rows} rows and has {sum(rows)}")
            parent, origin, rule = metadata["parent"], metadata["origin"], Rule(**metadata["rule"])
            fill = FillFigures.from_json(metadata["fill"]) if "fill" in metadata else None
        if made_by != fingerprint:  # of other embeddings, so the precision counts
            raise LanitError(
                f"label revision {number} was made with {made_by.describe()}; "
                f"the store now holds {fingerprint.describe()}",
                _anew(path),
            )
        return cls(
            number=number, parent=parent, origin=origin, rule=rule, prompt_set=prompt_set, path=path,
            rows=footer.num_rows, has_human=has_human,
            header_sha256=sha256_bytes(json.dumps(metadata, sort_keys=True).encode()), fill=fill,
        )  # fmt: skip

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
        with _opened(self.path, self.number) as file:
            for group in range(file.num_row_groups):
                block = self._block(self._row_group(file, group, names), start, human)
                start += block.rows
                yield block

    def column(self, domain: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of one domain, whole: labels, bool (n); margins, float32 (n); which labels people set, bool (n).

        Raises LanitError where the file is damaged.
        """
        prefixes = (ACTIVE_PREFIX, MARGIN_PREFIX, *([HUMAN_PREFIX] if self.has_human else []))
        names = [prefix + self.domains[domain] for prefix in prefixes]
        with _opened(self.path, self.number) as file:
            groups = [self._row_group(file, group, names) for group in range(file.num_row_groups)]
        table = pa.concat_tables(groups) if groups else labels_schema(self.domains, human=self.has_human).empty_table()
        active, margin, *human = (table[name].to_numpy() for name in names)
        return active, margin, human[0] if human else np.zeros(len(active), bool)

    def take(self, rows: Sequence[int]) -> LabelBlock:
        """The rows of these numbers, in this order, with everything; ``start`` is 0.

        Reads only the row groups that hold them, one at a time.
        """
        order = np.asarray(rows, np.int64)
        pieces, places, start = [], [], 0
        names = [column.name for column in labels_schema(self.domains, human=self.has_human)]
        with _opened(self.path, self.number) as file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                positions = np.flatnonzero((order >= start) & (order < end))
                if len(positions):
                    pieces.append(self._row_group(file, group, names).take(order[positions] - start))
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
        return LabelRevision(
            number=self.number, parent=self.parent, origin=self.origin, rule=self.rule, prompt_set=self.prompt_set,
            active=active, margin=margin, similarity_base=base, image_ids=ids, paths=paths, human=human, fill=self.fill,
        )  # fmt: skip

    def _row_group(self, file: pq.ParquetFile, group: int, names: list[str]) -> pa.Table:
        rows = file.metadata.row_group(group).num_rows
        if not names:
            return pa.table({"": pa.nulls(rows)})
        with _noticing_damage(self.path, self.number):
            table = file.read_row_group(group, columns=names).select(names)
            if table.num_rows != rows:
                raise ValueError(f"a row group has {table.num_rows} rows, not {rows}")
            return table

    def _block(self, table: pa.Table, start: int, human: bool) -> LabelBlock:
        names, rows = set(table.column_names), table.num_rows
        ids, paths = (table[name].combine_chunks() if name in names else None for name in ("image_id", "path"))
        marks = _matrix(table, HUMAN_PREFIX, self.domains, bool)
        if human and not self.has_human:
            marks = np.zeros((rows, len(self.domains)), bool)
        return LabelBlock(
            start,
            rows,
            active=_matrix(table, ACTIVE_PREFIX, self.domains, bool),
            margin=_matrix(table, MARGIN_PREFIX, self.domains, np.float32),
            similarity_base=table["similarity_base"].to_numpy() if "similarity_base" in names else None,
            human=marks,
            image_ids=ids,
            paths=paths,
        )


Labels = RevisionFile | LabelRevision
"""A revision, on disk or in memory: both have ``blocks``."""


def _anew(path: Path) -> str:
    """What to type in place of the revision ``path``: the same prompts are written again, as the newest."""
    return f"Run: lanit label --prompts FILE --store {shlex.quote(str(path.parent.parent))}"


@contextlib.contextmanager
def _noticing_damage(path: Path, number: int) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, LanitError, pa.ArrowException) as error:
        raise LanitError(f"label revision {number} cannot be read ({error})", _anew(path)) from error


def _opened(path: Path, number: int) -> pq.ParquetFile:
    """The file of a revision, whose pages are compared with their checksums as they are read."""
    with _noticing_damage(path, number):
        return pq.ParquetFile(path, page_checksum_verification=True)


def _matrix(table: pa.Table, prefix: str, domains: Sequence[str], dtype: type) -> np.ndarray | None:
    """The columns of ``prefix``, (b×N) with contiguous columns; none where the table lacks them."""
    if prefix + domains[0] not in table.column_names:
        return None
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
    rule: Rule
    origin: str
    parent: int | None
    inputs_sha256: str
    human: bool = False
    fill: FillFigures | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "labels",
            "fingerprint": self.fingerprint.to_json(),
            "parent": self.parent,
            "origin": self.origin,
            "rule": self.rule.to_json(),
            "prompt_set": self.prompt_set.to_json(),
            "inputs_sha256": self.inputs_sha256,
        } | ({"fill": self.fill.to_json()} if self.fill is not None else {})

    @property
    def schema(self) -> pa.Schema:
        return with_metadata(labels_schema(self.prompt_set.domains, human=self.human), sealed(self.metadata))

    def is_of(self, path: Path) -> bool:
        """Whether the revision in ``path`` says exactly this, and is whole; false where it cannot be read.

        Of a revision that says so every page is read, since another is written only where that one will not do.
        """
        try:
            with _noticing_damage(path, 0):
                schema = pq.read_schema(path)
                stated = unsealed(metadata_of(schema))
            if stated != json.loads(json.dumps(self.metadata)) or schema.names != self.schema.names:
                return False
            whole = RevisionFile.open(path, 0, self.fingerprint)
            for _ in whole.blocks(active=True, margin=True, base=True, human=True, keys=True):
                pass
        except LanitError:
            return False
        return True


def write_revision(path: Path, header: RevisionHeader, blocks: Iterable[LabelBlock]) -> None:
    """Write the rows of ``blocks``, of at most ``BLOCK_ROWS`` rows each, to the file ``path``."""
    settings = {"compression": "zstd", "compression_level": 1, "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(path, header.schema, write_page_checksum=True, **settings) as file:
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
    return block.relabelled(np.where(known, given == 1, block.active), known)


def digest_of(*arrays: np.ndarray) -> str:
    """SHA-256 (hex) of arrays: their types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
