"""The store: images with their embeddings, and label revisions side by side. Described in manifests/README.md."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.files import atomic_path, exclusive_lock, read_json
from pipeline.schemas import (
    ACTIVE_PREFIX,
    MARGIN_PREFIX,
    SCHEMA_VERSION,
    Fingerprint,
    Manifest,
    images_schema,
    labels_schema,
    metadata_of,
    with_metadata,
)

if TYPE_CHECKING:
    from pipeline.prompt_sets import PromptSet

MANIFEST_NAME = "store.json"
IMAGES_FOLDER = "images"
LABELS_FOLDER = "labels"
UNFINISHED_NAME = f"{IMAGES_FOLDER}/unfinished.json"
_LABEL_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class LabelRevision:
    """The labels of n images in N domains, as one file of the store holds them.

    number: of the revision; parent: the revision it was made from, or none.
    origin: ``label``, or ``train:<run> step <k>``. rule: ``{"kind": …, "value": …}``.
    active: bool (n×N). margin: float32 (n×N), f_n − f_base. similarity_base: float32 (n), f_base.
    image_ids, paths: arrays of n strings, in store order.
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

    @property
    def domains(self) -> tuple[str, ...]:
        return self.prompt_set.domains


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
        hint = f"Run: lanit embed DIR --store {root}"
        path = root / MANIFEST_NAME
        if (root / UNFINISHED_NAME).exists() and not path.exists():
            message = f"the store {root} is unfinished: its embedding was interrupted"
            raise LanitError(message, f"{hint} again to continue.")
        if not path.exists():
            raise LanitError(f"there is no store at {root}", hint)
        manifest = Manifest.from_json(read_json(path, f"{hint} --mode overwrite"), str(path))
        for part in manifest.parts:
            check_part(root / part.file, part.rows, manifest.fingerprint, hint)
        return cls(root, manifest)

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
        schema = images_schema(self.embedding_dim)
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        tables = [_read(self.root / part.file, schema.names).cast(schema) for part in self.manifest.parts]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def ok_images(self) -> pa.Table:
        """image_id, path, source, width, height of the rows with status ok, in the order of :meth:`embeddings`."""
        table = self.images(["image_id", "path", "source", "width", "height", "status"])
        return table.filter(pc.equal(table["status"], "ok")).drop_columns(["status"])

    def embedding_parts(self) -> Iterator[np.ndarray]:
        """The embeddings part by part, float32 (n_part×k), so that no more than one part need be in memory."""
        for part in self.manifest.parts:
            column = _read(self.root / part.file, ["embedding"])["embedding"].combine_chunks()
            yield column.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.embedding_dim)

    def embeddings(self) -> np.ndarray:
        """Unit-norm embeddings of the rows with status ok: float32 (n×k), C-contiguous, in store order."""
        out = np.empty((self.ok, self.embedding_dim), np.float32)
        start = 0
        for block in self.embedding_parts():
            out[start : start + len(block)] = block
            start += len(block)
        return out

    def check_fingerprint(self, fingerprint: Fingerprint, hint: str = "") -> None:
        """Raise LanitError, naming both models, unless the store was filled by the model of ``fingerprint``."""
        if fingerprint != self.fingerprint:
            differences = ", ".join(self.fingerprint.differences(fingerprint))
            raise LanitError(
                f"the store {self.root} holds embeddings of {self.fingerprint.describe()}, "
                f"not of {fingerprint.describe()}: {differences} differ",
                hint or "Leave out --clip to use the store's own model, or run: lanit embed DIR --mode overwrite",
            )

    def revisions(self) -> list[int]:
        """Numbers of the label revisions, oldest first."""
        files = (self.root / LABELS_FOLDER).glob("r*.parquet")
        names = (re.fullmatch(r"r(\d{4,})\.parquet", file.name) for file in files)
        return sorted(int(name[1]) for name in names if name)

    def labels(self, revision: int | None = None) -> LabelRevision:
        """A label revision, the newest unless one is named.

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
        path = self._revision_path(number)
        return _read_revision(path, number, self.fingerprint)

    def is_current(self, revision: LabelRevision) -> bool:
        """Whether ``revision`` labels exactly the images that the store holds now, in the same order."""
        ids = self.ok_images()["image_id"].to_numpy()
        return len(ids) == len(revision.image_ids) and bool(np.array_equal(ids, revision.image_ids))

    def check_current(self, revision: LabelRevision) -> None:
        """Raise LanitError unless row i of ``revision`` is row i of :meth:`embeddings`."""
        if not self.is_current(revision):
            raise LanitError(
                f"label revision {revision.number} has {len(revision.image_ids)} images; "
                f"the store {self.root} now holds {self.ok}, or others",
                "Run: lanit label --prompts FILE",
            )

    def add_labels(
        self,
        active: np.ndarray,
        margin: np.ndarray,
        similarity_base: np.ndarray,
        prompt_set: PromptSet,
        rule: dict[str, Any],
        origin: str,
        parent: int | None,
    ) -> int:
        """Write a label revision for the images of :meth:`ok_images` and return its number.

        active: bool (n×N); margin: float32 (n×N); similarity_base: float32 (n). Atomic, safe among processes.
        Where the newest revision already says exactly this (same arrays, prompts, rule, origin and parent), its number
        is returned and nothing is written; for an origin in training, where any revision does, as after a resumed run.
        """
        images = self.ok_images()
        shape = (images.num_rows, len(prompt_set.domains))
        if active.shape != shape or margin.shape != shape or similarity_base.shape != shape[:1]:
            raise LanitError(f"labels of shape {active.shape} do not fit {shape[0]} images and {shape[1]} domains")
        table = _revision_table(images, active, margin, similarity_base, prompt_set)
        metadata = {
            "schema_version": SCHEMA_VERSION,
            "kind": "labels",
            "fingerprint": self.fingerprint.to_json(),
            "parent": parent,
            "origin": origin,
            "rule": rule,
            "prompt_set": prompt_set.to_json(),
        }
        with lock_store(self.root, _LABEL_WAIT_SECONDS):
            known = self.revisions()
            for earlier in reversed(known if origin.startswith("train:") else known[-1:]):
                if _same_revision(self._revision_path(earlier), table, metadata):
                    return earlier
            number = known[-1] + 1 if known else 1
            with atomic_path(self._revision_path(number)) as temporary:
                final = table.cast(with_metadata(table.schema, metadata | {"revision": number}))
                pq.write_table(final, temporary, compression="zstd")
        return number

    def _revision_path(self, number: int) -> Path:
        return self.root / LABELS_FOLDER / f"r{number:04d}.parquet"


def lock_store(root: Path, wait_seconds: float = 0.0) -> contextlib.AbstractContextManager[None]:
    """The lock that every writer of the store holds. Raises LanitError where another process keeps it."""
    message = f"another lanit command is writing to the store {root}"
    busy = LanitError(message, "Wait for it to end, or use another --store.")
    return exclusive_lock(root / ".lock", busy, wait_seconds)


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, memory_map=True, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        hint = "If another command changed the store, run this one again."
        raise LanitError(f"cannot read {path}: {error}", hint) from error


def check_part(path: Path, rows: int | None, fingerprint: Fingerprint, hint: str) -> None:
    try:
        footer = pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise LanitError(f"the store lacks its part {path}", f"{hint} to write it again.") from error
    except (OSError, pa.ArrowException) as error:
        raise LanitError(f"{path} is damaged ({error})", f"{hint} to write it again.") from error
    with footer:
        schema, found = footer.schema_arrow, footer.metadata.num_rows
    made_by = Fingerprint.from_json(metadata_of(schema).get("fingerprint", {}))
    if (
        rows not in (None, found)
        or not schema.equals(images_schema(fingerprint.embedding_dim))
        or made_by != fingerprint
    ):
        raise LanitError(f"{path} does not fit {MANIFEST_NAME} beside it", f"{hint} --mode overwrite")


def _read_revision(path: Path, number: int, fingerprint: Fingerprint) -> LabelRevision:
    from pipeline.prompt_sets import PromptSet

    anew = "Run: lanit label --prompts FILE"
    try:
        table = pq.read_table(path, partitioning=None)
        metadata = metadata_of(table.schema)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise LanitError(f"label revision {number} cannot be read ({error})", anew) from error
    if metadata.get("kind") != "labels" or metadata.get("schema_version") != SCHEMA_VERSION:
        raise LanitError(f"{path} is not a label revision of schema version {SCHEMA_VERSION}", anew)
    made_by = Fingerprint.from_json(metadata["fingerprint"])
    if made_by != fingerprint:
        raise LanitError(
            f"label revision {number} was made with {made_by.describe()}; the store now holds {fingerprint.describe()}",
            anew,
        )
    prompt_set = PromptSet.from_json(metadata["prompt_set"])
    return LabelRevision(
        number=number,
        parent=metadata["parent"],
        origin=metadata["origin"],
        rule=metadata["rule"],
        prompt_set=prompt_set,
        active=_matrix(table, ACTIVE_PREFIX, prompt_set.domains, np.dtype(bool)),
        margin=_matrix(table, MARGIN_PREFIX, prompt_set.domains, np.dtype(np.float32)),
        similarity_base=table["similarity_base"].to_numpy(),
        image_ids=table["image_id"].to_numpy(),
        paths=table["path"].to_numpy(),
    )


def _matrix(table: pa.Table, prefix: str, domains: tuple[str, ...], dtype: np.dtype[Any]) -> np.ndarray:
    out = np.empty((table.num_rows, len(domains)), dtype)
    for position, domain in enumerate(domains):
        out[:, position] = table[prefix + domain].to_numpy()
    return out


def _revision_table(
    images: pa.Table, active: np.ndarray, margin: np.ndarray, similarity_base: np.ndarray, prompt_set: PromptSet
) -> pa.Table:
    columns = [images["image_id"], images["path"], pa.array(similarity_base.astype(np.float32))]
    for position in range(len(prompt_set.domains)):
        columns.append(pa.array(active[:, position].astype(bool)))
        columns.append(pa.array(np.ascontiguousarray(margin[:, position], np.float32)))
    return pa.table(columns, schema=labels_schema(prompt_set.domains))


def _same_revision(path: Path, table: pa.Table, metadata: dict[str, Any]) -> bool:
    try:
        known = metadata_of(pq.read_schema(path))
        known.pop("revision", None)
        expected = metadata_of(with_metadata(table.schema, metadata))  # through JSON, as the stored one went
        return known == expected and bool(pq.read_table(path, partitioning=None).equals(table))
    except (OSError, ValueError, pa.ArrowException):
        return False
