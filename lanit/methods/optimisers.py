"""What networks learn by."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def adam(
    parameters: list[nn.Parameter] | list[dict[str, Any]],
    rate: float,
    momentum: float = 0.0,
    decay: float = 1e-4,
    second: float = 0.99,
) -> torch.optim.Adam:
    """As METHOD §5 sets it unless told otherwise."""
    return torch.optim.Adam(parameters, rate, betas=(momentum, second), weight_decay=decay, fused=True)
