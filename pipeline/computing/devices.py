"""Which device to compute on, and what it computes well."""

from __future__ import annotations

import platform

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


def emulates_bf16(device: torch.device) -> bool:
    """Whether ``device`` has no instructions for bfloat16, which then takes up to eleven times as long as float32: GPUs
    before Ampere, x86 processors without AVX-512 BF16. Of others it is not known, and this is false."""
    if device.type == "cuda":
        return torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0)
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return device.type == "cpu" and x86 and not torch.cpu._is_avx512_bf16_supported()


def warning_of_bf16(device: torch.device) -> str | None:
    """What to say where bfloat16 was asked of a device that emulates it."""
    if not emulates_bf16(device):
        return None
    name = "GPU" if device.type == "cuda" else "processor"
    return f"this {name} only emulates bfloat16, which takes up to eleven times as long as float32 here"


def native_bf16(device: str) -> torch.autocast:
    """Autocast to bfloat16, unless the device emulates it."""
    return torch.autocast(device, torch.bfloat16, enabled=not emulates_bf16(torch.device(device)))
