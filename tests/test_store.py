"""The store commits whole files, refuses what does not fit, and keeps label revisions side by side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lanit.errors import LanitError
from lanit.rules import Rule
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.files import atomic_path, exclusive_lock, read_json, write_bytes, write_json
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.schemas import metadata_of
from pipeline.store.store import Store
from pipeline.store.store_folder import lock_store
from tests.children import CONTEXT, child
from tests.label_builders import add_labels

PROMPTS = PromptSet(("smiling", "black hair", "größe.3"), ("a face with {}.",), ("a face with.",), "test")


@pytest.fixture
def store(make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path) -> Store:
    embed([make_images(7)], tmp_path / "store", tiny_clip, EmbedOptions(part_rows=3))
    return Store.open(tmp_path / "store")


def labels_for(store: Store, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    margin = np.random.default_rng(seed).normal(size=(store.ok, len(PROMPTS.domains))).astype(np.float32)
    return margin > 0, margin, margin[:, 0] * 0.1


def add(store: Store, seed: int = 0, origin: str = "label", parent: int | None = None) -> int:
    return add_labels(store, *labels_for(store, seed), prompts=PROMPTS, origin=origin, parent=parent)


def test_revisions_round_trip_side_by_side(store: Store) -> None:
    assert store.revisions() == []
    assert add(store) == 1
    assert add(store, seed=1, origin="train:runs/a step 40", parent=1) == 2
    assert store.revisions() == [1, 2]
    for number, seed in ((1, 0), (2, 1)):
        revision = store.labels(number)
        active, margin, similarity_base = labels_for(store, seed)
        np.testing.assert_array_equal(revision.active, active)
        np.testing.assert_array_equal(revision.margin, margin)
        np.testing.assert_array_equal(revision.similarity_base, similarity_base)
        assert revision.active.dtype == bool
        assert revision.margin.dtype == revision.similarity_base.dtype == np.float32
        assert revision.prompt_set == PROMPTS
        assert list(revision.image_ids) == store.ok_images()["image_id"].to_pylist()
        assert list(revision.paths) == store.ok_images()["path"].to_pylist()
        store.check_current(revision)
    newest = store.labels()
    assert (newest.number, newest.parent, newest.origin) == (2, 1, "train:runs/a step 40")
    assert newest.rule == Rule()
    assert metadata_of(pq.read_schema(store.root / "labels" / "r0002.parquet"))["parent"] == 1


def test_saying_the_same_twice_writes_once(store: Store) -> None:
    assert add(store) == add(store) == 1
    before = (store.root / "labels" / "r0001.parquet").read_bytes()
    assert add(store, origin="train:a step 1", parent=1) == 2
    assert add(store, seed=1, origin="train:a step 2", parent=2) == 3
    assert add(store, origin="train:a step 1", parent=1) == 2, "a resumed run finds its own revision"
    assert add(store) == 4, "labelling compares the newest only: the newest is what later commands use"
    assert (store.root / "labels" / "r0001.parquet").read_bytes() == before


def test_a_revision_older_than_the_images_is_told(
    store: Store, make_images: Callable[..., Path], tiny_clip: Any
) -> None:
    add(store)
    embed([make_images(9)], store.root, tiny_clip, EmbedOptions(part_rows=3))
    changed = Store.open(store.root)
    assert not changed.is_current(changed.labels())
    with pytest.raises(LanitError, match=r"revision 1 has 7 images; .* holds 9"):
        changed.check_current(changed.labels())


def test_labels_of_another_model_are_refused(
    store: Store, make_images: Callable[..., Path], make_clip: Callable[..., Path]
) -> None:
    from pipeline.clip.models import load_clip

    add(store)
    embed([make_images(7)], store.root, load_clip(str(make_clip(seed=9))), EmbedOptions(overwrite=True))
    changed = Store.open(store.root)
    with pytest.raises(LanitError, match="revision 1 was made with custom-") as caught:
        changed.labels()
    assert "lanit label" in caught.value.hint
    assert add(changed) == 2


def test_missing_things_name_the_next_command(store: Store, tmp_path: Path) -> None:
    with pytest.raises(LanitError, match="no labels") as caught:
        store.labels()
    assert "lanit label --prompts FILE" in caught.value.hint
    add(store)
    with pytest.raises(LanitError, match="no label revision 4"):
        store.labels(4)
    with pytest.raises(LanitError, match="no store at") as caught:
        Store.open(tmp_path / "none")
    assert f"lanit embed DIR --store {tmp_path / 'none'}" in caught.value.hint


def test_check_fingerprint_names_both_models_and_the_difference(store: Store) -> None:
    store.check_fingerprint(store.fingerprint)
    other = dataclasses.replace(store.fingerprint, activation="quick_gelu")
    with pytest.raises(LanitError, match=r", gelu, 32 px.*, quick_gelu, 32 px.*: activation differ"):
        store.check_fingerprint(other)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root, part: (root / "store.json").write_text("{"), "not valid JSON"),
        (lambda root, part: (root / "store.json").write_text("[]"), "not the file of a store"),
        (lambda root, part: edit(root, "schema_version", 99), "schema version 99"),
        (lambda root, part: edit(root, "parts", [{"file": "x"}]), "damaged: it lacks 'rows'"),
        (lambda root, part: edit(root, "fingerprint", {}), "lacks 'architecture'"),
        (lambda root, part: part.unlink(), "lacks its part"),
        (lambda root, part: part.write_bytes(part.read_bytes()[:200]), "damaged"),
        (lambda root, part: part.write_bytes(b""), "damaged"),
        (lambda root, part: part.write_bytes((root / "labels/r0001.parquet").read_bytes()), "does not fit"),
    ],
    ids=["json", "list", "version", "parts", "fingerprint", "missing", "cut", "empty", "other"],
)
def test_half_written_stores_are_refused(store: Store, damage: Callable[[Path, Path], object], message: str) -> None:
    add(store)
    damage(store.root, store.root / store.manifest.parts[1].file)
    with pytest.raises(LanitError, match=message) as caught:
        Store.open(store.root)
    assert "lanit embed" in caught.value.hint


def edit(root: Path, key: str, value: object) -> None:
    write_json(root / "store.json", read_json(root / "store.json") | {key: value})


def test_a_damaged_revision_is_refused(store: Store) -> None:
    add(store)
    (store.root / "labels" / "r0001.parquet").write_bytes(b"PAR1")
    with pytest.raises(LanitError, match="revision 1 cannot be read"):
        store.labels()
    assert add(store) == 2


def test_reading_parts_together(store: Store) -> None:
    embeddings = store.embeddings()
    assert embeddings.shape == (7, 24)
    assert embeddings.dtype == np.float32
    assert embeddings.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
    assert [len(block) for block in store.embedding_parts()] == [3, 3, 1]
    assert store.images(["path", "status"]).column_names == ["path", "status"]
    assert store.images().num_rows == store.rows == 7
    assert store.images()["path"].to_pylist() == sorted(store.images()["path"].to_pylist())


def hold_lock(root: Path, held: Any, release: Any) -> None:
    with lock_store(root):
        held.set()
        release.wait(30)


def test_two_writers_are_kept_apart_and_a_killed_one_leaves_no_lock(store: Store) -> None:
    held, release = CONTEXT.Event(), CONTEXT.Event()
    process = child(hold_lock, store.root, held, release)
    assert held.wait(30)
    with pytest.raises(LanitError, match="another lanit command is writing") as caught, lock_store(store.root):
        pass
    assert "\n" not in str(caught.value)
    process.kill()
    process.join()
    with lock_store(store.root):
        pass


def test_atomic_path_leaves_the_old_file_where_writing_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_path(tmp_path / "deep" / "file") as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError

    write_bytes(tmp_path / "deep" / "file", b"old")
    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]
    assert (tmp_path / "deep" / "file").read_bytes() == b"old"


def test_a_refusing_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(LanitError, match="cannot write"):
        write_bytes(tmp_path / "file" / "below", b"")
    busy = LanitError("busy")
    with pytest.raises(LanitError, match="cannot write"), exclusive_lock(tmp_path / "file" / ".lock", busy):
        pass


def test_json_is_written_the_same_way_twice(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"ä": [1, None]}
