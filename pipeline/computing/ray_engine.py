"""Images through a model on a Ray cluster: this process plans and keeps the tables, engines in others do the work."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Generic

from pipeline.computing.engines import LocalEngine
from pipeline.computing.part_plan import AnyItem, PartPlan, tasks_of
from pipeline.computing.ray_cluster import Workforce
from pipeline.computing.ray_tasks import Worker, run_tasks
from pipeline.computing.timing import Meter, Timing


@dataclass(frozen=True)
class DoneTask:
    """What a process sends back of a task. packed: its images, as the stage sends them."""

    packed: Any
    images: int
    timing: Timing
    notes: list[str]


@dataclass(frozen=True)
class EngineWorker(Generic[AnyItem]):
    """An engine on one task after another: :class:`pipeline.computing.ray_tasks.Worker`.

    did: what it did with images, for a person. pack: makes of the images of a task, settled, what is sent back.
    """

    engine: LocalEngine[AnyItem, Any, Any]
    did: str
    pack: Callable[[list[AnyItem]], Any] = list

    def __call__(self, task: list[AnyItem]) -> DoneTask:
        meter, noted = Meter(), len(self.engine.notes)
        (images,) = self.engine.parts(PartPlan(task, len(task)), meter)
        return DoneTask(self.pack(images), len(images), meter.timing, self.engine.notes[noted:])

    def describe(self, task: list[AnyItem]) -> str:
        return f"{self.did} {task[0].path} to {task[-1].path} of {task[0].source}"


@dataclass
class RayEngine(Generic[AnyItem]):
    """See :class:`pipeline.computing.engines.Engine`. Inputs and models must be reachable from every node under the
    same names.

    workers: threads that read, of each process. maker: called once there is something to do, with the images of a part;
    gives what makes a worker in each process, and is sent there. unpack: makes the images of a task, as this process
    planned them, what a worker packed says. task_rows: from the images of a part to the most of a task.
    """

    workforce: Workforce
    workers: int
    maker: Callable[[int], Callable[[], Worker]]
    unpack: Callable[[Any, list[AnyItem]], list[AnyItem]] = lambda packed, _: list(packed)
    task_rows: Callable[[int], int] = int
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.processors, self.device = self.workforce.processors, str(self.workforce)

    def parts(self, plan: PartPlan[AnyItem], meter: Meter) -> Generator[list[AnyItem]]:
        """See :class:`pipeline.computing.engines.Engine`. No process is started before there is something to do.

        A part of which all is done in one task comes as ``unpack`` made it."""
        size = self.task_rows(plan.part_rows)
        with contextlib.closing(self._done(plan, size, meter)) as results:
            for part in plan:
                done = [self.unpack(next(results), task) for task in tasks_of(part, size)]
                if len(done) == 1 and len(done[0]) == len(part):
                    yield done[0]
                    continue
                images = itertools.chain.from_iterable(done)
                yield [next(images) if image.to_do else image for image in part]

    def _done(self, plan: PartPlan[AnyItem], size: int, meter: Meter) -> Generator[Any]:
        """What comes back of each task."""
        make = self.maker(plan.part_rows)
        results = run_tasks(functools.partial(plan.tasks, size), make, self.workforce, self.notes.append)
        with contextlib.closing(results):
            for done in results:
                meter.timing.add(done.timing, self.workforce.actors)
                self.notes += [note for note in done.notes if note not in self.notes]
                meter.tick(done.images)
                yield done.packed
