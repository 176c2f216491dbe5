"""For tests: a function in a process of its own that need not import torch anew.

``from tests.children import child, fresh_child``.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

_KNOWN = multiprocessing.get_all_start_methods()
# A copy of the running process; where the system knows no such thing, one that imports for seconds.
CONTEXT: Any = multiprocessing.get_context("fork" if "fork" in _KNOWN else "spawn")
# A copy of a process that has imported everything and done nothing: a copy of one that trained cannot train.
_FRESH: Any = multiprocessing.get_context("forkserver" if "forkserver" in _KNOWN else "spawn")
_HEAVY = [
    "pytest",
    "typer.testing",
    "torch",
    "torchvision",
    "open_clip",
    "faiss",
    "pandas",
    "pyarrow.parquet",
    "gradio",
]


def child(function: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Starts it. What was patched in the test is patched there too."""
    process: BaseProcess = CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process


def fresh_child(function: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Starts it, knowing nothing of the test."""
    multiprocessing.set_forkserver_preload(_HEAVY)
    process: BaseProcess = _FRESH.Process(target=function, args=arguments)
    process.start()
    return process
