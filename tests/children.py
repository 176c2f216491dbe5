"""For tests: a function in a process of its own, which needs not import torch anew.

``from tests.children import child``.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

# A copy of the running process; where the system knows no such thing, one that imports for seconds.
CONTEXT: Any = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")


def child(function: Callable[..., object], *arguments: Any) -> multiprocessing.Process:
    """Starts it. What was patched in the test is patched there too."""
    process: multiprocessing.Process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process
