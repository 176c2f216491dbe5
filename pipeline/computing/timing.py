"""Where the time of a long run goes, and how many processors it may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Timing:
    """Seconds of a run. waiting: for images to decode; model: in CLIP, transfers included; writing: of parts."""

    waiting: float = 0.0
    model: float = 0.0
    writing: float = 0.0


Tick = Callable[[int], None]
"""Called with the number of rows that were settled since the last call."""


def usable_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
