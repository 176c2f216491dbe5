"""Which device to compute on."""

from __future__ import annotations

import torch

from lanit.errors import LanitError


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU. Raises LanitError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise LanitError(f"there is no device '{name}'", "Try --device cpu.") from error
