"""The index gives the neighbours of the embeddings, in bounded memory, and is rebuilt whenever it does not fit."""

from __future__ import annotations

import errno
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanit.errors import LanitError, UsageError
from pipeline.embedding.embed import embed
from pipeline.store import index_build
from pipeline.store.index import build_index, index_state, is_approximate, nearest, open_index, rebuild_index
from pipeline.store.index_build import plan_index, pq_bytes, read_index_file, write_index_file
from pipeline.store.store import Store

faiss = pytest.importorskip("faiss")
MakeStore = Callable[..., Store]


def unit(count: int, dim: int, seed: int = 0, centres: int = 0) -> np.ndarray:
    """Unit-norm float32 (count×dim), around so many centres where some are asked for."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, dim))
    if centres:
        values = 0.3 * values + rng.normal(size=(centres, dim))[rng.integers(0, centres, count)]
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def blocks_of(values: np.ndarray, rows: int) -> Callable[[], Any]:
    return lambda: (values[start : start + rows] for start in range(0, len(values), rows))


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_neighbours_are_those_of_the_embeddings(make_store: MakeStore, storage: str) -> None:
    store = make_store(unit(11, 6), storage=storage, part_rows=4)
    embeddings = store.embeddings()
    scores, rows = nearest(open_index(store), embeddings, 3)
    cosines = embeddings @ embeddings.T
    np.testing.assert_allclose(scores, np.sort(cosines, axis=1)[:, ::-1][:, :3], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(cosines, rows, axis=1), scores, atol=1e-5)
    assert nearest(open_index(store), embeddings[:1], 20)[1][0, 11:].tolist() == [-1] * 9


@pytest.mark.parametrize("kind", ["flat", "ivf", "pq"])
def test_neighbours_can_be_sought_among_some_rows_only(make_store: MakeStore, kind: Any) -> None:
    store = make_store(unit(10_000, 8, centres=50))
    rebuild_index(store, kind)
    among = np.zeros(10_000, bool)
    among[[3, 77, 4_000, 9_999]] = True
    _, rows = nearest(open_index(store), store.embeddings()[3:4], 6, among)
    assert set(rows[0, :4].tolist()) == {3, 77, 4_000, 9_999}
    assert rows[0, 0] == 3
    assert rows[0, 4:].tolist() == [-1, -1]


def test_a_streamed_flat_file_is_the_file_that_faiss_writes(tmp_path: Path) -> None:
    values = unit(101, 7)
    index = faiss.IndexFlatIP(7)
    index.add(values)
    faiss.write_index(index, str(tmp_path / "own"))
    write_index_file(plan_index("flat", 101, 7), blocks_of(values, 13), tmp_path / "ours")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "own").read_bytes()


@pytest.mark.parametrize("rows", [40, 1_003])
def test_a_streamed_inverted_file_is_the_file_that_faiss_writes(tmp_path: Path, monkeypatch: Any, rows: int) -> None:
    """With a list for each row nearly, most of them empty, and with a few, all filled."""
    values = unit(rows, 6, centres=9)
    plan = plan_index("ivf", rows, 6)
    monkeypatch.setattr(index_build, "_BLOCK_ROWS", 100)
    write_index_file(plan, blocks_of(values, 37), tmp_path / "ours")
    monkeypatch.setattr(index_build, "_knows_lists", lambda faiss: False)
    write_index_file(plan, blocks_of(values, 29), tmp_path / "own")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "own").read_bytes()
    opened = read_index_file(tmp_path / "ours")
    assert (opened.ntotal, opened.nlist, opened.nprobe) == (rows, plan.lists, plan.probes)


def test_where_faiss_writes_otherwise_the_index_is_built_in_its_memory(tmp_path: Path, monkeypatch: Any) -> None:
    values = unit(50, 5)
    write_index_file(plan_index("flat", 50, 5), blocks_of(values, 20), tmp_path / "streamed")
    monkeypatch.setattr(index_build, "_counted", lambda header, rows: header[:-1] + b"?")
    assert index_build._flat_header(faiss, 5, 50) is None
    assert not index_build._knows_lists(faiss)
    write_index_file(plan_index("flat", 50, 5), blocks_of(values, 20), tmp_path / "built")
    assert (tmp_path / "built").read_bytes() == (tmp_path / "streamed").read_bytes()


def test_the_kind_is_chosen_by_size_and_codes_only_on_request() -> None:
    assert plan_index("auto", 1_000_000, 512).kind == "flat"
    large = plan_index("auto", 4_000_000, 512)
    assert (large.kind, large.lists, large.code_bytes) == ("ivf", 8_000, 2_048)
    assert large.probes == 512
    assert plan_index("ivf", 10_000, 16).probes == 32
    assert plan_index("pq", 4_000_000, 512).code_bytes == 128
    with pytest.raises(UsageError, match="at least 9,984 images; there are 9,983"):
        plan_index("pq", 9_983, 512)
    with pytest.raises(UsageError, match="no index 'hnsw'"):
        plan_index("hnsw", 5, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [1, 39, 78, 5_000, 250_000, 3_000_000, 10**9])
def test_every_list_gets_between_39_and_256_points_of_k_means(rows: int) -> None:
    plan = plan_index("ivf", rows, 16)
    assert plan.train_rows <= rows
    assert plan.train_rows >= 39 * plan.lists or plan.lists == 1
    assert plan.train_rows <= 256 * plan.lists
    assert plan.lists <= 4 * rows**0.5 + 1


@pytest.mark.parametrize(("dim", "count"), [(512, 128), (24, 6), (25, 5), (7, 1), (3, 1), (1, 1)])
def test_codes_divide_the_dimensions_evenly(dim: int, count: int) -> None:
    assert pq_bytes(dim) == count


@pytest.mark.parametrize(("kind", "least"), [("ivf", 0.98), ("pq", 0.5)])
def test_inverted_indexes_find_nearly_what_the_flat_one_finds(make_store: MakeStore, kind: Any, least: float) -> None:
    store = make_store(unit(12_000, 16, centres=300))
    queries = store.embeddings()[::40]
    exact = nearest(open_index(store), queries, 10)[1]
    report = rebuild_index(store, kind)
    assert (report.kind, report.built, report.rows) == (kind, True, 12_000)
    index = open_index(store)
    found = nearest(index, queries, 10)[1]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
    assert recall >= least
    assert is_approximate(index) == (kind == "pq")


def test_a_kind_once_requested_stays(make_store: MakeStore) -> None:
    store = make_store(unit(300, 6))
    build_index(store)
    assert rebuild_index(store, "ivf").built
    assert not rebuild_index(store, "ivf").built
    (store.root / "index" / "embeddings.faiss").unlink()
    assert isinstance(open_index(store), faiss.IndexIVF)
    assert rebuild_index(store, "auto").kind == "flat"
    assert isinstance(open_index(store), faiss.IndexFlat)


@pytest.mark.parametrize("kind", ["flat", "ivf", "pq"])
def test_equal_stores_give_equal_bytes(make_store: MakeStore, kind: Any) -> None:
    values = unit(10_000, 8, centres=40)
    files = []
    for name in ("one", "two"):
        store = make_store(values, name)
        rebuild_index(store, kind)
        files.append([path.read_bytes() for path in sorted((store.root / "index").iterdir())])
    assert files[0] == files[1]


def test_rebuilt_to_the_same_bytes_when_deleted_or_damaged(make_store: MakeStore) -> None:
    store = make_store(unit(11, 6), part_rows=4)
    assert index_state(store) == "missing"
    build_index(store)
    assert index_state(store) == "current"
    path = store.root / "index" / "embeddings.faiss"
    before = path.read_bytes()
    path.unlink()
    assert index_state(store) == "missing"
    assert open_index(store).ntotal == 11
    for damaged in (before[:-4] + b"oops", before[:-4], b"", before + b"\0"):
        path.write_bytes(damaged)
        assert index_state(store) == "stale"
        assert open_index(store).ntotal == 11
        assert path.read_bytes() == before
    for text in ("{", "[]", "3", '{"requested": "hnsw"}'):
        (store.root / "index" / "index.json").write_text(text)
        assert index_state(store) == "stale"
    build_index(store)
    assert index_state(store) == "current"


def test_an_index_of_other_embeddings_or_of_another_model_is_stale(make_store: MakeStore) -> None:
    values = unit(20, 6)
    store, other = make_store(values), make_store(np.roll(values, 1, axis=0), "other")
    build_index(store)
    build_index(other)
    for name in ("embeddings.faiss", "index.json"):
        (other.root / "index" / name).write_bytes((store.root / "index" / name).read_bytes())
    assert index_state(other) == "stale"
    np.testing.assert_array_equal(open_index(other).reconstruct(0), values[-1])
    text = (store.root / "index" / "index.json").read_text()
    (store.root / "index" / "index.json").write_text(text.replace("gelu", "quick_gelu"))
    assert index_state(store) == "stale"


def test_damage_that_the_digest_of_pieces_misses_is_found_on_opening(make_store: MakeStore, monkeypatch: Any) -> None:
    store = make_store(unit(20, 6))
    build_index(store)
    path = store.root / "index" / "embeddings.faiss"
    before = path.read_bytes()
    monkeypatch.setattr("pipeline.store.index._checksums_sha256", lambda path: "the same")
    build_index(store)
    path.write_bytes(b"oops" + before[4:])
    assert index_state(store) == "current"
    assert open_index(store).ntotal == 20
    assert path.read_bytes() == before


def test_every_byte_of_the_index_counts(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.index._BLOCK_BYTES", 3_000)
    store = make_store(unit(500, 16))
    build_index(store)
    path = store.root / "index" / "embeddings.faiss"
    before = path.read_bytes()
    for place in (0, 2_999, 3_000, len(before) // 2, len(before) - 1):
        path.write_bytes(before[:place] + bytes([before[place] ^ 4]) + before[place + 1 :])
        assert index_state(store) == "stale"
    path.write_bytes(before)
    assert index_state(store) == "current"


def test_a_store_that_cannot_be_written_is_searched_all_the_same(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(unit(300, 6))
    expected = nearest(open_index(store), store.embeddings()[:5], 4)
    mkdir, remarks = Path.mkdir, list[str]()

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if store.root in path.parents:
            raise OSError(errno.EROFS, "Read-only file system")
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    np.testing.assert_array_equal(nearest(open_index(store, remarks.append), store.embeddings()[:5], 4), expected)
    assert remarks == []
    (store.root / "index" / "embeddings.faiss").unlink()
    held = sorted(store.root.rglob("*"))
    np.testing.assert_array_equal(nearest(open_index(store, remarks.append), store.embeddings()[:5], 4), expected)
    assert len(remarks) == 1
    assert "cannot be written" in remarks[0]
    assert sorted(store.root.rglob("*")) == held
    with pytest.raises(LanitError, match="Read-only"):
        build_index(store)


def test_embeddings_that_do_not_add_up_are_an_error(tmp_path: Path) -> None:
    for rows in (9, 11):
        with pytest.raises(LanitError, match=f"counts {rows} embeddings but holds 10"):
            write_index_file(plan_index("flat", rows, 4), blocks_of(unit(10, 4), 5), tmp_path / "index")


MEMORY = """
import sys, numpy as np, resource
from pathlib import Path
from pipeline.store.index_build import plan_index, write_index_file, read_index_file
rows, path = int(sys.argv[1]), Path(sys.argv[2])
block = np.random.default_rng(0).normal(size=(2048, 256)).astype(np.float32)
write_index_file(plan_index("flat", 2048, 256), lambda: iter([block]), path)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_index_file(plan_index("flat", rows, 256), lambda: (block for _ in range(rows // 2048)), path)
assert read_index_file(path).reconstruct(rows - 1)[5] == block[-1, 5]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs")
def test_the_memory_of_a_flat_build_and_of_opening_it_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """60 MiB of vectors cost less than 6 MiB of memory; built by faiss they would be in it as a whole."""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", MEMORY, str(30 * 2048), str(tmp_path / "index")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert int(result.stdout) < 6 * 1024


def test_without_faiss_an_index_cannot_be_opened(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(name)

    store = make_store(unit(5, 4))
    monkeypatch.setattr(importlib, "import_module", refuse)
    for attempt in (build_index, open_index):
        with pytest.raises(LanitError, match="faiss is not installed"):
            attempt(store)
    assert not (store.root / "index").exists()


def test_images_are_embedded_without_faiss_and_the_index_is_left_to_who_needs_it(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    report = embed([make_images(5)], tmp_path / "store", tiny_clip)
    assert (report.ok, report.index) == (5, "left")
    assert not (tmp_path / "store" / "index").exists()


@pytest.mark.gpu
def test_a_gpu_trains_lists_that_find_the_same(make_store: MakeStore) -> None:
    if not faiss.get_num_gpus():
        pytest.skip("this faiss has no GPU")
    store = make_store(unit(12_000, 16, centres=300))
    queries = store.embeddings()[::40]
    exact = nearest(open_index(store), queries, 1)[1]
    rebuild_index(store, "ivf")
    assert np.mean(nearest(open_index(store), queries, 1)[1] == exact) > 0.98


def test_the_specification_names_the_keys_of_the_index(make_store: MakeStore) -> None:
    text = (Path(__file__).parents[1] / "manifests" / "README.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`[^|]*`) \|", text.split("## index/")[1].split("\n## ")[0], re.MULTILINE)
    store = make_store(unit(5, 4))
    build_index(store)
    keys = json.loads((store.root / "index" / "index.json").read_text())
    assert [key for cell in cells for key in re.findall(r"`(\w+)`", cell)] == list(keys)
