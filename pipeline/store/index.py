"""The FAISS index of the embeddings: a cache that is rebuilt whenever it does not fit; Parquet is the truth."""

from __future__ import annotations

import contextlib
import hashlib
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lanit.errors import LanitError
from pipeline.files import (
    LOCK_NAME,
    atomic_path,
    exclusive_lock,
    is_unwritable,
    read_json,
    sealed,
    sweep_folder,
    write_json,
)
from pipeline.showing.volume import LOGGER
from pipeline.store.caches import scratch_folder
from pipeline.store.index_build import Kind, Plan, Request, load_faiss, plan_index, read_index_file, write_index_file
from pipeline.store.schemas import SCHEMA_VERSION
from pipeline.store.store import Store

INDEX_NAME = "index/embeddings.faiss"
INDEX_META_NAME = "index/index.json"

IndexState = Literal["current", "missing", "stale"]
Tell = Callable[[str], None]

_LARGE_BYTES = 4 << 30  # a file beyond this is compared in pieces
_PIECES, _PIECE_BYTES = 64, 1 << 14
_BLOCK_BYTES = 1 << 24
_PATIENCE = 3600.0  # for another process that is building the index


@dataclass(frozen=True)
class IndexReport:
    """What ``lanit index`` did. kind: flat compares every row; ivf the rows of ``probes`` of its ``lists``; pq the
    codes of those. built: false where the index on disk was already this one. bytes: of the file."""

    store: str
    kind: Kind
    built: bool
    rows: int
    embedding_dim: int
    lists: int
    probes: int
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def build_index(store: Store, request: Request | None = None, tell: Tell | None = None) -> Any:
    """Write an inner-product index (cosine, since embeddings have unit norm), and open it.

    request: which kind; as the index on disk was requested where none is named, and ``auto`` where there is none:
    every row compared up to a million, inverted lists above. Row i of the index is row i of
    :meth:`pipeline.store.store.Store.embeddings`. The memory it takes does not grow with the rows of a flat index.
    tell: called with a remark before the work begins. Raises LanitError where faiss is not installed or the disk
    refuses; UsageError where the kind does not fit.
    """
    load_faiss()
    wanted = request or _requested(store)
    path = store.root / INDEX_NAME
    busy = LanitError(f"another process is writing into {path.parent}", "Wait for it to end.")
    lock = path.with_name(LOCK_NAME)
    with exclusive_lock(lock, busy, _PATIENCE):
        try:
            sweep_folder(path.parent)
            if tell is not None:
                tell("building the index: once, for this and later searches")
            with atomic_path(path) as temporary:
                write_index_file(plan_index(wanted, store.ok, store.embedding_dim), store.embedding_parts, temporary)
                meta = _meta(store, wanted, temporary)
            write_json(store.root / INDEX_META_NAME, sealed(meta))
            LOGGER.info("index built: %s", path)
            return _opened(store, path)
        finally:
            with contextlib.suppress(OSError):
                lock.unlink(missing_ok=True)


def index_state(store: Store) -> IndexState:
    """Whether the index on disk is that of the embeddings on disk.

    Parts are named by their content, so their names stand for the embeddings. The file of the index is compared with
    its checksums, as a whole up to 4 GiB, which takes about as long as one search.
    """
    path, meta_path = store.root / INDEX_NAME, store.root / INDEX_META_NAME
    if not path.is_file() or not meta_path.is_file():
        return "missing"
    try:
        return "current" if read_json(meta_path) == _meta(store, _requested(store), path) else "stale"
    except LanitError:  # the kind that was requested no longer fits, or the file went away
        return "stale"


def open_index(store: Store, tell: Tell | None = None) -> Any:
    """The index, mapped from disk where it is current, else built again: where the store cannot be written, among the
    system's temporary files.

    tell: called with a remark before one is built. Raises LanitError as :func:`build_index` does.
    """
    load_faiss()
    if index_state(store) == "current":
        with contextlib.suppress(RuntimeError, LanitError):  # else of a faiss that this one does not understand
            return _opened(store, store.root / INDEX_NAME)
    try:
        return build_index(store, None, tell)
    except LanitError as error:
        if not is_unwritable(error):
            raise
    if tell is not None:
        tell(f"the store {store.root} cannot be written: building an index for this time only")
    with scratch_folder(store, "index") as folder:
        path = folder / "embeddings.faiss"
        write_index_file(plan_index(_requested(store), store.ok, store.embedding_dim), store.embedding_parts, path)
        return _opened(store, path)


def index_kind(store: Store) -> Kind:
    """Of the index that :func:`open_index` gives."""
    return plan_index(_requested(store), store.ok, store.embedding_dim).kind


def rebuild_index(store: Store, request: Request) -> IndexReport:
    """Make the index on disk one of the kind ``request``, and keep to it from now on.

    Raises LanitError as :func:`build_index` does.
    """
    started = time.monotonic()
    current = index_state(store) == "current" and _requested(store) == request
    if not current:
        build_index(store, request)
    plan = plan_index(request, store.ok, store.embedding_dim)
    return IndexReport(
        store=str(store.root),
        kind=plan.kind,
        built=not current,
        rows=plan.rows,
        embedding_dim=plan.dim,
        lists=plan.lists,
        probes=plan.probes,
        bytes=(store.root / INDEX_NAME).stat().st_size,
        seconds=time.monotonic() - started,
    )


def nearest(
    index: Any, queries: np.ndarray, count: int, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines, float32 (Q×count), highest first, and rows, int64 (Q×count), of unit-norm queries, float32 (Q×k).

    among: bool (n), rows that may be found; all, where left out.
    Where the index finds fewer than ``count`` rows, the rest of each row has the number −1.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    if among is None:
        scores, rows = index.search(queries, count)
        return scores, rows
    faiss = load_faiss()
    bits = np.packbits(among, bitorder="little")
    selector = faiss.IDSelectorBitmap(len(among), faiss.swig_ptr(bits))
    inverted = isinstance(index, faiss.IndexIVF)
    if inverted:  # the rows wanted may be few in each list: look through all
        chosen = faiss.SearchParametersIVF(sel=selector, nprobe=index.nlist)
    else:
        chosen = faiss.SearchParameters(sel=selector)
    scores, rows = index.search(queries, count, params=chosen)
    return scores, rows


def is_approximate(index: Any) -> bool:
    """Whether the cosines that the index gives are those of codes, not of the embeddings."""
    return hasattr(index, "pq")


def _requested(store: Store) -> Request:
    """What the index on disk was asked to be; it stays so as the store grows."""
    try:
        found: Request = read_json(store.root / INDEX_META_NAME)["requested"]
        plan_index(found, store.ok, store.embedding_dim)
    except (LanitError, KeyError, TypeError):
        return "auto"
    return found


def _meta(store: Store, request: Request, path: Path) -> dict[str, Any]:
    plan: Plan = plan_index(request, store.ok, store.embedding_dim)
    parts = "\n".join(part.file for part in store.manifest.parts)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": plan.kind,
        "requested": request,
        "rows": plan.rows,
        "embedding_dim": plan.dim,
        "lists": plan.lists,
        "probes": plan.probes,
        "fingerprint": store.fingerprint.to_json(),
        "parts_sha256": hashlib.sha256(parts.encode()).hexdigest(),
        "file_bytes": _size(path),
        "checksums_sha256": _checksums_sha256(path),
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise LanitError(f"cannot read {path}: {error.strerror or error}", "Run: lanit index") from error


def _checksums_sha256(path: Path) -> str:
    """Digest of the CRC-32 of each block of the file; of a large one, of pieces spread evenly over it, its first and
    last bytes among them."""
    size, block = _size(path), _BLOCK_BYTES
    starts = list(range(0, size, block))
    if size > _LARGE_BYTES:
        block = _PIECE_BYTES
        starts = [(size - block) * number // (_PIECES - 1) for number in range(_PIECES)]
    try:
        mapped = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    except OSError as error:
        raise LanitError(f"cannot read {path}: {error.strerror or error}", "Run: lanit index") from error
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda start: zlib.crc32(mapped[start : start + block].data), starts)
        return hashlib.sha256(np.fromiter(found, "<u4").tobytes()).hexdigest()


def _opened(store: Store, path: Path) -> Any:
    """Raises RuntimeError as faiss does, and LanitError where the file holds another number of rows."""
    index = read_index_file(path)
    _check_counts(store, index)
    return index


def _check_counts(store: Store, index: Any) -> None:
    if (index.ntotal, index.d) != (store.ok, store.embedding_dim):
        sizes = f"{index.ntotal:,}×{index.d} numbers, the store {store.ok:,}×{store.embedding_dim}"
        raise LanitError(f"the index has {sizes}", "Run: lanit index")
