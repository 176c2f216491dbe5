"""How much a command says beside its result: ``-q`` leaves remarks and progress out, ``-v`` logs what is done.

What is logged goes to the logger ``lanit`` of :mod:`logging`, where programs that use the library find it too.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lanit.errors import UsageError
from pipeline.showing.terminal_text import visible

LOGGER = logging.getLogger("lanit")
_state = {"quiet": False}


def is_quiet() -> bool:
    """Whether remarks and progress are left out."""
    return _state["quiet"]


@contextmanager
def volume(*, quiet: bool, verbose: bool) -> Iterator[None]:
    """For as long as the block lasts. verbose: what is logged goes to stderr, and at the end what the block took."""
    if quiet and verbose:
        raise UsageError("-q and -v say less and more", "Give one of them.")
    _state["quiet"] = quiet
    handler, level, begun = _Lines(time.monotonic()), LOGGER.level, time.process_time()
    if verbose:
        LOGGER.addHandler(handler)
        LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.info("%.1f s of processors%s", time.process_time() - begun, _peak())
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        _state["quiet"] = False


class _Lines(logging.Handler):
    """Lines on stderr, as it is when they are written, each with the seconds since the beginning."""

    def __init__(self, begun: float) -> None:
        super().__init__()
        self._begun = begun

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"[{time.monotonic() - self._begun:7.2f} s] {visible(record.getMessage())}\n")


def _peak() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f", at most {peak / (2**20 if sys.platform == 'darwin' else 2**10):,.0f} MiB"
