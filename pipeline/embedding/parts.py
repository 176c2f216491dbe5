"""The writing side of the images table: rows, parts named by their content, the journal, the commit."""

from __future__ import annotations

import contextlib
import io
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.clip.fingerprint import Fingerprint
from pipeline.computing.part_plan import PartPlan
from pipeline.decoding.frames import Frame
from pipeline.embedding.image_rows import KNOWN_COLUMNS, ImageRow, RowCatalogue
from pipeline.embedding.journal import Journal
from pipeline.files import sha256_bytes, temporary_name, write_bytes
from pipeline.parquet_seals import close_sealed, footer_sha256
from pipeline.store.part_files import check_bytes, check_part, is_part_of_lanit, read_part
from pipeline.store.schemas import SCHEMA_VERSION, Manifest, Part, SourceEntry, StoredType, images_schema, with_metadata
from pipeline.store.store_folder import (
    IMAGES_FOLDER,
    UNFINISHED_NAME,
    parts_in_force,
    parts_of_journal,
    read_manifest,
    write_manifest,
)

PART_ROWS = 2048
"""Rows of a part up to a million images: what a killed run may lose, a few minutes of ViT-B/32 on a CPU."""
_MOST_PART_ROWS = 32768
_PARTS = 512  # beyond so many parts they grow, so that opening a store stays quick
_CACHED_PARTS = 4
_CATALOGUE_NAME = "catalogue.sqlite"


@dataclass(frozen=True)
class TableSettings:
    """How an images table is made, beside its model: see :class:`pipeline.store.schemas.Manifest`."""

    storage: StoredType
    frame: Frame | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


class PartWriter:
    """Writes the new images table beside the old one, and replaces it in one step.

    Parts are named by their content, so a part that stays the same is not written again, and an old one is never
    overwritten. ``images/unfinished.jsonl`` lists the finished parts of a run that has not committed, a line each: the
    next run finds their rows as it finds those of the old table. Of what lies in ``images/`` only parts are removed
    that the store or its journal named, or that prove by their own bytes that lanit wrote them, and never an input.

    damages: what is wrong with damaged parts, whose rows are not used. lost: inputs that these may have had rows of.
    """

    def __init__(
        self, root: Path, fingerprint: Fingerprint, settings: TableSettings, inputs: Sequence[str], *, overwrite: bool
    ) -> None:
        """Read what the store holds. inputs: sources of this run.

        Raises LanitError for a damaged ``store.json`` or one of another model or other settings, unless it is to be
        overwritten.
        """
        self.root, self.fingerprint, self.settings = root, fingerprint, settings
        self.old = None if overwrite else _old_manifest(root, fingerprint, settings)
        self.parts: list[Part] = []
        self.damages: list[str] = []
        self.lost: set[str] = set()
        self._spared = {Path(source).resolve() for source in [*inputs, *(each.source for each in self.old_sources())]}
        self._in_force, self._interrupted = parts_in_force(root), parts_of_journal(root)
        self._written: set[str] = set()
        self._rows: dict[str, int] = {}
        self._cache: OrderedDict[int, tuple[dict[str, list[Any]], np.ndarray]] = OrderedDict()
        header = {"schema_version": SCHEMA_VERSION, "overwrite": overwrite, "fingerprint": fingerprint.to_json()}
        self._journal = Journal(root, header | settings.to_json())
        self.catalogue = RowCatalogue(temporary_name(root / _CATALOGUE_NAME))
        try:
            self._learn()
        except BaseException:
            self.catalogue.close()
            raise

    def _learn(self) -> None:
        """Make the rows of the old table and of an interrupted run known, but for those of damaged parts."""
        for part in self.old.parts if self.old else ():
            try:
                rows = self._whole(part.file, part)
            except LanitError as error:
                self.lost |= self._sources_of(part)
                self.damages.append(error.message)
                continue
            self.catalogue.learn(part.file, rows, committed=True)
        self._journalled: dict[str, None] = {}
        for file in self._journal.read():
            with contextlib.suppress(LanitError):
                rows = self._whole(file, None)
                self._journalled[file] = None
            if file in self._journalled:
                self.catalogue.learn(file, rows, committed=False)

    def _whole(self, file: str, part: Part | None) -> pa.Table:
        """What tells the rows of a part. part: as the store counts it; none for one of an interrupted run.

        Raises LanitError where any byte of it is not as it was written.
        """
        check_part(self.root / file, part, self.fingerprint, self.settings.storage)
        check_bytes(self.root / file)
        rows = read_part(self.root / file, KNOWN_COLUMNS)
        self._rows[file] = len(rows)
        return rows

    def _sources_of(self, part: Part) -> set[str]:
        """Inputs of the store that a damaged part has rows of, all of them where it does not tell."""
        every = {entry.source for entry in self.old_sources()}
        try:
            found = set(read_part(self.root / part.file, ["source"], part)["source"].to_pylist())
        except LanitError:
            return every
        return found if found and found <= every else every

    def close(self) -> None:
        """Remove the scratch files; what is written of an unfinished run stays."""
        self.catalogue.close()
        if not (self.root / UNFINISHED_NAME).exists():
            with contextlib.suppress(OSError):
                (self.root / IMAGES_FOLDER).rmdir()  # only where it is empty

    def old_sources(self) -> tuple[SourceEntry, ...]:
        return self.old.sources if self.old else ()

    def plan(self, kept: list[str], retry_failed: bool, part_rows: int | None = None) -> PartPlan[ImageRow]:
        """The rows of the table to be. part_rows: none for as many as suit the size of the table."""
        part_rows = part_rows or rows_of_a_part(self.catalogue.count(kept))
        return PartPlan(self.catalogue.table(kept, retry_failed), part_rows)

    def add(self, rows: Sequence[ImageRow]) -> None:
        """Write the next part, and note it in the journal."""
        self._journal.begin(self._journalled)
        file, ok = self._as_it_is(rows) or "", sum(row.known.ok for row in rows if row.known)
        if not file:
            data = rows.data if isinstance(rows, WrittenRows) else self._to_parquet(rows)
            ok = sum(row.status == "ok" for row in rows)
            file = self._name(len(self.parts), sha256_bytes(data))
            path = self.root / file
            if not path.exists():
                self._written.add(file)
            if not path.is_file() or path.read_bytes() != data:  # not as it should be only where it was damaged
                write_bytes(path, data)
        self.parts.append(Part(file, len(rows), ok, footer_sha256(self.root / file)))
        if file not in self._journalled:
            self._journal.append(file)

    def commit(self, spec: str, architecture: str | None, sources: Sequence[SourceEntry]) -> None:
        """Put the new table in force and remove what it no longer names."""
        storage, frame = self.settings.storage, self.settings.frame
        made = (self.fingerprint, spec, architecture, storage, tuple(sources), tuple(self.parts), frame)
        write_manifest(self.root, Manifest(*made))
        ours = (self._in_force or set()) | self._interrupted | self._written
        strays = {f"{IMAGES_FOLDER}/{path.name}" for path in (self.root / IMAGES_FOLDER).glob("part-*.parquet")}
        strays -= {part.file for part in self.parts}
        self._remove(file for file in strays if file in ours or is_part_of_lanit(self.root / file))

    def discard(self) -> None:
        """Remove what this run wrote, and what interrupted ones did; the old table stays, even one not understood."""
        ours = self._written if self._in_force is None else (self._written | self._interrupted) - self._in_force
        self._remove(ours)

    def _remove(self, files: Iterable[str]) -> None:
        self._journal.remove()
        for file in files:
            path = self.root / file
            if path.resolve() not in self._spared:
                path.unlink(missing_ok=True)

    def _name(self, number: int, digest: str) -> str:
        return f"{IMAGES_FOLDER}/part-{number:05d}-{digest[:8]}.parquet"

    def _as_it_is(self, rows: Sequence[ImageRow]) -> str | None:
        """The file that already is this part, if there is one."""
        first = rows[0].known
        if first is None or any(not row.as_is for row in rows):
            return None
        file = self.catalogue.files[first.file]
        if any(row.known is None or row.known.file != first.file or row.known.row != i for i, row in enumerate(rows)):
            return None
        same_number = file.startswith(self._name(len(self.parts), "").removesuffix(".parquet"))
        return file if same_number and len(rows) == self._rows[file] else None

    def _earlier(self, file: int) -> tuple[dict[str, list[Any]], np.ndarray]:
        """Columns and embeddings, float32 (n×k), of a part; a few are kept, since rows are asked for in order."""
        if file not in self._cache:
            names = ["width", "height", "bytes", "sha256", "status", "error_message"]
            table = read_part(self.root / self.catalogue.files[file], [*names, "embedding"])
            column = table["embedding"].combine_chunks()
            values = np.zeros((len(column), self.fingerprint.embedding_dim), np.float32)
            valid = column.is_valid().to_numpy(zero_copy_only=False)
            values[valid] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, values.shape[1])
            self._cache[file] = table.select(names).to_pydict(), values
            while len(self._cache) > _CACHED_PARTS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(file)
        return self._cache[file]

    def _to_parquet(self, rows: Sequence[ImageRow]) -> bytes:
        """A part as bytes, its rows completed by what earlier parts know of them."""
        for row in rows:
            if row.known is not None:
                columns, earlier = self._earlier(row.known.file)
                for name, values in columns.items():
                    setattr(row, name, values[row.known.row])
                if row.known.ok:
                    row.embedding = earlier[row.known.row]
        return part_bytes(rows, self.fingerprint, self.settings.storage)


class WrittenRows(list[ImageRow]):
    """The rows of a whole part, none of them known before, without their embeddings. data: the part."""

    def __init__(self, rows: Iterable[ImageRow], data: bytes) -> None:
        super().__init__(rows)
        self.data = data


def part_bytes(rows: Sequence[ImageRow], fingerprint: Fingerprint, storage: StoredType) -> bytes:
    """A part as bytes, wherever it is made: equal rows give equal bytes."""
    dim = fingerprint.embedding_dim
    schema = images_schema(dim, storage)
    embeddings = np.zeros((len(rows), dim), np.dtype(storage))
    for number, row in enumerate(rows):
        if row.embedding is not None:
            embeddings[number] = row.embedding
    failed = pa.array([row.status != "ok" for row in rows])
    plain = [field for field in schema if field.name != "embedding"]
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in plain]
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), dim, mask=failed))
    metadata = {"schema_version": SCHEMA_VERSION, "kind": "images", "fingerprint": fingerprint.to_json()}
    repeated = ["source", "width", "height", "status", "error_message"]
    packed = {field.name: "zstd" for field in plain} | {"embedding.list.element": "none"}  # noise does not shrink
    table = pa.table(columns, schema=with_metadata(schema, metadata))
    sink = io.BytesIO()
    writer = pq.ParquetWriter(
        sink, table.schema, compression=packed, use_dictionary=repeated, write_statistics=repeated,
        write_page_checksum=True,
    )  # fmt: skip
    writer.write_table(table)
    close_sealed(writer, sink)
    return sink.getvalue()


def rows_of_a_part(images: int) -> int:
    """A power of two: PART_ROWS up to a million images, more beyond."""
    rows = PART_ROWS
    while rows < _MOST_PART_ROWS and images > rows * _PARTS:
        rows *= 2
    return rows


def _old_manifest(root: Path, fingerprint: Fingerprint, settings: TableSettings) -> Manifest | None:
    old = read_manifest(root)
    if old is None:
        return None
    again = "Name another --store, or add --overwrite to replace them."
    if old.fingerprint != fingerprint:
        raise LanitError(
            f"the store {root} holds embeddings of {old.fingerprint.describe()}, not of {fingerprint.describe()}: "
            f"{', '.join(old.fingerprint.differences(fingerprint))} differ",
            again,
        )
    if old.storage != settings.storage:
        raise LanitError(f"the store {root} holds embeddings as {old.storage}, not {settings.storage}", again)
    if old.frame != settings.frame:
        held = "the frame that each file names, else its first" if old.frame is None else f"frame {old.frame}"
        raise LanitError(f"the store {root} holds {held}, not frame {settings.frame}", again)
    return old
