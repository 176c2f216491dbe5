"""The state of an optimiser as named tensors, and back: what a checkpoint keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lanit.errors import LanitError


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as named tensors: ``<parameter index>.<field>``."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, fields in state.items() for name, value in fields.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Put back what :func:`optimiser_tensors` took. Raises LanitError where it is of other parameters.

    Every moment takes its parameter's memory layout: the fused Adam walks both as they lie in memory.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        if int(index) >= len(parameters) or (value.ndim and value.shape != parameters[int(index)].shape):
            raise LanitError(
                f"{origin} is of another architecture: optimiser state {key} is {tuple(value.shape)}",
                "Use the options it was trained with, or another --out.",
            )
        like = parameters[int(index)]
        state.setdefault(int(index), {})[name] = torch.empty_like(like).copy_(value) if value.ndim else value
    whole = {name for fields in state.values() for name in fields}
    incomplete = [index for index, fields in state.items() if set(fields) != whole]
    if incomplete:
        raise LanitError(
            f"{origin} is damaged: the optimiser state of parameter {incomplete[0]} is not whole",
            "Train again, in another --out.",
        )
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
