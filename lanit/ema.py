"""Exponential moving average of parameters, the copy that is saved for inference (METHOD §2)."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Average(Generic[M]):
    """Holds an averaged copy of ``module``, frozen and in evaluation mode."""

    def __init__(self, module: M) -> None:
        self.module: M = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: M, decay: float) -> None:
        """average ← decay × average + (1 − decay) × module, all tensors in one call."""
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), 1 - decay)
