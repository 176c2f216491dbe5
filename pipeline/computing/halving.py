"""Batches through a model in as much memory as there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

Image = TypeVar("Image")
Result = TypeVar("Result")


@dataclass
class HalvingBatches(Generic[Image, Result]):
    """Where the GPU runs out of memory, half as many images go through at once from then on.

    compute: the model, on some images; on a GPU perhaps not computed yet when it returns. notes: what a person should
    know.
    """

    compute: Callable[[Sequence[Image]], Result]
    notes: list[str] = field(default_factory=list)
    _most: int | None = None  # images that fit at once, once that is known

    def launch(self, images: Sequence[Image]) -> list[Result]:
        """The results of consecutive pieces of ``images``. Raises OutOfMemoryError where one alone is too much."""
        most = self._most or len(images)
        if len(images) > most:
            return [part for start in range(0, len(images), most) for part in self.launch(images[start : start + most])]
        try:
            return [self.compute(images)]
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
            self._most = (len(images) + 1) // 2
            self.notes.append(f"the GPU is out of memory with {len(images)} images at once: going on with {self._most}")
        torch.cuda.empty_cache()
        return self.launch(images)


def to_device(batch: Tensor, device: torch.device) -> Tensor:
    """``batch`` on ``device``; a GPU copies it while this process goes on."""
    if device.type == "cuda" and batch.is_cpu:
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True)
