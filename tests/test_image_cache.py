"""Images at training size come from a cache that is built once, goes on after an interruption, and has a limit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lanit.errors import LanitError
from pipeline.embedding.embed import embed
from pipeline.store import image_cache
from pipeline.store.image_cache import CachedImages, DrawnImages, fit_square, open_sized_images
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages

COUNT = 11


@pytest.fixture
def store(make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path) -> Store:
    embed([make_images(COUNT)], tmp_path / "store", tiny_clip)
    return Store.open(tmp_path / "store")


def files(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "cache").iterdir())


def test_cached_and_drawn_images_are_the_same_and_the_limit_decides(store: Store) -> None:
    rows = np.array([3, 10, 3, 0])
    size = COUNT * 3 * 32 * 32 / 1e9
    drawn = open_sized_images(store, 32, size * 0.99)
    assert isinstance(drawn, DrawnImages)
    assert not (store.root / "cache").exists(), "nothing is written"
    cached = open_sized_images(store, 32, size)
    assert isinstance(cached, CachedImages)
    assert len(cached) == len(drawn) == COUNT
    assert np.array_equal(cached.take(rows), drawn.take(rows))
    expected = fit_square(StoreImages(store).decode(10), 32).transpose(2, 0, 1)
    assert np.array_equal(cached.take(rows)[1], expected)
    assert len(files(store)) == 1


def test_a_cache_goes_on_where_it_was_interrupted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_sized_images(store, 32, 1.0).take(np.arange(COUNT))
    name = files(store)[0]
    (store.root / "cache" / name).unlink()
    monkeypatch.setattr(image_cache, "_CHUNK", 2)
    monkeypatch.setattr(image_cache, "_FLUSHED", 2)
    decoded: list[int] = []
    real = image_cache._load
    monkeypatch.setattr(
        image_cache, "_load", lambda images, row, size: (decoded.append(row), real(images, row, size))[1]
    )

    def interrupt(done: int, total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_sized_images(store, 32, 1.0, interrupt)
    assert name not in files(store)
    decoded.clear()
    assert np.array_equal(open_sized_images(store, 32, 1.0).take(np.arange(COUNT)), whole)
    assert sorted(decoded) == list(range(4, COUNT)), "the four rows that were noted are not decoded again"
    assert files(store) == [name]
    decoded.clear()
    open_sized_images(store, 32, 1.0)
    assert decoded == []


def test_a_disk_without_room_says_what_to_do(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(LanitError, match=r"has 0\.0 GB free") as caught:
        open_sized_images(store, 32, 1.0)
    assert "cache_gb=0" in caught.value.hint
    assert not any(name.endswith((".npy", ".partial")) for name in files(store))


def test_a_file_that_is_gone_is_named(store: Store, tmp_path: Path) -> None:
    victim = StoreImages(store).name(4)
    Path(victim).unlink()
    for limit in (0.0, 1.0):
        with pytest.raises(LanitError, match=Path(victim).name) as caught:
            open_sized_images(store, 32, limit).take(np.arange(COUNT))
        assert "lanit embed" in caught.value.hint
