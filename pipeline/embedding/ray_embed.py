"""Embedding on a Ray cluster: what a process is told, does and sends back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lanit.errors import LanitError
from pipeline.clip.models import load_clip
from pipeline.computing.ray_cluster import Workforce, import_ray
from pipeline.computing.ray_engine import EngineWorker, RayEngine
from pipeline.embedding.embedding_steps import RowReader, local_engine
from pipeline.embedding.image_rows import KnownRow
from pipeline.embedding.parts import WrittenRows, part_bytes
from pipeline.inputs.opening import open_source

if TYPE_CHECKING:
    from pipeline.clip.fingerprint import Fingerprint
    from pipeline.clip.models import ClipModel, Precision
    from pipeline.decoding.frames import Frame
    from pipeline.embedding.embed import EmbedOptions, EngineMaker
    from pipeline.embedding.image_rows import ImageRow, RowCatalogue
    from pipeline.store.schemas import StoredType

TASK_ROWS = 1024
"""At least, so that handing a task over costs little of it."""
_TASKS_PER_PART = 4
_WHOLE_PARTS = 64  # of a table, from which on a task is a whole part: there are enough of them for many processes
_STORED = -1  # a file number that says: in the store, the planning process knows where


@dataclass(frozen=True)
class EmbedJob:
    """What a process needs to know before its first task.

    sources: with their image columns. threads: that decode; processors: for the model, and for them.
    """

    clip: str
    architecture: str | None
    precision: Precision
    storage: StoredType
    fingerprint: Fingerprint
    sources: tuple[tuple[str, str | None], ...]
    max_pixels: int
    decode: bool
    frame: Frame | None
    batch_size: int
    threads: int
    processors: int
    device: str


@dataclass(frozen=True)
class PackedRows:
    """Rows without their embeddings, which travel as one: float32 (m×k), of the m rows that have one."""

    rows: list[ImageRow]
    embeddings: np.ndarray

    @classmethod
    def of(cls, rows: list[ImageRow]) -> PackedRows:
        embeddings = [row.embedding for row in rows if row.embedding is not None]
        for row in rows:
            row.embedding = None
        return cls(rows, np.stack(embeddings) if embeddings else np.empty((0, 0), np.float32))

    def unpacked(self, by_content: Callable[[str], KnownRow | None]) -> list[ImageRow]:
        """The rows, with what only the planning process knows."""
        new = [row for row in self.rows if row.status == "ok"]
        for row, embedding in zip(new, self.embeddings, strict=True):
            row.embedding = embedding
        for row in self.rows:
            if row.known is not None and row.known.file == _STORED and row.sha256 is not None:
                row.known = by_content(row.sha256)
        return self.rows


@dataclass(frozen=True)
class PackedPart:
    """A whole part, as it is to lie in the store, and the messages of the rows that failed, by their numbers: then the
    planning process, of which there is one, has next to nothing to do."""

    data: bytes
    failed: dict[int, str | None]

    def unpacked(self, rows: list[ImageRow]) -> WrittenRows:
        """rows: of the part, as they were planned."""
        for number, row in enumerate(rows):
            row.known = None
            if number in self.failed:
                row.fail(self.failed[number] or "")
            else:
                row.status = "ok"
        return WrittenRows(rows, self.data)


def packed(rows: list[ImageRow], job: EmbedJob, part_rows: int) -> PackedRows | PackedPart:
    """What is sent back of a task: a part where it is a whole one, and new throughout."""
    if len(rows) < part_rows or any(row.known is not None for row in rows):
        return PackedRows.of(rows)
    data = part_bytes(rows, job.fingerprint, job.storage)
    return PackedPart(data, {number: row.error_message for number, row in enumerate(rows) if row.status != "ok"})


def embed_worker(job: EmbedJob, part_rows: int, contents: Any) -> EngineWorker[ImageRow]:
    """What embeds in a process. part_rows: of the table. contents: Ray's reference to their digests, of which a node
    has one copy.

    Raises LanitError where the CLIP found here is another.
    """
    by_content = functools.partial(held, import_ray().get(contents))
    torch.set_num_threads(job.processors)
    clip = load_clip(job.clip, job.device, job.architecture, job.precision)
    if clip.fingerprint != job.fingerprint:
        differences = ", ".join(clip.fingerprint.differences(job.fingerprint))
        message = f"the CLIP {job.clip} is not the same on every node of the cluster ({differences} differ)"
        raise LanitError(message, "Install the same lanit and the same weights on all.")
    inputs = {source: open_source(source, column) for source, column in job.sources}
    reader = RowReader(inputs, clip.preprocessing, by_content, job.max_pixels, job.decode, job.frame)
    return EngineWorker(
        local_engine(clip, reader, job.batch_size, job.threads),
        "embedded",
        functools.partial(packed, job=job, part_rows=part_rows),
    )


def held(contents: np.ndarray, sha256: str) -> KnownRow | None:
    """An embedding of the same content that the store holds. contents: :meth:`RowCatalogue.digests`."""
    digest = np.array(bytes.fromhex(sha256[:32]), contents.dtype)
    at = np.searchsorted(contents, digest)
    return KnownRow(_STORED, 0, True, sha256) if at < len(contents) and contents[at] == digest else None


def task_rows(part_rows: int, batch_size: int, least: int = TASK_ROWS) -> int:
    """Rows of a task: whole batches, several tasks to a large part, so that few images are enough for many processes.

    It does not depend on the cluster, so that an interrupted run goes on with the same batches on any other.
    """
    return -(-max(least, part_rows // _TASKS_PER_PART) // batch_size) * batch_size


def embed_job(
    clip: ClipModel, options: EmbedOptions, workforce: Workforce, reader: RowReader, storage: StoredType
) -> EmbedJob:
    """clip: only its name and fingerprint matter here; every process loads its own. storage: of the table."""
    return EmbedJob(
        clip=clip.spec,
        architecture=clip.architecture,
        precision="bf16" if clip.fingerprint.precision == "bf16" else "fp32",
        storage=storage,
        fingerprint=clip.fingerprint,
        sources=tuple((origin.source, origin.image_column) for origin in reader.inputs.values()),
        max_pixels=reader.max_pixels,
        decode=reader.decode,
        frame=reader.frame,
        batch_size=options.batch_size,
        threads=options.workers or workforce.processors,
        processors=workforce.processors,
        device="cuda" if workforce.gpu else "cpu",
    )


def ray_engine(
    clip: ClipModel, options: EmbedOptions, workforce: Workforce, least_rows: int = TASK_ROWS
) -> EngineMaker:
    """What :func:`pipeline.embedding.embed.embed` computes with where a cluster is to do the work.

    The store need not be reachable from its nodes. least_rows: of a task.
    """

    def make(reader: RowReader, catalogue: RowCatalogue, storage: StoredType) -> RayEngine[ImageRow]:
        job = embed_job(clip, options, workforce, reader, storage)

        def maker(part_rows: int) -> Callable[[], EngineWorker[ImageRow]]:
            return functools.partial(embed_worker, job, part_rows, import_ray().put(catalogue.digests()))

        def size(part_rows: int) -> int:
            if catalogue.count([]) >= _WHOLE_PARTS * part_rows:
                return part_rows
            return task_rows(part_rows, options.batch_size, least_rows)

        def unpack(found: PackedRows | PackedPart, rows: list[ImageRow]) -> list[ImageRow]:
            return found.unpacked(rows) if isinstance(found, PackedPart) else found.unpacked(catalogue.by_content)

        return RayEngine(workforce, job.threads, maker, unpack, size)

    return make
