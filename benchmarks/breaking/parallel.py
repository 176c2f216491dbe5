"""Trials on several cores: forked workers, none of which shares anything."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_REPORT_SECONDS = 20.0


def each(function: Callable[[Item], Result], items: Sequence[Item], jobs: int, what: str) -> Iterator[Result]:
    """``function`` of every item, in their order; progress goes to stderr."""
    began = said = time.perf_counter()
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for number, result in enumerate(pool.imap(function, items, chunksize=1), 1):
            now = time.perf_counter()
            if now - said > _REPORT_SECONDS or number == len(items):
                print(f"{what}: {number} of {len(items)}, {now - began:.0f} s", file=sys.stderr, flush=True)
                said = now
            yield result
