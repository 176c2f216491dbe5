"""The index gives exact neighbours, and is rebuilt whenever it does not fit the store."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanit.errors import LanitError
from pipeline.embed import embed
from pipeline.index import build_index, index_state, nearest, open_index
from pipeline.store import Store


@pytest.fixture
def folder(make_images: Callable[..., Path]) -> Path:
    return make_images(11)


@pytest.fixture
def store(folder: Path, tiny_clip: Any, tmp_path: Path) -> Store:
    assert embed(folder, tmp_path / "store", tiny_clip, part_rows=4).index == "built"
    return Store.open(tmp_path / "store")


def test_neighbours_are_those_of_the_embeddings(store: Store) -> None:
    assert index_state(store) == "current"
    embeddings = store.embeddings()
    scores, rows = nearest(open_index(store), embeddings, 3)
    cosines = embeddings @ embeddings.T
    np.testing.assert_allclose(scores, np.sort(cosines, axis=1)[:, ::-1][:, :3], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(cosines, rows, axis=1), scores, atol=1e-5)
    assert nearest(open_index(store), embeddings[:1], 20)[1][0, 11:].tolist() == [-1] * 9


def test_rebuilt_to_the_same_bytes_when_deleted_or_damaged(store: Store) -> None:
    path = store.root / "index" / "embeddings.faiss"
    before = path.read_bytes()
    path.unlink()
    assert index_state(store) == "missing"
    assert open_index(store).ntotal == 11
    path.write_bytes(before[:-4] + b"oops")
    assert index_state(store) == "stale"
    assert open_index(store).ntotal == 11
    assert path.read_bytes() == before
    (store.root / "index" / "index.json").write_text("{")
    assert index_state(store) == "stale"
    build_index(store)
    assert index_state(store) == "current"


def test_stale_after_the_images_changed(store: Store, folder: Path, tiny_clip: Any, monkeypatch: Any) -> None:
    (folder / "a" / "001.png").unlink()
    monkeypatch.setattr("pipeline.embed.build_index", lambda store: None)
    embed(folder, store.root, tiny_clip, part_rows=4)
    changed = Store.open(store.root)
    assert index_state(changed) == "stale"
    assert open_index(changed).ntotal == 10
    assert index_state(changed) == "current"


def test_without_faiss_the_store_is_still_written(
    folder: Path, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    report = embed(folder, tmp_path / "bare", tiny_clip)
    assert (report.ok, report.index) == (11, "skipped")
    assert any("pip install faiss-cpu" in warning for warning in report.warnings)
    with pytest.raises(LanitError, match="faiss is not installed"):
        open_index(Store.open(tmp_path / "bare"))
