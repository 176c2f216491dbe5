"""Images through a model on this machine, batch by batch: one skeleton for the stages, which say what a batch is."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import torch

from pipeline.computing.part_plan import AnyItem, Item, PartPlan
from pipeline.computing.timing import Meter, Timing, usable_processors

_LOOKAHEAD = 8  # images read ahead beyond two batches, where the batches are tiny
_MOST_MODELS = 8  # threads of a CPU that run the model: more would wait for Python's lock

Image = TypeVar("Image")
Launched = TypeVar("Launched")
Given = TypeVar("Given", bound=Item, contravariant=True)
Chore = Callable[[], None]


class Engine(Protocol[AnyItem]):
    """Does the images of a plan.

    workers: threads that read in one process; processors: those it has for them. device: what computes, for a person.
    notes: what a person should know, such as a smaller batch.
    """

    workers: int
    processors: int
    device: str
    notes: list[str]

    def parts(self, plan: PartPlan[AnyItem], meter: Meter) -> Generator[list[AnyItem]]:
        """The same parts in the same order, every image that was to be done settled, and counted by ``meter``."""


class BatchSteps(Protocol[Given, Image, Launched]):
    """What a stage does with images, in this order, each step in any thread. notes: what a person should know."""

    device: torch.device
    notes: list[str]

    def read(self, item: Given, /) -> Image | None:
        """What goes into a batch; none where that settles the image."""

    def launch(self, batch: Sequence[tuple[Given, Image]], /) -> Launched:
        """Run the model; on a GPU perhaps not computed yet."""

    def collect(self, launched: Launched, /) -> Iterable[Chore]:
        """Settle the images of a batch, but for what the chores do: each of them in any thread, such as writing."""


class LocalEngine(ABC, Generic[AnyItem, Image, Launched]):
    """See :class:`Engine`. A batch ends with its part, so that a resumed run forms the same ones."""

    def __init__(self, steps: BatchSteps[AnyItem, Image, Launched], batch_size: int, workers: int) -> None:
        """workers: threads, each with a processor of its own."""
        self.steps, self.batch_size, self.workers = steps, batch_size, workers
        self.processors, self.device, self.notes = usable_processors(), str(steps.device), steps.notes

    @abstractmethod
    def parts(self, plan: PartPlan[AnyItem], meter: Meter) -> Generator[list[AnyItem]]:
        """See :class:`Engine`."""


class PipelinedEngine(LocalEngine[AnyItem, Image, Launched]):
    """Threads read ahead of the model, a bounded number of images, and do the chores behind it. This thread runs it, on
    a GPU a batch ahead of what it collects, so that the model does not wait for the disk; a small one on the CPU is run
    by the same threads, a batch on a core, since it would gain nothing from several and wait for them instead."""

    def __init__(
        self,
        steps: BatchSteps[AnyItem, Image, Launched],
        batch_size: int,
        workers: int,
        *,
        remote: bool = False,
        small: bool = False,
    ) -> None:
        """remote: whether reading is waiting for others, rather than work, so that a model on the CPU need not stand
        still meanwhile. small: whether the model takes less time than reading, and little memory."""
        super().__init__(steps, batch_size, workers)
        on_cpu = steps.device.type == "cpu"
        self._in_threads, self._in_turns = on_cpu and small, on_cpu and not (remote or small)
        self._under_way = workers if self._in_threads else 1 if steps.device.type == "cuda" else 0

    def parts(self, plan: PartPlan[AnyItem], meter: Meter) -> Generator[list[AnyItem]]:
        made: deque[tuple[list[AnyItem], list[Future[None]]]] = deque()  # with chores that threads are at
        with self._threads() as pool:
            try:
                for one in self._made(plan, pool, meter):
                    made.append(one)
                    while made and (not made[0][1] or len(made) > 1):
                        yield _finished(*made.popleft(), meter)
                for part, chores in made:
                    yield _finished(part, chores, meter)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    @contextlib.contextmanager
    def _threads(self) -> Iterator[ThreadPoolExecutor]:
        if not self._in_threads:
            with ThreadPoolExecutor(self.workers, "image") as pool:
                yield pool
            return
        before = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(self.workers, "image", torch.set_num_threads, (1,)) as pool:
                yield pool
        finally:
            torch.set_num_threads(before)  # threads yet to come begin with what was set last

    def _made(
        self, plan: PartPlan[AnyItem], pool: ThreadPoolExecutor, meter: Meter
    ) -> Iterator[tuple[list[AnyItem], list[Future[None]]]]:
        """The parts, with the chores that are left of them."""
        chores: list[Future[None]] = []
        for launched, images, part in self._launched(plan, pool, meter):
            if launched is not None:
                began = time.monotonic()
                chores += [pool.submit(chore) for chore in self.steps.collect(launched())]
                meter.timing.model += time.monotonic() - began
                meter.tick(images)
            if part is not None:
                yield part, chores
                chores = []

    def _launched(
        self, plan: PartPlan[AnyItem], pool: ThreadPoolExecutor, meter: Meter
    ) -> Iterator[tuple[Callable[[], Launched] | None, int, list[AnyItem] | None]]:
        """What gives batches that are being computed, the number of their images, and the part that ends with each, if
        one does. Where the model runs beside this thread, each comes when others are under way."""
        ahead: deque[tuple[Callable[[], Launched] | None, int, list[AnyItem] | None]] = deque()
        for batch, part in self._batches(plan, pool, meter):
            began = time.monotonic()
            ahead.append((self._launch(batch, pool) if batch else None, len(batch), part))
            meter.timing.model += time.monotonic() - began
            if len(ahead) > self._under_way:
                yield ahead.popleft()
        yield from ahead

    def _launch(self, batch: list[tuple[AnyItem, Image]], pool: ThreadPoolExecutor) -> Callable[[], Launched]:
        if self._in_threads:
            return pool.submit(self.steps.launch, batch).result
        launched = self.steps.launch(batch)
        return lambda: launched

    def _batches(
        self, plan: PartPlan[AnyItem], pool: ThreadPoolExecutor, meter: Meter
    ) -> Iterator[tuple[list[tuple[AnyItem, Image]], list[AnyItem] | None]]:
        """Batches that were read, and the part that ends with each, if one does."""
        batch: list[tuple[AnyItem, Image]] = []
        for found in self._reading(plan, pool):
            if isinstance(found, list):
                yield batch, found
                batch = []
                continue
            item, reading = found
            began = time.monotonic()
            image = reading.result()
            meter.timing.waiting += time.monotonic() - began
            if image is None:
                meter.tick(1)
                continue
            batch.append((item, image))
            if len(batch) == self.batch_size:
                yield batch, None
                batch = []

    def _reading(
        self, plan: PartPlan[AnyItem], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[AnyItem, Future[Image | None]] | list[AnyItem]]:
        """Each image to do, with what a thread reads of it, and behind those of a part the part."""
        ahead: deque[tuple[AnyItem, Future[Image | None]] | list[AnyItem]] = deque()
        # a model on the CPU uses every core, and threads that decode meanwhile would hold up its own: they take turns
        most, left = (self.batch_size, 0) if self._in_turns else (2 * self.batch_size + _LOOKAHEAD,) * 2
        for part in plan.handed_out():
            for item in part:
                if item.to_do:
                    ahead.append((item, pool.submit(self.steps.read, item)))
                if len(ahead) >= most:
                    while len(ahead) >= max(left, 1):
                        yield ahead.popleft()
            ahead.append(part)
            while self._in_turns and ahead:
                yield ahead.popleft()
        yield from ahead


def _finished(part: list[AnyItem], chores: Sequence[Future[None]], meter: Meter) -> list[AnyItem]:
    """``part``, once its chores are done."""
    began = time.monotonic()
    for chore in chores:
        chore.result()
    meter.timing.writing += time.monotonic() - began
    return part


class ThreadedEngine(LocalEngine[AnyItem, Image, Launched]):
    """Every thread takes a batch from end to end, with its share of the processors: then nothing waits for anything,
    and a model's small operations are not spread over cores that would have to meet after each (docs/LOG.md)."""

    def parts(self, plan: PartPlan[AnyItem], meter: Meter) -> Generator[list[AnyItem]]:
        threads = min(self.workers, _MOST_MODELS)
        waiting: deque[tuple[Future[Timing], int, list[AnyItem] | None]] = deque()
        before = torch.get_num_threads()
        pool = ThreadPoolExecutor(threads, "batch", torch.set_num_threads, (max(1, self.workers // threads),))
        try:
            for batch, part in self._batches(plan):
                waiting.append((pool.submit(self._do, batch), len(batch), part))
                while len(waiting) > 2 * threads:
                    yield from self._done(*waiting.popleft(), threads, meter)
            while waiting:
                yield from self._done(*waiting.popleft(), threads, meter)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)  # threads yet to come begin with what was set last

    def _batches(self, plan: PartPlan[AnyItem]) -> Iterator[tuple[list[AnyItem], list[AnyItem] | None]]:
        """Images to do, and the part that ends with them, if one does."""
        for part in plan.handed_out():
            todo = [item for item in part if item.to_do]
            for start in range(0, max(len(todo), 1), self.batch_size):
                end = start + self.batch_size
                yield todo[start:end], part if end >= len(todo) else None

    def _do(self, items: Sequence[AnyItem]) -> Timing:
        timing, began = Timing(), time.monotonic()
        read = [(item, self.steps.read(item)) for item in items]
        batch = [(item, image) for item, image in read if image is not None]
        timing.waiting = time.monotonic() - began
        chores = list(self.steps.collect(self.steps.launch(batch))) if batch else []
        timing.model = time.monotonic() - began - timing.waiting
        for chore in chores:
            chore()
        timing.writing = time.monotonic() - began - timing.waiting - timing.model
        return timing

    def _done(
        self, doing: Future[Timing], images: int, part: list[AnyItem] | None, threads: int, meter: Meter
    ) -> Iterator[list[AnyItem]]:
        meter.timing.add(doing.result(), threads)
        if images:
            meter.tick(images)
        if part is not None:
            yield part
