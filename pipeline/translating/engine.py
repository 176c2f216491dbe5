"""Images to results on this machine: a batch is read, translated and written.

On a CPU every thread takes a batch from end to end, with its share of the processors: then nothing waits for anything,
and the model's small operations are not spread over cores that would have to meet after each (docs/LOG.md). On a GPU
threads read and write while the model works on the batches in between.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.computing.timing import Tick, Timing
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.limits import MAX_PIXELS, ImageError
from pipeline.decoding.squares import fit_square
from pipeline.inputs.places import Input
from pipeline.models.translator import Translator
from pipeline.translating.pictures import PictureWriter, encode_film, encode_picture
from pipeline.translating.recipe import Kitchen, Made, describe
from pipeline.translating.results import Row
from pipeline.translating.worklist import Item, Plan, tagged

_AHEAD_ON_GPU = 3  # batches that are being decoded while the model works
_MOST_MODELS = 8  # threads of a CPU that run the model: more would wait for Python's lock


class Engine(Protocol):
    """Does the images of a plan. timing: where its time went, in sums over threads that add up to the run's. notes:
    what a person should know. device: what computes."""

    timing: Timing

    @property
    def notes(self) -> list[str]: ...

    @property
    def device(self) -> str: ...

    def tasks(self, plan: Plan) -> Generator[list[Row]]:
        """The rows of every task of :meth:`pipeline.translating.worklist.Plan.tasks`, in order, their results
        written."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """pixels: uint8 (S×S×3). width, height: of the image before, upright."""

    pixels: np.ndarray
    width: int
    height: int


@dataclass(frozen=True)
class Reader:
    """Reads one image as the model sees it: the middle square, resized to ``size``. Runs in threads."""

    inputs: Mapping[str, Input]
    size: int
    max_pixels: int = MAX_PIXELS

    def __call__(self, item: Item) -> Decoded | str:
        """Why it cannot be read, instead of pixels, where it cannot."""
        try:
            data = self.inputs[item.source].read(item.path, item.offset, item.bytes)
            pixels = decode_rgb(data, self.max_pixels)
        except ImageError as error:
            return error.reason
        except MemoryError:
            return "not enough memory to read it"
        return Decoded(fit_square(pixels, self.size), pixels.shape[1], pixels.shape[0])


@dataclass
class Batch:
    """rows: of each image, one for each of its results; good: those that could be read, by position."""

    rows: list[list[Row]]
    good: list[int]
    made: list[Made] = field(default_factory=list)

    @classmethod
    def of(cls, items: Sequence[Item], decoded: Sequence[Decoded | str], results: int) -> Batch:
        rows, good = [], []
        for number, (item, image) in enumerate(zip(items, decoded, strict=True)):
            if isinstance(image, str):
                row = Row(item)
                row.fail(image)
                rows.append([row])
                continue
            good.append(number)
            styles = range(1, results + 1) if results > 1 else [None]
            rows.append([Row(item, style, width=image.width, height=image.height) for style in styles])
        return cls(rows, good)


class Workshop:
    """The steps of a batch, for whatever runs them, in any thread.

    tags: what tells the results of one image apart.
    """

    def __init__(self, kitchen: Kitchen, reader: Reader, writer: PictureWriter, tags: Sequence[str]) -> None:
        self.kitchen, self.reader = kitchen, reader
        self._writer, self._tags = writer, tags
        self.notes: list[str] = []
        self._most: int | None = None  # images that fit at once, once that is known

    @property
    def device(self) -> torch.device:
        return self.kitchen.translator.device

    def make(self, items: Sequence[Item], decoded: Sequence[Decoded | str]) -> Batch:
        """Run the model; on a GPU perhaps not computed yet."""
        batch = Batch.of(items, decoded, len(self._tags))
        pixels = [image.pixels for image in decoded if not isinstance(image, str)]
        batch.made = self._make(torch.from_numpy(np.stack(pixels))) if pixels else []
        return batch

    def _make(self, pixels: Tensor) -> list[Made]:
        """pixels: uint8 (B×S×S×3). Where the GPU runs out of memory, half as many images at once."""
        most = self._most or len(pixels)
        if len(pixels) > most:
            return [made for part in pixels.split(most) for made in self._make(part)]
        images = pixels.permute(0, 3, 1, 2)
        try:
            if self.device.type == "cuda":
                images = images.pin_memory().to(self.device, non_blocking=True)
            return [self.kitchen(images)]
        except torch.OutOfMemoryError:
            if len(pixels) == 1:
                raise
            self._most = (len(pixels) + 1) // 2
            self.notes.append(f"the GPU is out of memory with {len(pixels)} images at once: going on with {self._most}")
        torch.cuda.empty_cache()
        return self._make(pixels)

    def results(self, batch: Batch) -> Iterator[tuple[Row, np.ndarray]]:
        """What there is to write: rows and their frames, uint8 (F×S×S×3); the rows are then described."""
        start = 0
        for made in batch.made:
            pictures = made.pictures.cpu().numpy()
            rows = [batch.rows[number] for number in batch.good[start : start + pictures.shape[2]]]
            start += len(rows)
            self._describe(rows, made)
            for position, of_image in enumerate(rows):
                for style, row in enumerate(of_image):
                    yield row, pictures[style, :, position]
        batch.made.clear()

    def write(self, row: Row, frames: np.ndarray) -> None:
        """frames: uint8 (F×S×S×3)."""
        name = tagged(row.item.output, self._tags[(row.style or 1) - 1])
        is_film = self.kitchen.recipe.frames is not None
        data = encode_film(frames, name) if is_film else encode_picture(frames[0], name)
        trouble = self._writer.write(name, data, threading.get_ident())
        if trouble:
            row.fail(trouble)
        else:
            row.status, row.output, row.output_bytes = "ok", name, len(data)

    def _describe(self, rows: Sequence[Sequence[Row]], made: Made) -> None:
        """Fill in what was asked for and what CLIP sees; rows: of each image, one for each of its results."""
        translator, said = self.kitchen.translator, self.kitchen.recipe.requested
        targets = made.targets.cpu()
        wanted = targets.numpy() > 0
        for position, of_image in enumerate(rows):
            requested = describe(targets[position], translator.domains) if said is None else said
            for row in of_image:
                row.requested, row.target = requested, wanted[position]
        if made.before is not None:
            margins, names = made.before.cpu().numpy(), _names(translator.prompts.active(made.before), translator)
            for position, of_image in enumerate(rows):
                for row in of_image:
                    row.before, row.before_margins = names[position], margins[position]
        for style, of_style in enumerate(() if made.after is None else made.after):
            margins, names = of_style.cpu().numpy(), _names(translator.prompts.active(of_style), translator)
            for position, of_image in enumerate(rows):
                of_image[style].after, of_image[style].margins = names[position], margins[position]


def _names(active: Tensor, translator: Translator) -> list[str]:
    """Labels, bool (B×N), as texts."""
    return [
        ", ".join(name for name, on in zip(translator.domains, row, strict=True) if on) for row in active.cpu().tolist()
    ]


class CpuEngine:
    """See :class:`Engine`. Every thread reads, translates and writes a batch of its own."""

    def __init__(self, workshop: Workshop, batch_size: int, workers: int, tick: Tick) -> None:
        """workers: processors to use. tick: called with the number of images done."""
        self.timing = Timing()
        self._workshop, self._batch_size, self._tick = workshop, batch_size, tick
        self._threads = min(workers, _MOST_MODELS)
        self._processors = max(1, workers // self._threads)  # of each thread

    @property
    def notes(self) -> list[str]:
        return self._workshop.notes

    @property
    def device(self) -> str:
        return str(self._workshop.device)

    def tasks(self, plan: Plan) -> Generator[list[Row]]:
        yield from self.rows(plan.tasks())

    def rows(self, tasks: Iterable[list[Item]]) -> Iterator[list[Row]]:
        """The rows of each task. A batch ends with its task, so that a resumed run forms the same ones."""
        waiting: deque[tuple[Future[tuple[list[Row], Timing]], int, bool]] = deque()
        before, rows = torch.get_num_threads(), list[Row]()
        pool = ThreadPoolExecutor(self._threads, "translate", torch.set_num_threads, (self._processors,))
        try:
            for items, last in batches(tasks, self._batch_size):
                waiting.append((pool.submit(self._do, items), len(items), last))
                while len(waiting) > 2 * self._threads:
                    rows += self._done(*waiting[0][:2])
                    if waiting.popleft()[2]:
                        yield rows
                        rows = []
            while waiting:
                rows += self._done(*waiting[0][:2])
                if waiting.popleft()[2]:
                    yield rows
                    rows = []
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)  # threads yet to come begin with what was set last

    def _do(self, items: Sequence[Item]) -> tuple[list[Row], Timing]:
        workshop, timing, began = self._workshop, Timing(), time.monotonic()
        decoded = [workshop.reader(item) for item in items]
        timing.waiting = time.monotonic() - began
        batch = workshop.make(items, decoded)
        results = list(workshop.results(batch))
        timing.model = time.monotonic() - began - timing.waiting
        for row, frames in results:
            workshop.write(row, frames)
        timing.writing = time.monotonic() - began - timing.waiting - timing.model
        return [row for of_image in batch.rows for row in of_image], timing

    def _done(self, future: Future[tuple[list[Row], Timing]], images: int) -> list[Row]:
        rows, timing = future.result()
        self.timing.waiting += timing.waiting / self._threads
        self.timing.model += timing.model / self._threads
        self.timing.writing += timing.writing / self._threads
        self._tick(images)
        return rows


@dataclass
class _UnderWay:
    batch: Batch
    last: bool
    writes: list[Future[None]] = field(default_factory=list)


class GpuEngine:
    """See :class:`Engine`. The model is one batch ahead of the threads that write, and behind those that read."""

    def __init__(self, workshop: Workshop, batch_size: int, workers: int, tick: Tick) -> None:
        """workers: threads that read and write. tick: called with the number of images done."""
        self.timing = Timing()
        self._workshop, self._batch_size, self._workers, self._tick = workshop, batch_size, workers, tick

    @property
    def notes(self) -> list[str]:
        return self._workshop.notes

    @property
    def device(self) -> str:
        return str(self._workshop.device)

    def tasks(self, plan: Plan) -> Generator[list[Row]]:
        yield from self.rows(plan.tasks())

    def rows(self, tasks: Iterable[list[Item]]) -> Iterator[list[Row]]:
        """The rows of each task. A batch ends with its task, so that a resumed run forms the same ones."""
        launched: deque[_UnderWay] = deque()
        made: deque[list[_UnderWay]] = deque([[]])  # tasks whose results are being written, the last not yet complete
        with ThreadPoolExecutor(self._workers, "picture") as pool:
            try:
                for items, reads, last in self._submitted(tasks, pool):
                    launched.append(_UnderWay(self._launch(items, reads), last))
                    if len(launched) > 1:
                        self._hand_over(launched.popleft(), made, pool)
                    while len(made) > 2:
                        yield self._written(made.popleft())
                while launched:
                    self._hand_over(launched.popleft(), made, pool)
                while len(made) > 1:
                    yield self._written(made.popleft())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _submitted(
        self, tasks: Iterable[list[Item]], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[list[Item], list[Future[Decoded | str]], bool]]:
        """Batches whose images are being read, and whether they end a task."""
        ahead: deque[tuple[list[Item], list[Future[Decoded | str]], bool]] = deque()
        for items, last in batches(tasks, self._batch_size):
            ahead.append((items, [pool.submit(self._workshop.reader, item) for item in items], last))
            if len(ahead) >= _AHEAD_ON_GPU:
                yield ahead.popleft()
        yield from ahead

    def _launch(self, items: Sequence[Item], reads: Sequence[Future[Decoded | str]]) -> Batch:
        began = time.monotonic()
        decoded = [read.result() for read in reads]
        self.timing.waiting += time.monotonic() - began
        began = time.monotonic()
        batch = self._workshop.make(items, decoded)
        self.timing.model += time.monotonic() - began
        return batch

    def _hand_over(self, one: _UnderWay, made: deque[list[_UnderWay]], pool: ThreadPoolExecutor) -> None:
        began = time.monotonic()
        for row, frames in self._workshop.results(one.batch):
            one.writes.append(pool.submit(self._workshop.write, row, frames))
        self.timing.model += time.monotonic() - began
        made[-1].append(one)
        if one.last:
            made.append([])

    def _written(self, task: Sequence[_UnderWay]) -> list[Row]:
        began = time.monotonic()
        for one in task:
            for write in one.writes:
                write.result()
            self._tick(len(one.batch.rows))
        self.timing.writing += time.monotonic() - began
        return [row for one in task for of_image in one.batch.rows for row in of_image]


def local_engine(workshop: Workshop, batch_size: int, workers: int, tick: Tick) -> CpuEngine | GpuEngine:
    """What suits the device of the model."""
    kind = CpuEngine if workshop.device.type == "cpu" else GpuEngine
    return kind(workshop, batch_size, workers, tick)


def batches(tasks: Iterable[list[Item]], size: int) -> Iterator[tuple[list[Item], bool]]:
    """At most ``size`` images of a task at a time, and whether they are its last."""
    for task in tasks:
        for start in range(0, len(task), size):
            yield task[start : start + size], start + size >= len(task)
