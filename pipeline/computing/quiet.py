"""Libraries that talk while they work, kept off the terminal."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(level: int = logging.CRITICAL) -> Iterator[None]:
    """No warning, and no log line up to ``level``, reaches the terminal inside; what fails raises all the same.

    Handlers that a library adds meanwhile go with the block.
    """
    disabled, handlers = logging.root.manager.disable, logging.root.handlers[:]
    logging.disable(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        logging.root.handlers[:] = handlers
