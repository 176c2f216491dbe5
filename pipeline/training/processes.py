"""The processes of one run: those that torchrun started, or this one alone.

``torchrun --nproc-per-node 4 lanit train …`` starts one process for each GPU (or share of a CPU). All hold the same
networks; each computes its rows of every batch (:class:`lanit.ranks.Ranks`). The first one writes, the others wait.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from lanit.errors import LanitError
from lanit.ranks import ALONE, Ranks
from pipeline.devices import pick_device

T = TypeVar("T")
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
        """What the first process does inside is done before the others begin."""
        if not self.first:
            self.shared(None)
        yield
        if self.first:
            self.shared(None)

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
