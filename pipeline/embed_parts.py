"""The writing side of the images table: rows, parts named by their content, the journal, the commit."""

from __future__ import annotations

import contextlib
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.files import read_json, sha256_bytes, write_bytes, write_json
from pipeline.schemas import SCHEMA_VERSION, Fingerprint, Manifest, Part, images_schema, with_metadata
from pipeline.store import IMAGES_FOLDER, MANIFEST_NAME, UNFINISHED_NAME, check_part

if TYPE_CHECKING:
    from pipeline.clip_models import ClipModel

PART_ROWS = 2048
"""Rows of a part: what an interrupted run may lose, a few minutes of ViT-B/32 on a CPU."""

_CACHED_PARTS = 4


@dataclass(frozen=True, slots=True)
class KnownRow:
    """A row that some part already holds."""

    file: str
    row: int
    width: int | None
    height: int | None
    bytes: int | None
    sha256: str | None
    status: str
    error_message: str | None


@dataclass
class Row:
    """A row in the making. known: the earlier row whose embedding it takes over."""

    image_id: str
    path: str
    source: str
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    status: str = "failed"
    error_message: str | None = None
    embedding: np.ndarray | None = None
    known: KnownRow | None = None

    def fail(self, reason: str) -> None:
        self.status, self.error_message = "failed", reason[:500]


def image_id(source: str, path: str) -> str:
    """16 hexadecimal digits of BLAKE2b over source and path: stable over runs and folders added later."""
    return hashlib.blake2b(f"{source}\0{path}".encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


class PartWriter:
    """Writes the new images table beside the old one, and replaces it in one step.

    Parts are named by their content, so a part that stays the same is not written again, and an old one is never
    overwritten. ``images/unfinished.json`` lists the finished parts of a run that has not committed: the next run
    finds their rows as it finds those of the old table.
    """

    def __init__(self, root: Path, clip: ClipModel, source: Path, old: Manifest | None, overwrite: bool) -> None:
        self.root, self.clip, self.source, self.overwrite = root, clip, source, overwrite
        self.old = old
        self.parts: list[Part] = []
        self.warnings: list[str] = []
        self._by_id: dict[str, KnownRow] = {}
        self._by_content: dict[str, KnownRow] = {}
        self._old_places: dict[str, tuple[str, str]] = {}
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()

    @classmethod
    def open(cls, root: Path, clip: ClipModel, source: Path, *, overwrite: bool) -> PartWriter:
        """Read what the store holds. Raises LanitError for a damaged ``store.json`` or one of another model."""
        old = None
        if (root / MANIFEST_NAME).exists() and not overwrite:
            old = Manifest.from_json(
                read_json(root / MANIFEST_NAME, "Add --mode overwrite."), str(root / MANIFEST_NAME)
            )
            _check_model(root, old.fingerprint, clip.fingerprint)
        writer = cls(root, clip, source, old, overwrite)
        for part in old.parts if old else ():
            try:
                check_part(root / part.file, part.rows, clip.fingerprint, "")
            except LanitError as error:
                writer.warnings.append(f"{error.message}; its rows are not used")
                continue
            writer._learn(part.file, old=True)
        for file in writer._unfinished():
            writer._learn(file)
        return writer

    def find(self, name: str, sha256: str | None) -> KnownRow | None:
        """An earlier row: of the image ``name`` whatever its state (sha256 none), or an embedding of this content.

        The image's own row goes first, then any of the same content: a moved file is not embedded again.
        """
        own = self._by_id.get(name)
        if sha256 is None or (own is not None and own.status == "ok" and own.sha256 == sha256):
            return own
        return self._by_content.get(sha256)

    def kept_places(self) -> list[tuple[str, str]]:
        """(source, path) of the rows of other folders that still exist."""
        alive = {source: Path(source).is_dir() for source in {place[0] for place in self._old_places.values()}}
        return [place for place in self._old_places.values() if place[0] != str(self.source) and alive[place[0]]]

    def add(self, rows: list[Row]) -> None:
        """Write the next part, and note it in the journal."""
        data = self._to_parquet(rows)
        file = f"{IMAGES_FOLDER}/part-{len(self.parts):05d}-{sha256_bytes(data)[:8]}.parquet"
        path = self.root / file
        if not path.is_file() or path.read_bytes() != data:  # not as it should be only where it was damaged
            write_bytes(path, data)
        self.parts.append(Part(file, len(rows), sum(row.status == "ok" for row in rows)))
        journal = {
            "schema_version": SCHEMA_VERSION,
            "overwrite": self.overwrite,
            "fingerprint": self.clip.fingerprint.to_json(),
            "parts": [part.file for part in self.parts],
        }
        write_json(self.root / UNFINISHED_NAME, journal)
        self._learn(file)

    def commit(self) -> int:
        """Put the new table in force, remove what it no longer names, and return how many old images are gone."""
        gone = self._old_places.keys() - self._new_ids()
        sources = {place[0] for place in self.kept_places()} | {str(self.source)}
        clip = self.clip
        manifest = Manifest(clip.fingerprint, clip.spec, clip.architecture, tuple(sorted(sources)), tuple(self.parts))
        write_json(self.root / MANIFEST_NAME, manifest.to_json())
        self._clean(manifest)
        return len(gone)

    def discard(self) -> None:
        """Remove what this run wrote; the old table stays."""
        path = self.root / MANIFEST_NAME
        self._clean(Manifest.from_json(read_json(path), str(path)) if path.exists() else None)

    def _new_ids(self) -> set[str]:
        ids: set[str] = set()
        for part in self.parts:
            ids.update(
                pq.read_table(self.root / part.file, columns=["image_id"], partitioning=None)["image_id"].to_pylist()
            )
        return ids

    def _clean(self, manifest: Manifest | None) -> None:
        (self.root / UNFINISHED_NAME).unlink(missing_ok=True)
        named = {part.file for part in manifest.parts} if manifest else set()
        folder = self.root / IMAGES_FOLDER
        for path in [*folder.glob("part-*.parquet"), *folder.glob(".*.tmp")]:
            if f"{IMAGES_FOLDER}/{path.name}" not in named:
                path.unlink(missing_ok=True)
        if manifest is None:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _unfinished(self) -> list[str]:
        """Parts of an interrupted run that this one may go on from: same model, same intent."""
        path = self.root / UNFINISHED_NAME
        if not path.exists():
            return []
        try:
            journal = read_json(path)
            usable = (
                journal["fingerprint"] == self.clip.fingerprint.to_json() and journal["overwrite"] >= self.overwrite
            )
            files = [str(file) for file in journal["parts"]] if usable else []
            for file in files:
                check_part(self.root / file, None, self.clip.fingerprint, "")
        except (LanitError, KeyError, TypeError):
            return []
        return files

    def _learn(self, file: str, old: bool = False) -> None:
        """Make the rows of a part known: the latest of an image, the first of a content (so that resuming changes
        nothing where images are repeated)."""
        columns = [name for name in images_schema(1).names if name != "embedding"]
        table = pq.read_table(self.root / file, columns=columns, partitioning=None)
        for number, values in enumerate(table.to_pylist()):
            name, path, source = values.pop("image_id"), values.pop("path"), values.pop("source")
            row = KnownRow(file=file, row=number, **values)
            self._by_id[name] = row
            if row.status == "ok" and row.sha256 is not None:
                self._by_content.setdefault(row.sha256, row)
            if old:
                self._old_places[name] = (source, path)

    def _embedding(self, known: KnownRow) -> np.ndarray:
        """float32 (k) of an earlier row; a few parts are kept in memory, since rows are asked for in order."""
        if known.file not in self._cache:
            table = pq.read_table(self.root / known.file, columns=["embedding"], partitioning=None)
            column = table["embedding"].combine_chunks()
            values = np.zeros((len(column), self.clip.embedding_dim), np.float32)
            values[column.is_valid().to_numpy(zero_copy_only=False)] = (
                column.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.clip.embedding_dim)
            )
            self._cache[known.file] = values
            while len(self._cache) > _CACHED_PARTS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(known.file)
        embedding: np.ndarray = self._cache[known.file][known.row]
        return embedding

    def _take_over(self, row: Row, known: KnownRow) -> None:
        """Fill ``row`` from an earlier one."""
        row.width, row.height, row.bytes, row.sha256 = known.width, known.height, known.bytes, known.sha256
        row.status, row.error_message = known.status, known.error_message
        row.embedding = self._embedding(known) if known.status == "ok" else None

    def _to_parquet(self, rows: list[Row]) -> bytes:
        """A part as bytes; equal rows give equal bytes."""
        dim = self.clip.embedding_dim
        embeddings = np.zeros((len(rows), dim), np.float32)
        for number, row in enumerate(rows):
            if row.known is not None:
                self._take_over(row, row.known)
            if row.embedding is not None:
                embeddings[number] = row.embedding
        failed = pa.array([row.status != "ok" for row in rows])
        schema = images_schema(dim)
        plain = [field for field in schema if field.name != "embedding"]
        columns: list[Any] = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in plain]
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), dim, mask=failed))
        metadata = {"schema_version": SCHEMA_VERSION, "kind": "images", "fingerprint": self.clip.fingerprint.to_json()}
        sink = pa.BufferOutputStream()
        repeated = ["source", "width", "height", "status", "error_message"]
        table = pa.table(columns, schema=with_metadata(schema, metadata))
        pq.write_table(table, sink, compression="zstd", use_dictionary=repeated)
        data: bytes = sink.getvalue().to_pybytes()
        return data


def _check_model(root: Path, stored: Fingerprint, given: Fingerprint) -> None:
    if stored != given:
        raise LanitError(
            f"the store {root} holds embeddings of {stored.describe()}, not of {given.describe()}: "
            f"{', '.join(stored.differences(given))} differ",
            "Name another --store, or add --mode overwrite to replace them.",
        )
