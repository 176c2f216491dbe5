"""Where the time of a training step goes: forward passes by network, backward passes, optimisers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn


class Stopwatch:
    """Seconds by part; what runs inside a part that is being timed counts for the outer one."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds, self._running = device, dict[str, float](), False

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        if self._running:
            yield
            return
        self._running, begun = True, self.now()
        try:
            yield
        finally:
            self._running = False
            self.seconds[part] = self.seconds.get(part, 0.0) + self.now() - begun

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.timing(part):
                return function(*arguments, **named)

        return timed

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def time_parts(
    step: Callable[[], object], networks: Mapping[str, Sequence[nn.Module]], device: torch.device
) -> dict[str, float]:
    """Shares of one step's time; ``rest`` is everything else. networks: the modules whose forward makes a part."""
    watch = Stopwatch(device)
    with ExitStack() as stack:
        for part, modules in networks.items():
            for module in modules:
                stack.enter_context(mock.patch.object(module, "forward", watch.wrap(f"{part} forward", module.forward)))
        for owner, name, part in (
            (torch.Tensor, "backward", "backward"),
            (torch.autograd, "grad", "backward"),
            (torch.optim.Adam, "step", "optimisers"),
        ):
            stack.enter_context(mock.patch.object(owner, name, watch.wrap(part, getattr(owner, name))))
        begun = watch.now()
        step()
        whole = watch.now() - begun
    shares = {part: seconds / whole for part, seconds in watch.seconds.items()}
    return shares | {"rest": max(0.0, 1 - sum(shares.values()))}
