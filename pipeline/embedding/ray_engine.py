"""Rows to embeddings on a Ray cluster: this process plans and writes, others read, decode and encode."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lanit.errors import LanitError
from pipeline.clip.models import load_clip
from pipeline.computing.ray_cluster import Workforce, import_ray
from pipeline.computing.ray_tasks import run_tasks
from pipeline.computing.timing import Timing
from pipeline.embedding.engine import LocalEngine, RowReader
from pipeline.embedding.known_rows import KnownRow
from pipeline.embedding.parts import tasks_of
from pipeline.inputs.opening import open_source

if TYPE_CHECKING:
    from pipeline.clip.fingerprint import Fingerprint
    from pipeline.clip.models import ClipModel, Precision
    from pipeline.computing.timing import Tick
    from pipeline.embedding.embed import EmbedOptions, EngineMaker
    from pipeline.embedding.parts import PartPlan, Row

_TASK_ROWS = 1024  # at least, so that handing a task over costs little of it
_TASKS_PER_PART = 4
_STORED = -1  # a file number that says: in the store, the planning process knows where


@dataclass(frozen=True)
class EmbedJob:
    """What a process needs to know before its first task.

    sources: with their image columns. threads: that decode; processors: for the model, and for them.
    """

    clip: str
    architecture: str | None
    precision: Precision
    fingerprint: Fingerprint
    sources: tuple[tuple[str, str | None], ...]
    max_pixels: int
    decode: bool
    batch_size: int
    threads: int
    processors: int
    device: str


@dataclass(frozen=True)
class SentContents:
    """See :class:`pipeline.embedding.known_rows.Contents`, in another process. sent: the digests."""

    sent: np.ndarray

    def by_content(self, sha256: str) -> KnownRow | None:
        digest = np.array(bytes.fromhex(sha256[:32]), self.sent.dtype)
        at = np.searchsorted(self.sent, digest)
        held = at < len(self.sent) and self.sent[at] == digest
        return KnownRow(_STORED, 0, True, sha256) if held else None

    def digests(self) -> np.ndarray:
        return self.sent


@dataclass(frozen=True)
class Settled:
    """The rows of a task without their embeddings: float32 (m×k), of the m rows with status ok that are new."""

    rows: list[Row]
    embeddings: np.ndarray
    timing: Timing
    notes: list[str]

    def whole(self) -> list[Row]:
        new = [row for row in self.rows if row.status == "ok"]
        for row, embedding in zip(new, self.embeddings, strict=True):
            row.embedding = embedding
        return self.rows


class EmbedWorker:
    """Embeds the rows of one task after another: :class:`pipeline.computing.ray_tasks.Worker`."""

    def __init__(self, job: EmbedJob, contents: Any) -> None:
        """contents: Ray's reference to digests of contents, of which a node has one copy.

        Raises LanitError where the CLIP found here is another.
        """
        torch.set_num_threads(job.processors)
        clip = load_clip(job.clip, job.device, job.architecture, job.precision)
        if clip.fingerprint != job.fingerprint:
            differences = ", ".join(clip.fingerprint.differences(job.fingerprint))
            message = f"the CLIP {job.clip} is not the same on every node of the cluster ({differences} differ)"
            raise LanitError(message, "Install the same lanit and the same weights on all.")
        inputs = {source: open_source(source, column) for source, column in job.sources}
        reader = RowReader(
            inputs, clip.preprocessing, SentContents(import_ray().get(contents)), job.max_pixels, job.decode
        )
        self._engine = LocalEngine(clip, reader, job.batch_size, job.threads, lambda rows: None)

    def __call__(self, task: list[Row]) -> Settled:
        engine = self._engine
        engine.timing, noted = Timing(), len(engine.notes)
        (rows,) = engine.rows([task])
        embeddings = [row.embedding for row in rows if row.embedding is not None]
        for row in rows:
            row.embedding = None
        matrix = np.stack(embeddings) if embeddings else np.empty((0, engine.clip.embedding_dim), np.float32)
        return Settled(rows, matrix, engine.timing, engine.notes[noted:])

    def describe(self, task: list[Row]) -> str:
        return f"embedded {task[0].path} to {task[-1].path} of {task[0].source}"


@dataclass
class RayEngine:
    """See :class:`pipeline.embedding.engine.Engine`. The images must be reachable from every node under the same names,
    a CLIP given as a file too; the store need not be."""

    job: EmbedJob
    force: Workforce
    reader: RowReader
    tick: Tick
    timing: Timing = field(default_factory=Timing)
    notes: list[str] = field(default_factory=list)

    @property
    def workers(self) -> int:
        return self.job.threads

    @property
    def processors(self) -> int:
        return self.force.processors

    @property
    def device(self) -> str:
        return str(self.force)

    def rows(self, parts: PartPlan) -> Iterator[list[Row]]:
        """See :class:`pipeline.embedding.engine.Engine`. No process is started before there is an image to read."""
        size = task_rows(parts.part_rows, self.job.batch_size)
        with contextlib.closing(self._settled(parts, size)) as tasks:
            for part in parts:
                self.tick(sum(not row.to_read for row in part))
                settled = [row for _ in tasks_of(part, size) for row in self._take(next(tasks))]
                rest = iter(settled)
                yield [next(rest) if row.to_read else row for row in part]

    def _settled(self, parts: PartPlan, size: int) -> Generator[Settled]:
        """The tasks of :meth:`PartPlan.tasks`, done."""
        make = functools.partial(EmbedWorker, self.job, import_ray().put(self.reader.contents.digests()))
        yield from run_tasks(functools.partial(parts.tasks, size), make, self.force, self.notes.append)

    def _take(self, settled: Settled) -> list[Row]:
        """The rows of a task, with what only this process knows."""
        rows = settled.whole()
        for row in rows:
            if row.known is not None and row.known.file == _STORED and row.sha256 is not None:
                row.known = self.reader.contents.by_content(row.sha256)
        self.timing.waiting += settled.timing.waiting / self.force.actors
        self.timing.model += settled.timing.model / self.force.actors
        self.notes += [note for note in settled.notes if note not in self.notes]
        self.tick(len(rows))
        return rows


def task_rows(part_rows: int, batch_size: int) -> int:
    """Rows of a task: whole batches, several tasks to a large part, so that few images are enough for many processes.

    It does not depend on the cluster, so that an interrupted run goes on with the same batches on any other.
    """
    return -(-max(_TASK_ROWS, part_rows // _TASKS_PER_PART) // batch_size) * batch_size


def ray_engine(clip: ClipModel, options: EmbedOptions, force: Workforce) -> EngineMaker:
    """What :func:`pipeline.embedding.embed.embed` computes with where a cluster is to do the work.

    clip: only its name and fingerprint matter here; every process loads its own.
    """

    def make(reader: RowReader, tick: Tick) -> RayEngine:
        job = EmbedJob(
            clip=clip.spec,
            architecture=clip.architecture,
            precision="bf16" if clip.fingerprint.precision == "bf16" else "fp32",
            fingerprint=clip.fingerprint,
            sources=tuple((origin.source, origin.image_column) for origin in reader.inputs.values()),
            max_pixels=reader.max_pixels,
            decode=reader.decode,
            batch_size=options.batch_size,
            threads=options.workers or force.processors,
            processors=force.processors,
            device="cuda" if force.gpu else "cpu",
        )
        return RayEngine(job, force, reader, tick)

    return make
