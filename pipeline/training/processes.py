"""The processes of one run: those that torchrun started, or this one alone.

``torchrun --nproc-per-node 4 lanit train …`` starts one process for each GPU (or share of a CPU). All hold the same
networks; each computes its rows of every batch (:class:`lanit.ranks.Ranks`). The first one writes, the others wait.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from lanit.errors import LanitError
from lanit.ranks import ALONE, Ranks
from pipeline.computing.devices import pick_device

T = TypeVar("T")
_SHUTDOWN = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
_PATIENCE = timedelta(hours=12)  # while the first process decodes a large store, say


@dataclass(frozen=True)
class Processes:
    """device: of this process. control: a group for messages between hosts, none for one process."""

    device: torch.device
    ranks: Ranks = ALONE
    control: distributed.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.ranks.rank == 0

    def any(self, here: bool) -> bool:
        """Whether it is so in any process; the device is not waited for."""
        if self.control is None:
            return here
        flag = torch.tensor([int(here)])
        distributed.all_reduce(flag, distributed.ReduceOp.MAX, group=self.control)
        return bool(flag.item())

    def shared(self, value: T) -> T:
        """The first process's ``value``, in all of them."""
        if self.control is None:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """What the first process does inside is done before the others begin; where it fails they end, and it says why.

        Nothing is waited for inside, nor asked of the others.
        """
        if not self.first:
            if not self.shared(True):
                raise SystemExit(1)
            yield
            return
        try:
            yield
        except BaseException:
            self.shared(False)
            raise
        self.shared(True)

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the first process, in all of them; where it fails there all end, and it says why."""
        made = None
        with self.first_alone():
            if self.first:
                made = make()
        return self.shared(made)  # type: ignore[return-value]  # the first one's, which is a T

    def check_batch(self, batch_size: int) -> None:
        """Raise LanitError where a batch cannot be shared evenly: each process needs an even number of its rows."""
        if batch_size % (2 * self.ranks.count) and self.ranks.count > 1:
            even = max(1, round(batch_size / (2 * self.ranks.count))) * 2 * self.ranks.count
            raise LanitError(
                f"a batch of {batch_size} cannot be shared evenly by {self.ranks.count} processes",
                f"Try --batch-size {even}.",
            )


def launched_rank() -> int:
    """The number that torchrun gave this process; 0 for one that was started by itself."""
    return int(os.environ.get("RANK", "0")) if "WORLD_SIZE" in os.environ else 0


class Pace:
    """Finds out, once a run, whether a step and all that may be due after it fit into torchrun's patience.

    torchrun passes a signal to stop on to its processes, and kills them after a limit that it reads as it starts.
    since: the step before the first; beside: seconds that a sample, an evaluation and a checkpoint take.
    """

    def __init__(self, since: int, beside: float) -> None:
        self._since, self._beside = since, beside
        self._begun = 0.0
        self._limit = _shutdown_seconds()

    def step_ended(self, step: int, device: torch.device, warn: Callable[[str], None]) -> None:
        """Look at the clock after the first step and the third; ``warn`` is told where the limit is too short."""
        done = step - self._since
        if self._limit is None or done not in (1, 3):
            return
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if done == 1:
            self._begun = time.monotonic()
            return
        needed = (time.monotonic() - self._begun) / 2 + self._beside
        if needed > self._limit:
            warn(
                f"a step and its checkpoint take up to {needed:.1f} s, but torchrun kills its processes "
                f"{self._limit:g} s after a signal to stop, and what the last checkpoint lacks is then lost. Set "
                f"{_SHUTDOWN}={10 * math.ceil(needed / 5)} before torchrun, or --set checkpoint_every to less"
            )


def _shutdown_seconds() -> float | None:
    """How long torchrun waits for its processes after a signal; none where it did not start this one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    try:
        return float(os.environ.get(_SHUTDOWN, "30"))
    except ValueError:  # torchrun refuses it
        return None


@contextlib.contextmanager
def joined_processes(device: str = "auto") -> Iterator[Processes]:
    """Meet the other processes that torchrun started, by NCCL between GPUs, else by gloo.

    device: ``auto`` or ``cuda`` take the GPU of this process's number on its machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield Processes(pick_device(device))
        return
    if device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    chosen = pick_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        control = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        assert isinstance(control, distributed.ProcessGroup)  # all processes belong to it
        yield Processes(chosen, Ranks(distributed.get_rank(), distributed.get_world_size()), control)
    finally:
        distributed.destroy_process_group()
