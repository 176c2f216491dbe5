"""Several processes that train one model: each holds rows of the same batch, and all agree on every number.

Randomness is drawn for the whole batch in every process, which keeps its own rows of it; sums over a batch are those of
the whole batch; gradients are averaged. So a step of several processes is the step of one, to float tolerance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Ranks:
    """Which of ``count`` processes this one is. Of a batch it holds rows rank, rank + count, rank + 2 count, …"""

    rank: int = 0
    count: int = 1

    def own(self, rows: Tensor) -> Tensor:
        """This process's rows of those of the whole batch."""
        return rows[self.rank :: self.count]

    def whole(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in the order of the whole batch, without gradient."""
        if self.count == 1:
            return rows.detach()
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        distributed.all_gather(parts, rows.detach().contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of ``value`` over the processes, without gradient."""
        if self.count == 1:
            return value.detach()
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total / self.count

    def least(self, value: Tensor) -> Tensor:
        """The least of ``value`` over the processes, entry by entry."""
        if self.count == 1:
            return value.detach()
        least = value.detach().clone()
        distributed.all_reduce(least, distributed.ReduceOp.MIN)
        return least

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over the processes, in one exchange."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        parts = (flat / self.count).split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])


ALONE = Ranks()


@dataclass(frozen=True)
class Draws:
    """Random numbers of one step, from a seeded generator on the device of the step."""

    generator: torch.Generator
    ranks: Ranks = ALONE

    def uniform(self, rows: int, *shape: int) -> Tensor:
        """float32 (rows×shape) in [0, 1): this process's rows of what is drawn for all."""
        count = rows * self.ranks.count
        return self.ranks.own(torch.rand(count, *shape, generator=self.generator, device=self.generator.device))

    def normal(self, rows: int, *shape: int) -> Tensor:
        """float32 (rows×shape), standard normal."""
        count = rows * self.ranks.count
        return self.ranks.own(torch.randn(count, *shape, generator=self.generator, device=self.generator.device))
