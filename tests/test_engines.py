"""The skeleton of a long run: whatever the engine, every part comes back in order, settled, of the same batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch

from pipeline.computing.engines import LocalEngine, PipelinedEngine, ThreadedEngine
from pipeline.computing.halving import HalvingBatches
from pipeline.computing.part_plan import PartPlan
from pipeline.computing.timing import Meter

Kind = Callable[..., LocalEngine[Any, Any, Any]]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL = partial(PipelinedEngine[Any, Any, Any], small=True)
ENGINES = pytest.mark.parametrize(
    ("kind", "device"), [(PipelinedEngine, CPU), (SMALL, CPU), (PipelinedEngine, CUDA), (ThreadedEngine, CPU)]
)
"""Of a GPU the skeleton knows the name alone: what it does for one can be seen without."""


@dataclass
class Number:
    """An item: its square is asked for. Multiples of 5 are not to be done, those of 7 are settled by reading."""

    value: int
    source: str = "numbers"
    path: str = ""
    square: int | None = None
    written: bool = False

    @property
    def to_do(self) -> bool:
        return self.value % 5 != 0


@dataclass
class Squaring:
    """Steps whose model squares."""

    device: torch.device = CPU
    notes: list[str] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)
    reading: list[int] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def read(self, number: Number) -> int | None:
        with self.lock:
            self.reading.append(number.value)
        if number.value == 1313:
            raise ValueError("a broken reader")
        if number.value % 7 == 0:
            number.square, number.written = number.value**2, True
            return None
        return number.value

    def launch(self, batch: Sequence[tuple[Number, int]]) -> list[tuple[Number, int]]:
        with self.lock:
            self.batches.append([value for _, value in batch])
        return [(number, value * value) for number, value in batch]

    def collect(self, launched: list[tuple[Number, int]]) -> Iterator[Callable[[], None]]:
        for number, square in launched:
            number.square = square
            yield lambda number=number: setattr(number, "written", True)


def plan(count: int, part_rows: int, announce: Any = None) -> PartPlan[Number]:
    class Numbers:
        def __iter__(self) -> Iterator[Number]:
            return map(Number, range(count))

    return PartPlan(Numbers(), part_rows, announce)


@ENGINES
@pytest.mark.parametrize("workers", [1, 3])
def test_every_part_comes_in_order_and_settled(kind: Kind, device: torch.device, workers: int) -> None:
    calls: list[tuple[int, int]] = []
    meter = Meter(lambda done, total, detail="": calls.append((done, total)), total=80)
    values = []
    for part in kind(Squaring(device), 4, workers).parts(plan(100, 13), meter):
        assert len(part) == min(13, 100 - len(values))
        assert all(number.square == (number.value**2 if number.to_do else None) for number in part)
        assert all(number.written == number.to_do for number in part), "chores are done before a part comes"
        values += [number.value for number in part]
    assert values == list(range(100))
    assert calls[-1] == (80, 80)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


@pytest.mark.parametrize(("kind", "device"), [(PipelinedEngine, CPU), (SMALL, CPU), (PipelinedEngine, CUDA)])
def test_a_batch_is_full_but_at_the_end_of_a_part_and_holds_what_reading_did_not_settle(
    kind: Kind, device: torch.device
) -> None:
    steps = Squaring(device)
    list(kind(steps, 4, 3).parts(plan(50, 20), Meter()))
    new = [value for value in range(50) if value % 5 and value % 7]
    expected = []
    for start in range(0, 50, 20):
        part = [value for value in new if start <= value < start + 20]
        expected += [part[at : at + 4] for at in range(0, len(part), 4)]
    assert sorted(steps.batches) == expected  # a small model's are computed side by side


def test_a_small_model_is_run_by_the_threads_that_read_on_a_core_each() -> None:
    found: list[tuple[str, int]] = []

    class Watched(Squaring):
        def launch(self, batch: Sequence[tuple[Number, int]]) -> list[tuple[Number, int]]:
            found.append((threading.current_thread().name, torch.get_num_threads()))
            return super().launch(batch)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(SMALL(Watched(), 4, 3).parts(plan(50, 20), Meter()))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert {(name.startswith("image"), threads) for name, threads in found} == {(True, 1)}


def test_threads_that_take_whole_batches_form_them_before_they_read() -> None:
    steps = Squaring()
    list(ThreadedEngine(steps, 4, 1).parts(plan(50, 20), Meter()))
    todo = [[value for value in range(start, min(start + 20, 50)) if value % 5] for start in range(0, 50, 20)]
    batches = [part[at : at + 4] for part in todo for at in range(0, len(part), 4)]
    assert steps.batches == [[value for value in batch if value % 7] for batch in batches]


@ENGINES
def test_only_a_bounded_number_of_images_is_read_ahead(kind: Kind, device: torch.device) -> None:
    steps = Squaring(device)
    parts = kind(steps, 4, 2).parts(plan(10_000, 10), Meter())
    next(parts)
    parts.close()
    assert len(steps.reading) <= 100


@ENGINES
def test_what_is_to_be_done_is_announced_before_any_of_it_is_read(kind: Kind, device: torch.device) -> None:
    steps, announced = Squaring(device), list[int]()

    def announce(numbers: Sequence[Number]) -> None:
        assert not {number.value for number in numbers} & set(steps.reading)
        announced.extend(number.value for number in numbers)

    list(kind(steps, 4, 2).parts(plan(40, 7, announce), Meter()))
    assert announced == [value for value in range(40) if value % 5]


@ENGINES
def test_what_a_step_raises_ends_the_run(kind: Kind, device: torch.device) -> None:
    with pytest.raises(ValueError, match="a broken reader"):
        list(kind(Squaring(device), 4, 2).parts(plan(2000, 50), Meter()))


def test_where_one_image_does_not_fit_nothing_is_tried_again() -> None:
    tried = []

    def full(images: Sequence[int]) -> int:
        tried.append(len(images))
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        HalvingBatches(full).launch(range(9))
    assert tried == [9, 5, 3, 2, 1]


def test_half_as_many_go_through_at_once_from_then_on() -> None:
    sizes = []

    def narrow(images: Sequence[int]) -> int:
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("full")
        return sum(images)

    batches = HalvingBatches(narrow)
    assert sum(batches.launch(range(11))) == sum(batches.launch(range(11))) == 55
    assert sizes == [11, 6, 3, 3, 3, 2, 3, 3, 3, 2]
    assert batches.notes == [
        f"the GPU is out of memory with {n} images at once: going on with {m}" for n, m in [(11, 6), (6, 3)]
    ]


@pytest.mark.parametrize("remote", [True, False])
def test_what_is_waited_for_is_read_while_a_model_on_the_cpu_runs_and_what_is_decoded_before(remote: bool) -> None:
    ahead: list[bool] = []

    class Slow(Squaring):
        def launch(self, batch: Sequence[tuple[Number, int]]) -> list[tuple[Number, int]]:
            end = time.monotonic() + (5 if remote else 0.2)
            while max(self.reading) <= batch[-1][1] and time.monotonic() < end and not ahead:
                time.sleep(0.005)
            ahead.append(max(self.reading) > batch[-1][1])
            return super().launch(batch)

    steps = Slow()
    [part] = PipelinedEngine(steps, 4, 1, remote=remote).parts(plan(20, 20), Meter())
    assert ahead[0] is remote
    assert [number.square for number in part] == [n * n if n % 5 else None for n in range(20)]
    assert steps.batches == [[1, 2, 3, 4], [6, 8, 9, 11], [12, 13, 16, 17], [18, 19]]
