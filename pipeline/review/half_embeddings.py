"""The embeddings of a store in half precision, in one file of its cache: read by blocks, compared with a query in
tenths of a second for a million images, and never whole in memory."""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lanit.errors import LanitError
from pipeline.files import temporary_beside
from pipeline.store.index_build import load_faiss

if TYPE_CHECKING:
    from pipeline.store.schemas import Part
    from pipeline.store.store import Store

_WORKERS = 4
_BLOCK_ROWS = 16_384  # at least, of whole parts: fewer give the best of each block more to do than the comparing
_CHECKSUM = np.dtype("<u4")


class HalfEmbeddings:
    """Of ``store``, unit-norm float16 (n×k), made from its parts when it is first searched; ``name`` stands for these.

    Behind the rows of all blocks the file has the CRC-32 of each, compared when it is first read. Where the file cannot
    be written, each search reads the store itself. Safe in threads.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._path, self._lock = store, store.root / "cache" / f"half-{name}.bin", threading.Lock()
        self._blocks = _grouped(store.manifest.parts)
        self._starts = np.cumsum([0, *(sum(part.ok for part in block) for block in self._blocks)])
        self._width = 2 * store.embedding_dim
        self._sums = np.empty(len(self._blocks), _CHECKSUM)
        self._checked = np.zeros(len(self._blocks), bool)
        self._file: int | None = None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def prepare(self) -> None:
        """Have the file, and read it once, so that searches find it in the system's memory and its checksums compared.
        Raises LanitError where the store cannot be read, or faiss is missing."""
        with self._lock:
            self._have_file()
            if self._file is None or self._checked.all():
                return
            sizes = np.diff(self._starts) * self._width
            buffer = np.empty(sizes.max(), np.uint8)
            for n in np.flatnonzero(~self._checked).tolist():
                self._read(n, buffer[: sizes[n]])

    def _have_file(self) -> None:
        """Open the file, and make it where it is missing, damaged, or another store's."""
        if self._file is None and not self._open():
            with contextlib.suppress(LanitError):
                self._make()
                self._open()
            pa.default_memory_pool().release_unused()

    def nearest(self, query: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines, float32 (≤ count), highest first, equal ones in the order of rows, and rows, int64, of a unit-norm
        query, float32 (k). Raises LanitError as :meth:`prepare`."""
        workers = min(_WORKERS, os.cpu_count() or 1, max(len(self._blocks), 1))
        ends = np.linspace(0, len(self._blocks), workers + 1).astype(int)
        with self._lock, ThreadPoolExecutor(workers, "nearest") as pool:
            self._have_file()
            found = list(pool.map(lambda k: self._nearest(query, count, range(ends[k], ends[k + 1])), range(workers)))
        return _best(found, count)

    def _nearest(self, query: np.ndarray, count: int, blocks: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The same of some blocks, those of the file read into one buffer."""
        index, buffer = _codes(self._store.embedding_dim), np.empty(0, np.uint8)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for n in blocks:
            size = int(self._starts[n + 1] - self._starts[n]) * self._width
            buffer = buffer if len(buffer) >= size else np.empty(size, np.uint8)
            rows = self._read(n, buffer[:size]).reshape(-1, self._width)
            index.reset()
            index.add_sa_codes(rows)
            cosines, at = index.search(query[None].astype(np.float32), min(count, len(rows)))
            found = [_best([*found, (cosines[0], at[0] + self._starts[n])], count)]
        return found[0] if found else (np.empty(0, np.float32), np.empty(0, np.int64))

    def _read(self, n: int, buffer: np.ndarray) -> np.ndarray:
        """A block as bytes, out of the file, or of the store where that has another content."""
        if self._file is not None:
            whole = os.preadv(self._file, [buffer.data], int(self._starts[n]) * self._width) == len(buffer)
            if whole and (self._checked[n] or zlib.crc32(buffer.data) == self._sums[n]):
                self._checked[n] = True
                return buffer
        return self._coded(n)

    def _coded(self, n: int) -> np.ndarray:
        index = _codes(self._store.embedding_dim)
        return np.concatenate([index.sa_encode(self._store.embeddings_in(part)).ravel() for part in self._blocks[n]])

    def _open(self) -> bool:
        """Whether the file is there and has its length; its blocks are compared as they are read."""
        ends = int(self._starts[-1]) * self._width
        try:
            file = os.open(self._path, os.O_RDONLY)
        except OSError:
            return False
        if os.fstat(file).st_size != ends + self._sums.nbytes:
            os.close(file)
            return False
        self._sums = np.frombuffer(os.pread(file, self._sums.nbytes, ends), _CHECKSUM)
        self._file = file
        return True

    def _make(self) -> None:
        """It takes its name once it is whole; checksums stand in for flushing it."""
        with temporary_beside(self._path) as temporary:
            with temporary.open("wb") as file, ThreadPoolExecutor(_WORKERS, "halve") as pool:

                def put(n: int) -> int:
                    codes = self._coded(n)
                    _write(file.fileno(), codes, int(self._starts[n]) * self._width)
                    return zlib.crc32(codes.data)

                sums = np.fromiter(pool.map(put, range(len(self._blocks))), _CHECKSUM)
                _write(file.fileno(), sums, int(self._starts[-1]) * self._width)
            self._remove_others()
            temporary.replace(self._path)

    def _remove_others(self) -> None:
        """Those of parts that the store had before."""
        for other in self._path.parent.glob("half-????????????.bin"):
            with contextlib.suppress(OSError):
                other.unlink()


def _grouped(parts: Sequence[Part]) -> list[list[Part]]:
    groups: list[list[Part]] = []
    for part in parts:
        if not groups or sum(each.ok for each in groups[-1]) >= _BLOCK_ROWS:
            groups.append([])
        groups[-1].append(part)
    return groups


def _codes(dim: int) -> Any:
    """An empty index of half-precision numbers, which FAISS compares as they are."""
    faiss = load_faiss()
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def _write(file: int, values: np.ndarray, start: int) -> None:
    left = values.data.cast("B")
    while len(left):
        done = os.pwrite(file, left, start)
        left, start = left[done:], start + done


def _best(found: Sequence[tuple[np.ndarray, np.ndarray]], count: int) -> tuple[np.ndarray, np.ndarray]:
    cosines, rows = (np.concatenate(side) for side in zip(*found, strict=True))
    order = np.lexsort((rows, -cosines))[:count]
    return cosines[order], rows[order]
