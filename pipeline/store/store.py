"""The store: images with their embeddings, and label revisions side by side. Described in manifests/README.md."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lanit.errors import LanitError
from pipeline.clip.fingerprint import Fingerprint
from pipeline.files import temporary_beside
from pipeline.showing.volume import LOGGER
from pipeline.store.label_ledger import enter_all, is_complete, publish_entered
from pipeline.store.label_revisions import (
    LabelBlock,
    LabelRevision,
    Labels,
    RevisionFile,
    RevisionHeader,
    of_training,
    write_revision,
)
from pipeline.store.part_files import check_part, read_part
from pipeline.store.schemas import Manifest, Part, images_schema
from pipeline.store.store_folder import LABELS_FOLDER, UNFINISHED_NAME, lock_store, mending_hint, read_manifest

__all__ = ["LabelRevision", "Store"]

_LABEL_WAIT_SECONDS = 30.0


class Store:
    """A complete store on disk. Reading takes no lock: every file is written once and never edited."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest

    @classmethod
    def open(cls, root: Path) -> Store:
        """Read ``store.json`` and check every part it names (presence, rows, schema, fingerprint), reading no rows.

        Raises LanitError where the store is missing, unfinished, damaged or of another schema version.
        """
        manifest = read_manifest(root)
        if manifest is None:
            hint = f"Run: lanit embed DIR --store {shlex.quote(str(root))}"
            if (root / UNFINISHED_NAME).exists():
                message = f"the store {root} is unfinished: its embedding was interrupted"
                raise LanitError(message, f"{hint} again to continue.")
            raise LanitError(f"there is no store at {root}", hint)
        for part in manifest.parts:
            try:
                check_part(root / part.file, part, manifest.fingerprint, manifest.storage)
            except LanitError as error:
                raise LanitError(error.message, mending_hint(root, manifest)) from error
        opened = cls(root, manifest)
        told = (root, opened.rows, opened.ok, len(manifest.parts), manifest.clip_spec)
        LOGGER.info("store %s: %d images, %d with an embedding, in %d parts, of CLIP %s", *told)
        return opened

    @property
    def fingerprint(self) -> Fingerprint:
        return self.manifest.fingerprint

    @property
    def embedding_dim(self) -> int:
        return self.manifest.fingerprint.embedding_dim

    @property
    def clip_spec(self) -> str:
        """What ``load_clip`` was given when the store was filled."""
        return self.manifest.clip_spec

    @property
    def clip_architecture(self) -> str | None:
        return self.manifest.clip_architecture

    @property
    def rows(self) -> int:
        """Images found, whatever their status."""
        return sum(part.rows for part in self.manifest.parts)

    @property
    def ok(self) -> int:
        """Images with an embedding."""
        return sum(part.ok for part in self.manifest.parts)

    def images(self, columns: list[str] | None = None) -> pa.Table:
        """All rows of the images table, in store order; all columns unless some are named."""
        schema = images_schema(self.embedding_dim, self.manifest.storage)
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        tables = [self.read_part(part, schema.names).cast(schema) for part in self.manifest.parts]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def ok_images(self) -> pa.Table:
        """image_id, path, source, offset, bytes, width, height of the rows with status ok, in the order of
        :meth:`embeddings`."""
        return self.ok_table(["image_id", "path", "source", "offset", "bytes", "width", "height"])

    def ok_table(self, columns: list[str]) -> pa.Table:
        """Columns of the rows with status ok, in the order of :meth:`embeddings`."""
        schema = images_schema(self.embedding_dim, self.manifest.storage)
        empty = pa.schema([schema.field(name) for name in columns]).empty_table()
        return pa.concat_tables([empty, *(table.cast(empty.schema) for table in self.ok_parts(columns))])

    def ok_parts(self, columns: list[str]) -> Iterator[pa.Table]:
        """Columns of the rows with status ok, part by part, in the order of :meth:`embeddings`."""
        for part in self.manifest.parts:
            yield self.ok_rows(part, columns)

    def images_of(self, rows: np.ndarray, columns: list[str]) -> pa.Table:
        """Columns of some of the rows with status ok, numbered as :meth:`embeddings` does, in the order asked for.

        Only the parts that hold them are read.
        """
        schema = images_schema(self.embedding_dim, self.manifest.storage)
        found = [pa.schema([schema.field(name) for name in columns]).empty_table()]
        places = [np.empty(0, np.int64)]
        for part, wanted, inside in self._parts_of(rows):
            found.append(self.ok_rows(part, columns).take(inside).cast(found[0].schema))
            places.append(wanted)
        return pa.concat_tables(found).take(np.argsort(np.concatenate(places)))

    def embedding_parts(self) -> Iterator[np.ndarray]:
        """The embeddings part by part, float32 (n_part×k), so that no more than one part need be in memory."""
        for part in self.manifest.parts:
            yield self.embeddings_in(part)

    def labelled_part(self, part: Part) -> tuple[pa.Table, np.ndarray]:
        """image_id and path of the rows of a part with status ok, and their embeddings, float32 (n×k). For threads."""
        table = self.read_part(part, ["image_id", "path", "status", "embedding"])
        keys = table.select(["image_id", "path"])
        if part.ok < part.rows:
            keys = keys.filter(pc.equal(table["status"], "ok"))
        return keys, self._values(table["embedding"])

    def embeddings(self) -> np.ndarray:
        """Unit-norm embeddings of the rows with status ok: float32 (n×k), C-contiguous, in store order."""
        out = np.empty((self.ok, self.embedding_dim), np.float32)
        start = 0
        for block in self.embedding_parts():
            out[start : start + len(block)] = block
            start += len(block)
        return out

    def embeddings_of(self, rows: np.ndarray) -> np.ndarray:
        """Embeddings of some of the rows of :meth:`embeddings`, in the order asked for: float32 (len(rows)×k).

        Only the parts that hold them are read.
        """
        out = np.empty((len(rows), self.embedding_dim), np.float32)
        for part, wanted, inside in self._parts_of(rows):
            out[wanted] = self.embeddings_in(part)[inside]
        return out

    def check_fingerprint(self, fingerprint: Fingerprint, hint: str = "") -> None:
        """Raise LanitError, naming both models, unless the store was filled by the model of ``fingerprint``.

        In which precision its image tower worked does not matter here: see :meth:`Fingerprint.same_model`.
        """
        if not self.fingerprint.same_model(fingerprint):
            differences = ", ".join(self.fingerprint.differences(fingerprint))
            raise LanitError(
                f"the store {self.root} holds embeddings of {self.fingerprint.describe()}, "
                f"not of {fingerprint.describe()}: {differences} differ",
                hint
                or "Leave out --clip to use the store's own model, or run: "
                f"lanit embed DIR --store {shlex.quote(str(self.root))} --overwrite",
            )

    def revisions(self) -> list[int]:
        """Numbers of the label revisions, oldest first."""
        files = (self.root / LABELS_FOLDER).glob("r*.parquet")
        names = (re.fullmatch(r"r(\d{4,})\.parquet", file.name) for file in files)
        return sorted(int(name[1]) for name in names if name)

    def revision_file(self, revision: int | None = None) -> RevisionFile:
        """A label revision, the newest unless one is named, of which no row has been read yet.

        It may predate the last ``lanit embed``: see :meth:`check_current`.
        Raises LanitError where there is none, or where it was made from another model's embeddings.
        """
        known = self.revisions()
        if not known:
            raise LanitError(f"the store {self.root} has no labels", "Run: lanit label --prompts FILE")
        number = known[-1] if revision is None else revision
        if number not in known:
            raise LanitError(
                f"the store {self.root} has no label revision {number}", f"It has {', '.join(map(str, known))}."
            )
        return RevisionFile.open(self._revision_path(number), number, self.fingerprint)

    def newest_labels(self, domains: tuple[str, ...] | None = None) -> RevisionFile | None:
        """The newest revision that ``lanit label`` wrote, of just these domains where some are named; none where there
        is none. What a run relabelled as it learned is its own."""
        for number in reversed(self.revisions()):
            found = self.revision_file(number)
            if not found.of_training and domains in (None, found.domains):
                return found
        return None

    def labels_to_train(self, revision: int | None = None) -> RevisionFile:
        """The named revision, or the newest that ``lanit label`` wrote, or that there is. Raises LanitError where there
        is none, or no such."""
        if not self.revisions():
            raise LanitError(
                f"the store {self.root} has no labels to train on",
                "Run: lanit label --prompts FILE, or train without any: --method tunit --clusters 10",
            )
        chosen = self.newest_labels() if revision is None else None
        return chosen or self.revision_file(revision)

    def labels(self, revision: int | None = None) -> LabelRevision:
        """The same as :meth:`revision_file`, whole in memory."""
        return self.revision_file(revision).read()

    def is_current(self, revision: Labels, ids: pa.ChunkedArray | None = None) -> bool:
        """Whether ``revision`` labels exactly the images that the store holds now, in the same order.

        ids: the column image_id of :meth:`ok_table`, from who has it at hand."""
        if revision.rows != self.ok:
            return False
        if ids is None:
            ids = self.ok_table(["image_id"])["image_id"]
        blocks = revision.blocks(keys=True)
        return all(ids.slice(each.start, each.rows).equals(pa.chunked_array([each.image_ids])) for each in blocks)

    def check_current(self, revision: Labels, ids: pa.ChunkedArray | None = None) -> None:
        """Raise LanitError unless row i of ``revision`` is row i of :meth:`embeddings`. ids: as in
        :meth:`is_current`."""
        if not self.is_current(revision, ids):
            raise LanitError(
                f"label revision {revision.number} has {revision.rows} images; "
                f"the store {self.root} now holds {self.ok}, or others",
                "Run: lanit label --prompts FILE",
            )

    def write_labels(self, header: RevisionHeader, blocks: Iterable[LabelBlock]) -> int:
        """Write a label revision and return its number; ``blocks`` are the rows with status ok, in store order.

        Atomic, safe among processes. Where the newest revision already has this header, its number is returned and
        ``blocks`` are left alone; for an origin in training, where any revision has, as after a resumed run.
        """
        earlier = self._revision_of(header)
        if earlier is not None:
            self._complete_ledger()
            return earlier
        with temporary_beside(self.root / LABELS_FOLDER / "r.parquet") as temporary:
            write_revision(temporary, header, blocks)
            with lock_store(self.root, _LABEL_WAIT_SECONDS):
                earlier = self._revision_of(header)
                if earlier is not None:
                    return earlier
                number = max(self.revisions(), default=0) + 1
                publish_entered(temporary, self._revision_path(number))
                LOGGER.info("labels written: %s", self._revision_path(number))
        return number

    def _complete_ledger(self) -> None:
        """Enter label files that the ledger lacks, where the store can be written now."""
        if not is_complete(self.root / LABELS_FOLDER):
            with contextlib.suppress(LanitError), lock_store(self.root):
                enter_all(self.root / LABELS_FOLDER)

    def check_labels_writable(self) -> None:
        """Raise LanitError where no label revision could be written."""
        with temporary_beside(self.root / LABELS_FOLDER / "r.parquet") as temporary:
            temporary.touch()

    def read_part(self, part: Part, columns: list[str]) -> pa.Table:
        """Columns of a part. Raises LanitError, with the command that mends it, where it is damaged."""
        return read_part(self.root / part.file, columns, part, lambda: mending_hint(self.root, self.manifest))

    def parts_array(self) -> np.ndarray:
        """The names of the parts, which are named by their content, as bytes: what embeddings are made of."""
        return np.frombuffer("\n".join(part.file for part in self.manifest.parts).encode(), np.uint8)

    def _revision_of(self, header: RevisionHeader) -> int | None:
        known = self.revisions()
        candidates = known if of_training(header.origin) else known[-1:]
        return next((number for number in reversed(candidates) if header.is_of(self._revision_path(number))), None)

    def _parts_of(self, rows: np.ndarray) -> Iterator[tuple[Part, np.ndarray, np.ndarray]]:
        """Parts that hold any of ``rows``; which of ``rows`` they hold, and as which of their rows with status ok."""
        start = 0
        for part in self.manifest.parts:
            wanted = np.flatnonzero((rows >= start) & (rows < start + part.ok))
            if len(wanted):
                yield part, wanted, rows[wanted] - start
            start += part.ok

    def ok_rows(self, part: Part, columns: list[str]) -> pa.Table:
        """Columns of the rows of a part with status ok."""
        if part.ok == part.rows:
            return self.read_part(part, columns)
        table = self.read_part(part, [*columns, "status"])
        return table.filter(pc.equal(table["status"], "ok")).select(columns)

    def embeddings_in(self, part: Part) -> np.ndarray:
        """The embeddings of a part, float32 (n_part×k). For threads."""
        return self._values(self.read_part(part, ["embedding"])["embedding"])

    def _values(self, column: pa.ChunkedArray) -> np.ndarray:
        """The embeddings of a column that has some, float32 (n×k)."""
        values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, self.embedding_dim)
        return values.astype(np.float32, copy=False)

    def _revision_path(self, number: int) -> Path:
        return self.root / LABELS_FOLDER / f"r{number:04d}.parquet"
