"""Images to results on a Ray cluster: this process plans and keeps the tables, others read, translate and write."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lanit.errors import LanitError
from pipeline.clip.fingerprint import Fingerprint
from pipeline.computing.ray_cluster import Workforce
from pipeline.computing.ray_tasks import run_tasks
from pipeline.computing.timing import Tick, Timing
from pipeline.files import sha256_file
from pipeline.inputs.opening import open_source
from pipeline.models.bundle import find_bundle, load_bundle
from pipeline.models.translator import Translator, load_labeller
from pipeline.translating.engine import Reader, Workshop, local_engine
from pipeline.translating.pictures import PictureWriter
from pipeline.translating.recipe import Kitchen, Look, Recipe
from pipeline.translating.results import Row
from pipeline.translating.worklist import SCRATCH_NAME, Item, Plan

_AGAIN = "Install the same lanit and give the same files on all."


@dataclass(frozen=True)
class TranslateJob:
    """What a process needs to know before its first task.

    clip: spec and architecture, and fingerprint, of the CLIP that looks; none for none. look: at what. sources: inputs
    with their image columns. out: an absolute folder that every node sees. threads: that read and write.
    """

    model: str
    model_sha256: str
    recipe: Recipe
    clip: str | None
    look: Look
    fingerprint: Fingerprint | None
    sources: tuple[tuple[str, str | None], ...]
    out: str
    tags: tuple[str, ...]
    batch_size: int
    max_pixels: int
    threads: int
    processors: int
    device: str


@dataclass(frozen=True)
class Done:
    """A task's rows, whose results are written."""

    rows: list[Row]
    timing: Timing
    notes: list[str]


class TranslateWorker:
    """Translates the images of one task after another: :class:`pipeline.computing.ray_tasks.Worker`."""

    def __init__(self, job: TranslateJob) -> None:
        """Raises LanitError where the model or the CLIP found here is another, or the folder of results is not."""
        torch.set_num_threads(job.processors)
        if sha256_file(find_bundle(job.model) / "model.safetensors") != job.model_sha256:
            raise LanitError(f"the model {job.model} is not the same on every node of the cluster", _AGAIN)
        out = Path(job.out)
        if not (out / SCRATCH_NAME).is_dir():
            raise LanitError(f"a node of the cluster does not see {out}", "Give a folder of a shared file system.")
        translator = Translator(load_bundle(job.model), torch.device(job.device))
        clip = None
        if job.fingerprint is not None:
            clip = load_labeller(translator.bundle, job.clip, translator.device)
        size = translator.bundle.options.image_size
        reader = Reader({source: open_source(source, column) for source, column in job.sources}, size, job.max_pixels)
        kitchen, writer = Kitchen(translator, job.recipe, clip, job.look), PictureWriter(out, out / SCRATCH_NAME)
        workshop = Workshop(kitchen, reader, writer, job.tags)
        self._engine = local_engine(workshop, job.batch_size, job.threads, lambda images: None)

    def __call__(self, task: list[Item]) -> Done:
        engine = self._engine
        engine.timing, noted = Timing(), len(engine.notes)
        (rows,) = engine.rows([task])
        return Done(rows, engine.timing, engine.notes[noted:])

    def describe(self, task: list[Item]) -> str:
        return f"translated {task[0].path} to {task[-1].path} of {task[0].source}"


@dataclass
class RayEngine:
    """See :class:`pipeline.translating.engine.Engine`. Inputs, model, CLIP and the folder of results must be reachable
    from every node under the same names."""

    job: TranslateJob
    force: Workforce
    tick: Tick
    timing: Timing = field(default_factory=Timing)
    notes: list[str] = field(default_factory=list)

    @property
    def device(self) -> str:
        return str(self.force)

    def tasks(self, plan: Plan) -> Generator[list[Row]]:
        """See :class:`pipeline.translating.engine.Engine`. No process is started before there is something to do."""
        make = functools.partial(TranslateWorker, self.job)
        with contextlib.closing(run_tasks(plan.tasks, make, self.force, self.notes.append)) as results:
            for done in results:
                self.timing.waiting += done.timing.waiting / self.force.actors
                self.timing.model += done.timing.model / self.force.actors
                self.timing.writing += done.timing.writing / self.force.actors
                self.notes += [note for note in done.notes if note not in self.notes]
                self.tick(len({(row.item.source, row.item.path) for row in done.rows}))
                yield done.rows
