"""Where a run stands."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass
class Clock:
    """step: finished; seconds: of training; planned: steps in all, 0 while not yet known; revision: of the labels in
    use; learning: whether phase 2 has begun, which a longer run does not undo. best, best_step: the best evaluation so
    far and its step, 0 while there is none.
    stability: mean κ of the labels in use over two crops; none where prompts learn without being checked by it. falls:
    refreshes in a row that were less stable; settled: whether prompts are learned no more."""

    step: int = 0
    seconds: float = 0.0
    planned: int = 0
    revision: int = 0
    learning: bool = False
    best: float = 0.0
    best_step: int = 0
    stability: float | None = None
    falls: int = 0
    settled: bool = False


def clock_of(state: dict[str, Any]) -> Clock:
    """The clock in the state of a checkpoint."""
    names = {each.name for each in fields(Clock)}
    return Clock(**{name: value for name, value in state.items() if name in names})
