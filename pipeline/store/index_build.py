"""Files of FAISS indexes, written in a stream: for a flat index in memory that does not grow with the rows, for an
inverted one in four bytes a row beside what k-means needs.

FAISS itself holds an index in memory before it writes it. A flat file is a header and the vectors, an inverted one a
header, the sizes of its lists, and each list; both are written here as FAISS would write them. What FAISS writes of a
small index is compared first, and where a release should differ, the index is built in its memory after all.
"""

from __future__ import annotations

import functools
import importlib
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np

from lanit.errors import LanitError, UsageError

Kind = Literal["flat", "ivf", "pq"]
Request = Literal["auto", "flat", "ivf", "pq"]
Blocks = Callable[[], Iterator[np.ndarray]]
"""Gives the embeddings anew at each call, float32 (n_block×k), block by block in store order."""

FLAT_ROWS = 1_000_000  # up to here every row is compared, above only the rows of some lists
_LISTS = 4  # times the square root of the rows, as autofaiss and FAISS's guidelines have it
_TRAIN_MIN, _TRAIN_MAX = 39, 256  # points of k-means for each list: fewer give poor lists, more are not used by FAISS
_TRAIN = 64  # points that we take: a quarter of the memory and time of the most
_PROBES = 512  # lists looked through for a query, but no more than an eighth of them; recorded in the file
_PQ_BITS = 8
_PQ_ROWS = _TRAIN_MIN << _PQ_BITS
_PQ_DIMENSIONS = 4  # for each byte of a code
_BLOCK_ROWS = 32_768  # assigned to lists and written at once
_SEED = 0


@dataclass(frozen=True)
class Plan:
    """What index to build of rows×dim embeddings. lists, probes: of an inverted file, else 0. train_rows: rows that
    k-means sees. code_bytes: of one row."""

    kind: Kind
    rows: int
    dim: int
    lists: int
    probes: int
    train_rows: int
    code_bytes: int


def plan_index(request: Request, rows: int, dim: int) -> Plan:
    """The index that ``request`` means for so many rows: ``auto`` is ``flat`` to a million rows, ``ivf`` above.

    Raises UsageError for another word, and for ``pq`` where there are too few rows to learn its codes from.
    """
    if request not in get_args(Request):
        raise UsageError(f"there is no index '{request}'", f"Choose one of {', '.join(get_args(Request))}.")
    kind: Kind = ("flat" if rows <= FLAT_ROWS else "ivf") if request == "auto" else request
    if kind == "flat":
        return Plan(kind, rows, dim, 0, 0, 0, 4 * dim)
    if kind == "pq" and rows < _PQ_ROWS:
        message = f"an index of codes is learned from at least {_PQ_ROWS:,} images; there are {rows:,}"
        raise UsageError(message, "Run: lanit index --kind flat")
    lists = max(1, min(round(_LISTS * math.sqrt(rows)), rows // _TRAIN_MIN))
    train_rows = min(rows, _TRAIN * lists if kind == "ivf" else max(_TRAIN * lists, _TRAIN_MAX << _PQ_BITS))
    code_bytes = 4 * dim if kind == "ivf" else pq_bytes(dim)
    return Plan(kind, rows, dim, lists, min(-(-lists // 8), _PROBES), train_rows, code_bytes)


def pq_bytes(dim: int) -> int:
    """Bytes of a code: the largest divisor of ``dim`` that leaves each byte at least four dimensions, or 1."""
    return max(count for count in range(1, dim + 1) if dim % count == 0 and dim // count >= min(dim, _PQ_DIMENSIONS))


def write_index_file(plan: Plan, blocks: Blocks, path: Path) -> None:
    """Write the index of ``blocks`` to ``path``; equal embeddings give equal bytes on one kind of machine.

    Raises LanitError where faiss is missing or the blocks do not have ``plan.rows`` rows.
    """
    faiss = load_faiss()
    if plan.kind == "flat":
        _write_flat(faiss, plan, blocks, path)
    else:
        index = _trained(faiss, plan, blocks)
        if plan.kind == "ivf" and _knows_lists(faiss):
            with path.open("wb", buffering=0) as file:
                _write_lists(index, _fast(faiss, index.quantizer), plan.rows, blocks, file)
        else:  # codes are small
            _write_from_memory(faiss, index, plan.rows, blocks, path)


def load_faiss() -> Any:
    """The module; imported only where an index is used. Raises LanitError where it is not installed."""
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise LanitError("faiss is not installed", "Run: pip install faiss-cpu") from error


def read_index_file(path: Path) -> Any:
    """Open an index, mapped into memory where faiss can, so that only what a search touches is read.

    Raises RuntimeError, as faiss does, where the file is damaged.
    """
    faiss = load_faiss()
    mapped = getattr(faiss, "IO_FLAG_MMAP_IFC", getattr(faiss, "IO_FLAG_MMAP", 0))  # older: inverted lists only
    try:
        return faiss.read_index(str(path), mapped)
    except RuntimeError:  # so it is on systems that cannot
        return faiss.read_index(str(path))


def _write_flat(faiss: Any, plan: Plan, blocks: Blocks, path: Path) -> None:
    header = _flat_header(faiss, plan.dim, plan.rows)
    if header is None:
        _write_from_memory(faiss, faiss.IndexFlatIP(plan.dim), plan.rows, blocks, path)
        return
    with path.open("wb") as file:
        file.write(header)
        for _, block in _checked(blocks(), plan.rows):
            file.write(np.ascontiguousarray(block, np.float32).tobytes())


def _flat_header(faiss: Any, dim: int, rows: int) -> bytes | None:
    """What comes before the vectors: FAISS's own header of an empty index with the counts filled in, if it works so."""

    def header(count: int) -> bytes:
        return _counted(empty, count)[:-8] + (count * dim).to_bytes(8, "little")

    empty = faiss.serialize_index(faiss.IndexFlatIP(dim)).tobytes()
    index = faiss.IndexFlatIP(dim)
    vectors = np.arange(3 * dim, dtype=np.float32).reshape(3, dim)
    index.add(vectors)
    return header(rows) if header(3) + vectors.tobytes() == faiss.serialize_index(index).tobytes() else None


def _counted(header: bytes, rows: int) -> bytes:
    """``header`` with the number of vectors of its index; it stands behind the kind and the dimension."""
    return header[:8] + rows.to_bytes(8, "little") + header[16:]


def _trained(faiss: Any, plan: Plan, blocks: Blocks) -> Any:
    """An empty inverted index whose lists, and codes where it has some, are learned from a seeded sample of rows."""
    quantizer = faiss.IndexFlatIP(plan.dim)
    metric = faiss.METRIC_INNER_PRODUCT
    if plan.kind == "pq":
        index = faiss.IndexIVFPQ(quantizer, plan.dim, plan.lists, plan.code_bytes, _PQ_BITS, metric)
    else:
        index = faiss.IndexIVFFlat(quantizer, plan.dim, plan.lists, metric)
    index.nprobe = plan.probes
    index.cp.seed, index.cp.spherical = _SEED, True
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _TRAIN_MAX  # the plan keeps to the least
    if faiss.get_num_gpus():
        index.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(plan.dim))
    index.train(_sample(blocks, plan))
    return index


def _sample(blocks: Blocks, plan: Plan) -> np.ndarray:
    """``plan.train_rows`` different rows, float32, in store order."""
    rng = np.random.default_rng(_SEED)
    chosen = np.sort(rng.choice(plan.rows, plan.train_rows, replace=False))
    out = np.empty((plan.train_rows, plan.dim), np.float32)
    for start, block in _checked(blocks(), plan.rows):
        first, last = np.searchsorted(chosen, (start, start + len(block)))
        out[first:last] = block[chosen[first:last] - start]
    return out


def _write_lists(index: Any, quantizer: Any, rows: int, blocks: Blocks, file: BinaryIO) -> None:
    """Write the trained, empty inverted index ``index`` as if the rows of ``blocks`` had been added to it.

    quantizer: that of the index, perhaps on a GPU. Two passes: one finds each row's list, one writes each row there.
    """
    lists = np.empty(rows, np.int32)
    for start, block in _checked(_regrouped(blocks()), rows):
        lists[start : start + len(block)] = quantizer.assign(block, 1).ravel()
    sizes = np.bincount(lists, minlength=index.nlist)
    header = _lists_header(index, sizes)
    file.write(header)
    width = index.code_size
    ends = len(header) + np.cumsum(sizes * (width + 8))
    codes = ends - sizes * (width + 8)  # where the next row of each list goes; its number goes behind the list's rows
    numbers = ends - sizes * 8
    for start, block in _checked(_regrouped(blocks()), rows):
        order = np.argsort(lists[start : start + len(block)], kind="stable")
        own = lists[start : start + len(block)][order]
        present, firsts, counts = np.unique(own, return_index=True, return_counts=True)
        for one, first, count in zip(present.tolist(), firsts.tolist(), counts.tolist(), strict=True):
            chosen = order[first : first + count]
            file.seek(codes[one])
            codes[one] += file.write(block[chosen].tobytes())
            file.seek(numbers[one])
            numbers[one] += file.write((start + chosen).astype(np.int64).tobytes())


def _lists_header(index: Any, sizes: np.ndarray) -> bytes:
    """All that FAISS writes before the rows of an inverted index whose lists have ``sizes`` rows."""
    empty = load_faiss().serialize_index(index).tobytes()
    head = _counted(empty[: empty.rindex(b"ilar")], int(sizes.sum()))
    filled = np.flatnonzero(sizes)
    if len(filled) > len(sizes) // 2:
        table, kind = sizes, b"full"
    else:
        table, kind = np.stack([filled, sizes[filled]], axis=1), b"sprs"
    entries = np.array([len(sizes), index.code_size], np.uint64).tobytes()
    return head + b"ilar" + entries + kind + table.size.to_bytes(8, "little") + table.astype(np.uint64).tobytes()


def _knows_lists(faiss: Any) -> bool:
    """Whether :func:`_write_lists` writes what this release of FAISS would, for few and for many filled lists."""
    centres = np.eye(6, dtype=np.float32)
    for vectors in (centres[[1, 1, 4]], centres[[5, 3, 0, 0, 2]]):
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(6), 6, 6, faiss.METRIC_INNER_PRODUCT)
        index.quantizer.add(centres)
        index.is_trained = True
        written = io.BytesIO()
        _write_lists(index, index.quantizer, len(vectors), functools.partial(_one, vectors), written)
        index.add(vectors)
        if written.getvalue() != faiss.serialize_index(index).tobytes():
            return False
    return True


def _one(block: np.ndarray) -> Iterator[np.ndarray]:
    yield block


def _write_from_memory(faiss: Any, index: Any, rows: int, blocks: Blocks, path: Path) -> None:
    for _, block in _checked(blocks(), rows):
        index.add(np.ascontiguousarray(block, np.float32))
    faiss.write_index(index, str(path))


def _fast(faiss: Any, index: Any) -> Any:
    return faiss.index_cpu_to_all_gpus(index) if faiss.get_num_gpus() else index


def _checked(blocks: Iterator[np.ndarray], rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """Each block with the number of its first row. Raises LanitError where they have another number of rows in all."""
    start = 0
    for block in blocks:
        if start + len(block) <= rows:
            yield start, block
        start += len(block)
    if start != rows:
        hint = "Run: lanit embed DIR --overwrite"
        raise LanitError(f"the store counts {rows:,} embeddings but holds {start:,}", hint)


def _regrouped(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same rows in blocks of at least ``_BLOCK_ROWS``, float32, C-contiguous."""
    waiting: list[np.ndarray] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= _BLOCK_ROWS:
            yield np.concatenate(waiting).astype(np.float32, copy=False)
            waiting = []
    if waiting:
        yield np.concatenate(waiting).astype(np.float32, copy=False)
