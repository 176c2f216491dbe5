"""The FAISS index of the embeddings: a cache that is rebuilt whenever it does not fit; Parquet is the truth."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lanit.errors import LanitError
from pipeline.files import atomic_path, read_json, write_json
from pipeline.store.index_build import Kind, Plan, Request, load_faiss, plan_index, read_index_file, write_index_file
from pipeline.store.schemas import SCHEMA_VERSION
from pipeline.store.store import Store

INDEX_NAME = "index/embeddings.faiss"
INDEX_META_NAME = "index/index.json"

IndexState = Literal["current", "missing", "stale"]

_PIECES, _PIECE_BYTES = 64, 1 << 14  # of the file, spread over it, whose digest is recorded


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


def build_index(store: Store, request: Request | None = None) -> Any:
    """Write an inner-product index (cosine, since embeddings have unit norm), and open it.

    request: which kind; as the index on disk was requested where none is named, and ``auto`` where there is none:
    every row compared up to a million, inverted lists above. Row i of the index is row i of
    :meth:`pipeline.store.store.Store.embeddings`. The memory it takes does not grow with the rows of a flat index.
    Raises LanitError where faiss is not installed or the disk refuses; UsageError where the kind does not fit.
    """
    load_faiss()
    wanted = request or _requested(store)
    path = store.root / INDEX_NAME
    with atomic_path(path) as temporary:
        write_index_file(plan_index(wanted, store.ok, store.embedding_dim), store.embedding_parts, temporary)
    write_json(store.root / INDEX_META_NAME, _meta(store, wanted, path))
    index = read_index_file(path)
    _check_counts(store, index)
    return index


def index_state(store: Store) -> IndexState:
    """Whether the index on disk is that of the embeddings on disk.

    Parts are named by their content, so their names stand for the embeddings; of the index file the size and a few
    pieces are compared, so that the answer takes no longer for a large one.
    """
    path, meta_path = store.root / INDEX_NAME, store.root / INDEX_META_NAME
    if not path.is_file() or not meta_path.is_file():
        return "missing"
    try:
        return "current" if read_json(meta_path) == _meta(store, _requested(store), path) else "stale"
    except LanitError:  # the kind that was requested no longer fits, or the file went away
        return "stale"


def open_index(store: Store) -> Any:
    """The index, mapped from disk where it is current, else built again.

    Raises LanitError as :func:`build_index` does.
    """
    load_faiss()
    if index_state(store) == "current":
        try:
            index = read_index_file(store.root / INDEX_NAME)
            _check_counts(store, index)
            return index
        except (RuntimeError, LanitError):  # damaged between the pieces compared: built again
            pass
    return build_index(store)


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
        "pieces_sha256": _pieces_sha256(path),
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise LanitError(f"cannot read {path}: {error.strerror or error}", "Run: lanit index") from error


def _pieces_sha256(path: Path) -> str:
    """Digest of pieces spread evenly over the file, its first and last bytes among them; of all of a small file."""
    size, digest = _size(path), hashlib.sha256()
    try:
        with path.open("rb") as file:
            for number in range(_PIECES):
                file.seek(max(0, size - _PIECE_BYTES) * number // (_PIECES - 1))
                digest.update(file.read(_PIECE_BYTES))
    except OSError as error:
        raise LanitError(f"cannot read {path}: {error.strerror or error}", "Run: lanit index") from error
    return digest.hexdigest()


def _check_counts(store: Store, index: Any) -> None:
    if (index.ntotal, index.d) != (store.ok, store.embedding_dim):
        sizes = f"{index.ntotal:,}×{index.d} numbers, the store {store.ok:,}×{store.embedding_dim}"
        raise LanitError(f"the index has {sizes}", "Run: lanit index")
