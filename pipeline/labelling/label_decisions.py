"""Labels of the images of a store, a part at a time: from embeddings alone, so here or in other processes alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from lanit.labels import EmbeddedPrompts, assign
from lanit.linear_head import LinearHead
from lanit.rules import Rule

if TYPE_CHECKING:
    from pipeline.store.schemas import Part
    from pipeline.store.store import Store

_ROWS = 16384  # embeddings multiplied at once: bounds the memory at any size of the store
_THREADS = 2

Decided = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Labels, bool (b×N), margins, float32 (b×N), and f_base, float32 (b), of successive images."""


@dataclass(frozen=True)
class Decision:
    """What decides labels; all of it NumPy arrays. head: under the rules ``clusters`` and ``filled`` alone."""

    rule: Rule
    prompts: EmbeddedPrompts
    head: LinearHead | None = None

    def of(self, embeddings: np.ndarray) -> Iterator[Decided]:
        """Block by block. embeddings: unit-norm float32 (n×k)."""
        for start in range(0, len(embeddings), _ROWS):
            yield assign(self.rule, embeddings[start : start + _ROWS], self.prompts, self.head)


DecidedPart = tuple[pa.Table, Iterable[Decided]]
"""image_id and path of the rows of a part with status ok, and their labels, block by block."""
Decider = Callable[["Store", Decision], Iterator[DecidedPart]]
"""Decides the labels of a store, part by part."""


def decide_here(store: Store, decision: Decision) -> Iterator[DecidedPart]:
    """In threads of this process, a few parts ahead of the caller.

    Each works alone: products this narrow gain nothing from more processors, and lose much where those are busy.
    """

    def decide(part: Part) -> DecidedPart:
        keys, embeddings = store.labelled_part(part)
        return keys, list(decision.of(embeddings))

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(_THREADS) as threads:
        waiting: deque[Future[DecidedPart]] = deque()
        for part in store.manifest.parts:
            waiting.append(threads.submit(decide, part))
            if len(waiting) > _THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
