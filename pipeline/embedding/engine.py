"""Rows to embeddings on this machine: threads read and decode ahead of the model, a bounded number of images."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from lanit.preprocessing import ClipPreprocessing
from pipeline.clip.batch_encoder import BatchEncoder
from pipeline.computing.timing import Tick, Timing, usable_processors
from pipeline.decoding.clip_input import decode_for_clip
from pipeline.decoding.limits import MAX_PIXELS, ImageError
from pipeline.embedding.parts import PartPlan, Row
from pipeline.files import sha256_bytes
from pipeline.inputs.places import Input

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.embedding.known_rows import Contents

_LOOKAHEAD = 8  # images decoded ahead beyond two batches, where the batches are tiny


class Engine(Protocol):
    """Fills in rows.

    timing: where its time went. workers: threads that decode in one process; processors: those it has for them.
    device: what computes, for a person. notes: what a person should know, such as a smaller batch.
    """

    timing: Timing

    @property
    def workers(self) -> int: ...

    @property
    def processors(self) -> int: ...

    @property
    def device(self) -> str: ...

    @property
    def notes(self) -> list[str]: ...

    def rows(self, parts: PartPlan) -> Iterator[list[Row]]:
        """The same parts in the same order, every row settled: with an embedding, an earlier row, or an error."""


@dataclass
class RowReader:
    """Reads one row's image; runs in threads and never raises.

    contents: what the store holds. decode: here, else the model's device
    decodes, a batch at a time.
    """

    inputs: Mapping[str, Input]
    preprocessing: ClipPreprocessing
    contents: Contents
    max_pixels: int = MAX_PIXELS
    decode: bool = True

    def __call__(self, row: Row) -> Tensor | bytes | None:
        """Pixels to embed, uint8 (3×s×s), or data yet to decode, where the content is new; else ``row`` is settled."""
        known, row.known = row.known, None
        try:
            data = self.inputs[row.source].read(row.path, row.offset, row.bytes)
            row.bytes, row.sha256 = len(data), sha256_bytes(data)
            if known is not None and known.ok and known.sha256 == row.sha256:
                row.known = known
            else:
                row.known = self.contents.by_content(row.sha256)
            if row.known is not None:
                return None
            if not self.decode:
                return data
            decoded = decode_for_clip(data, self.preprocessing, self.max_pixels)
        except ImageError as error:
            row.fail(error.reason)
            return None
        except MemoryError:
            row.fail("not enough memory to read it")
            return None
        row.width, row.height = decoded.width, decoded.height
        return decoded.pixels


@dataclass
class LocalEngine:
    """One process: ``workers`` threads decode, this thread runs the model one batch ahead of what it hands out."""

    clip: ClipModel
    reader: RowReader
    batch_size: int
    workers: int
    tick: Tick
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        self._encoder = BatchEncoder(self.clip)

    @property
    def processors(self) -> int:
        return usable_processors()

    @property
    def device(self) -> str:
        return str(self.clip.device)

    @property
    def notes(self) -> list[str]:
        return self._encoder.notes

    def rows(self, parts: Iterable[list[Row]]) -> Iterator[list[Row]]:
        """See :class:`Engine`. On a GPU, a batch is collected once the next is under way, so that it does not wait for
        the disk. A batch ends with its part, so that a resumed run forms the same ones."""
        under_way = 1 if self.clip.device.type == "cuda" else 0
        launched: deque[tuple[list[Row], list[Tensor], list[Row] | None]] = deque()
        batch: list[tuple[Row, Tensor | bytes]] = []
        with ThreadPoolExecutor(self.workers, thread_name_prefix="decode") as pool:
            try:
                for row, pixels, finished in self._read(parts, pool):
                    if row is not None and pixels is not None:
                        batch.append((row, pixels))
                    if finished is None and len(batch) < self.batch_size:
                        continue
                    launched.append((*self._launch(batch), finished))
                    self.tick(len(batch))
                    batch = []
                    while len(launched) > under_way:
                        yield from self._collect(*launched.popleft())
                while launched:
                    yield from self._collect(*launched.popleft())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _read(
        self, parts: Iterable[list[Row]], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[Row | None, Tensor | bytes | None, list[Row] | None]]:
        """(row, pixels, None) for each row that was read, and (None, None, part) at the end of each part."""
        ahead: deque[tuple[Row | None, Future[Tensor | bytes | None] | None, list[Row] | None]] = deque()
        on_cpu = self.clip.device.type == "cpu"
        # a model on the CPU uses every core, and threads that decode meanwhile would hold up its own: they take turns
        most, left = (self.batch_size, 0) if on_cpu else (2 * self.batch_size + _LOOKAHEAD,) * 2
        for part in parts:
            self.tick(sum(not row.to_read for row in part))
            for row in part:
                if row.to_read:
                    ahead.append((row, pool.submit(self.reader, row), None))
                if len(ahead) >= most:
                    while len(ahead) >= max(left, 1):
                        yield self._settled(*ahead.popleft())
            ahead.append((None, None, part))
            while on_cpu and ahead:
                yield self._settled(*ahead.popleft())
        while ahead:
            yield self._settled(*ahead.popleft())

    def _settled(
        self, row: Row | None, future: Future[Tensor | bytes | None] | None, part: list[Row] | None
    ) -> tuple[Row | None, Tensor | bytes | None, list[Row] | None]:
        if future is None:
            return None, None, part
        began = time.monotonic()
        pixels = future.result()
        self.timing.waiting += time.monotonic() - began
        if pixels is None:
            self.tick(1)
        return row, pixels, None

    def _launch(self, batch: Sequence[tuple[Row, Tensor | bytes]]) -> tuple[list[Row], list[Tensor]]:
        """Rows that are being embedded, and their embeddings."""
        began = time.monotonic()
        decoded = [(row, image) for row, image in batch if isinstance(image, Tensor)]
        decoded += self._decode_on_device([(row, image) for row, image in batch if isinstance(image, bytes)])
        results = self._encoder.launch([pixels for _, pixels in decoded]) if decoded else []
        self.timing.model += time.monotonic() - began
        return [row for row, _ in decoded], results

    def _decode_on_device(self, batch: Sequence[tuple[Row, bytes]]) -> list[tuple[Row, Tensor]]:
        if not batch:
            return []
        from pipeline.decoding.gpu_decode import decode_batch

        reader = self.reader
        images = decode_batch([data for _, data in batch], reader.preprocessing, self.clip.device, reader.max_pixels)
        decoded = []
        for (row, _), image in zip(batch, images, strict=True):
            if isinstance(image, ImageError):
                row.fail(image.reason)
            else:
                row.width, row.height = image.width, image.height
                decoded.append((row, image.pixels))
        return decoded

    def _collect(
        self, rows: Sequence[Row], results: Sequence[Tensor], finished: list[Row] | None
    ) -> Iterator[list[Row]]:
        """Fill in the embeddings of a batch; the part that ended with it."""
        if rows:
            began = time.monotonic()
            fill(rows, torch.cat(list(results)).cpu().numpy())
            self.timing.model += time.monotonic() - began
        if finished is not None:
            yield finished


def fill(rows: Sequence[Row], embeddings: np.ndarray) -> None:
    """Give rows their embeddings, float32 (n×k); one that is not finite is a failure."""
    for row, embedding in zip(rows, embeddings, strict=True):
        if np.isfinite(embedding).all():
            row.embedding, row.status = embedding, "ok"
        else:
            row.fail("its embedding is not finite")
