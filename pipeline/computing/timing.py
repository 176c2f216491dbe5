"""How far a long run is, where its time goes, and how many processors it may use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.progress import Progress

_SHARES_AFTER = 5.0  # seconds


@dataclass
class Timing:
    """Seconds of a run. waiting: for images to decode; model: in the networks, transfers included; writing: of what
    comes of it."""

    waiting: float = 0.0
    model: float = 0.0
    writing: float = 0.0

    def add(self, other: Timing, side_by_side: int) -> None:
        """The share in the run's time of one of ``side_by_side`` threads or processes."""
        self.waiting += other.waiting / side_by_side
        self.model += other.model / side_by_side
        self.writing += other.writing / side_by_side


@dataclass
class Meter:
    """Counts what a run has done and tells ``progress`` of it, with shares of the time after the first seconds.

    total, done: rows, settled earlier too. remark: on how it goes, put behind the shares. began: by the clock
    ``time.monotonic``.
    """

    progress: Progress | None = None
    total: int = 0
    done: int = 0
    remark: Callable[[Meter], str] = lambda meter: ""
    began: float = field(default_factory=time.monotonic)
    timing: Timing = field(default_factory=Timing)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    def tick(self, rows: int) -> None:
        """So many more rows are settled."""
        self.done += rows
        if self.progress is not None:
            self.progress(self.done, self.total, self._shares())

    def _shares(self) -> str:
        seconds, timing = self.seconds, self.timing
        if seconds < _SHARES_AFTER:
            return ""
        shares = {"decode": timing.waiting, "model": timing.model, "write": timing.writing}
        return " ".join(f"{name} {value / seconds:.0%}" for name, value in shares.items()) + self.remark(self)


def usable_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
