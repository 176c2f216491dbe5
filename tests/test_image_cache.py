"""Images at training size come from a cache that is built once, goes on after an interruption, and has a limit."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lanit.errors import LanitError
from pipeline.decoding.limits import ChangedImage
from pipeline.decoding.squares import fit_square
from pipeline.embedding.embed import embed
from pipeline.store import image_cache
from pipeline.store.image_cache import CachedImages, DrawnImages, open_sized_images
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
    path = store.root / "cache" / name
    built = path.read_bytes()
    path.unlink()
    monkeypatch.setattr(image_cache, "_CHUNK", 2)
    decoded: list[int] = []
    real = image_cache._square_or_error
    monkeypatch.setattr(
        image_cache, "_square_or_error", lambda images, row, size: (decoded.append(row), real(images, row, size))[1]
    )

    def interrupt(done: int, total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_sized_images(store, 32, 1.0, interrupt)
    assert name not in files(store)
    partial = path.with_suffix(".partial")
    torn = bytearray(partial.read_bytes()[:-10])  # row 5 is cut short, and row 4 never reached the disk
    torn[-4000:-3000] = bytes(1000)
    partial.write_bytes(torn)
    decoded.clear()
    assert np.array_equal(open_sized_images(store, 32, 1.0).take(np.arange(COUNT)), whole)
    assert sorted(decoded) == list(range(4, COUNT)), "the four rows that are whole are not decoded again"
    assert files(store) == [name]
    assert path.read_bytes() == built
    decoded.clear()
    open_sized_images(store, 32, 1.0).take(np.arange(COUNT))
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
        assert caught.value.hint == f"Run: lanit embed {tmp_path / 'images'} --store {store.root}"


def test_images_that_changed_are_refused_until_they_are_embedded_again(
    store: Store, tmp_path: Path, tiny_clip: Any
) -> None:
    images = StoreImages(store)
    paths = [Path(images.name(row)) for row in (2, 3, 9)]
    for path in paths:
        Image.new("RGB", (30, 30), "red").save(path)
    with pytest.raises(LanitError, match=rf"3 stored images, .*{paths[0].name}: it has changed since") as caught:
        open_sized_images(store, 32, 1.0)
    assert files(store) == [name for name in files(store) if name.endswith(".partial")], "no cache was made of them"
    with pytest.raises(LanitError, match=paths[2].name):
        open_sized_images(store, 32, 0.0).take(np.array([9]))
    _, embed_, *arguments = shlex.split(caught.value.hint.removeprefix("Run: "))
    assert (embed_, arguments) == ("embed", [str(tmp_path / "images"), "--store", str(store.root)])
    embed([arguments[0]], Path(arguments[2]), tiny_clip)
    squares = open_sized_images(Store.open(store.root), 32, 1.0).take(np.array([2, 0]))
    assert (squares[0] == np.array([255, 0, 0], np.uint8)[:, None, None]).all()
    assert squares[1].std() > 10


def test_an_image_whose_size_and_time_hide_its_change_is_named_with_what_helps(store: Store, tiny_clip: Any) -> None:
    path = Path(StoreImages(store).name(4))
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(LanitError, match=f"{path.name}: it has changed") as caught:
        open_sized_images(store, 32, 1.0)
    touch, embed_ = caught.value.hint.removeprefix("Run: ").split(" && ")
    assert shlex.split(touch) == ["touch", str(path)]
    assert shlex.split(embed_)[:2] == ["lanit", "embed"]
    embed([shlex.split(embed_)[2]], store.root, tiny_clip)
    with pytest.raises(ChangedImage):
        StoreImages(Store.open(store.root)).read(4)
    path.touch()
    embed([shlex.split(embed_)[2]], store.root, tiny_clip)
    found = StoreImages(Store.open(store.root))
    assert all(found.read(row) for row in range(len(found)))


def test_what_was_decoded_before_an_image_changed_stands_for_what_was_embedded(store: Store) -> None:
    before = open_sized_images(store, 32, 1.0).take(np.arange(COUNT))
    for row in range(COUNT):
        Image.new("RGB", (30, 30), "red").save(StoreImages(store).name(row))
    np.testing.assert_array_equal(open_sized_images(store, 32, 1.0).take(np.arange(COUNT)), before)


def test_an_image_that_embed_let_in_is_read_whatever_its_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    images = StoreImages(store)
    height, width = images.decode(7).shape[:2]
    monkeypatch.setattr("pipeline.store.store_images.MAX_PIXELS", 100)
    assert images._max_pixels(7) == width * height > 100
    assert images.decode(7).shape == (height, width, 3)


def test_a_damaged_cache_is_built_again_to_the_same_bytes(store: Store, make_images: Any, tiny_clip: Any) -> None:
    whole = open_sized_images(store, 32, 1.0).take(np.arange(COUNT))
    path = store.root / "cache" / files(store)[0]
    built = path.read_bytes()
    embed([make_images(COUNT, "others", 5)], store.root.parent / "other", tiny_clip)
    open_sized_images(Store.open(store.root.parent / "other"), 32, 1.0)
    [foreign] = (store.root.parent / "other" / "cache").iterdir()
    as_before = store.root.parent / "as-before.npy"
    np.save(as_before, whole)  # the layout of older caches, under the same name
    first = bytearray(built)
    first[200] ^= 1
    for damaged in (built[:5000], built + b"0", b"", first, foreign.read_bytes(), as_before.read_bytes()):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(open_sized_images(store, 32, 1.0).take(np.arange(COUNT)), whole)
        assert path.read_bytes() == built
    assert files(store) == [path.name]


def test_a_damaged_row_of_a_cache_is_decoded_again_and_put_back(store: Store) -> None:
    whole = open_sized_images(store, 32, 1.0).take(np.arange(COUNT))
    path = store.root / "cache" / files(store)[0]
    built = path.read_bytes()
    row = (len(built) - len(whole) * (3 * 32 * 32 + 4)) + 6 * (3 * 32 * 32 + 4)
    swapped = built[:row] + built[row + 3076 : row + 2 * 3076] + built[row : row + 3076] + built[row + 2 * 3076 :]
    for damaged in (built[: row + 1000] + bytes(8) + built[row + 1008 :], swapped):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(
            open_sized_images(store, 32, 1.0).take(np.array([6, 5, 7, 6])), whole[[6, 5, 7, 6]]
        )
        assert path.read_bytes() == built


def test_caches_of_other_images_go_and_files_of_the_user_stay(store: Store) -> None:
    folder = store.root / "cache"
    folder.mkdir()
    users = ("images-32-holiday.npy", "images-32-00000000000000aa.npy", "images-32-x.json", "images-32-notes.partial")
    for name in users:
        (folder / name).write_bytes(b"a user's own")
    np.save(folder / "images-32-00000000000000bb.npy", np.zeros((5, 32, 32, 3), np.uint8))
    np.save(folder / "images-64-00000000000000cc.npy", np.zeros((5, 3, 64, 64), np.uint8))
    stay = {*users, "images-32-00000000000000bb.npy", "images-64-00000000000000cc.npy"}
    np.save(folder / "images-32-0123456789abcdef.npy", np.zeros((5, 3, 32, 32), np.uint8))
    (folder / "images-32-0123456789abcdef.npy").rename(folder / "images-32-0123456789abcdef.partial")
    np.save(folder / "images-32-0123456789abcdef.npy", np.zeros((5, 3 * 32 * 32 + 4), np.uint8))
    (folder / "images-32-0123456789abcdef.json").write_text('{\n  "done": 4096\n}\n')
    open_sized_images(store, 32, 1.0)
    assert {name for name in files(store) if name in stay} == stay
    assert len(files(store)) == len(stay) + 1


def test_in_a_store_that_cannot_be_written_images_are_drawn(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    remarks: list[str] = []
    found = open_sized_images(store, 32, 1.0, tell=remarks.append)
    assert isinstance(found, DrawnImages)
    assert len(remarks) == 1
    assert "cannot be written" in remarks[0]
