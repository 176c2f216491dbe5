"""The FAISS index of the embeddings: a cache that is rebuilt whenever it does not fit; Parquet is the truth."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lanit.errors import LanitError
from pipeline.files import atomic_path, read_json, sha256_file, write_json
from pipeline.schemas import SCHEMA_VERSION
from pipeline.store import Store

INDEX_NAME = "index/embeddings.faiss"
INDEX_META_NAME = "index/index.json"

IndexState = Literal["current", "missing", "stale"]


def build_index(store: Store) -> Any:
    """Write a flat inner-product index (cosine, since embeddings have unit norm) and return it.

    Row i of the index is row i of :meth:`pipeline.store.Store.embeddings`.
    Raises LanitError where faiss is not installed.
    """
    faiss = _faiss()
    index = faiss.IndexFlatIP(store.embedding_dim)
    for block in store.embedding_parts():
        index.add(np.ascontiguousarray(block))
    path = store.root / INDEX_NAME
    with atomic_path(path) as temporary:
        faiss.write_index(index, str(temporary))
    write_json(store.root / INDEX_META_NAME, _meta(store, path))
    return index


def index_state(store: Store) -> IndexState:
    """Whether the index on disk is that of the embeddings on disk. Reads the file of the index, not the embeddings."""
    path, meta_path = store.root / INDEX_NAME, store.root / INDEX_META_NAME
    if not path.is_file() or not meta_path.is_file():
        return "missing"
    try:
        return "current" if read_json(meta_path) == _meta(store, path) else "stale"
    except LanitError:
        return "stale"


def open_index(store: Store) -> Any:
    """The index, read from disk where it is current, else built again."""
    faiss = _faiss()
    if index_state(store) != "current":
        return build_index(store)
    return faiss.read_index(str(store.root / INDEX_NAME))


def nearest(index: Any, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines, float32 (Q×count), highest first, and rows, int64 (Q×count), of unit-norm queries, float32 (Q×k).

    Where the index has fewer than ``count`` rows, the rest of each row has the number −1.
    """
    scores, rows = index.search(np.ascontiguousarray(queries, np.float32), count)
    return scores, rows


def _meta(store: Store, path: Path) -> dict[str, Any]:
    """What the index was made from: parts are named by their content, so their names stand for the embeddings."""
    parts = "\n".join(part.file for part in store.manifest.parts)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "flat inner product",
        "rows": store.ok,
        "embedding_dim": store.embedding_dim,
        "fingerprint": store.fingerprint.to_json(),
        "parts_sha256": hashlib.sha256(parts.encode()).hexdigest(),
        "file_sha256": sha256_file(path),
    }


def _faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise LanitError("faiss is not installed", "Run: pip install faiss-cpu") from error
