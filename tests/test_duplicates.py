"""Duplicates: embeddings propose pairs, pixels decide, and in a group each is the same as each, at any block size."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli import app
from lanit.errors import UsageError
from pipeline.searching import duplicates, near_pairs
from pipeline.searching.duplicates import (
    SAMPLE_THRESHOLD,
    USUAL_THRESHOLD,
    DuplicateReport,
    find_duplicates,
    write_duplicates,
)
from pipeline.searching.gallery import MAX_MEMBERS, duplicates_page
from pipeline.searching.near_pairs import Components
from pipeline.store.index import rebuild_index
from pipeline.store.store import Store
from tests.pixel_builders import ByCosine

pytest.importorskip("faiss")
MakeStore = Callable[..., Store]
PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos.tar"


def planted(count: int, dim: int, copies: int, noise: float, seed: int = 0) -> np.ndarray:
    """Unit-norm float32 (count×dim): random directions, the last ``copies`` of them near to earlier ones."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, dim))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    sources = rng.integers(0, count - copies, copies)
    values[count - copies :] = values[sources] + noise * rng.normal(size=(copies, dim))
    values = values[rng.permutation(count)]
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def naive_groups(near: np.ndarray) -> set[frozenset[int]]:
    """Connected components of two or more nodes of an adjacency matrix, by walking."""
    left, found = set(range(len(near))), set()
    while left:
        waiting, seen = [left.pop()], set()
        while waiting:
            node = waiting.pop()
            seen.add(node)
            waiting.extend(set(np.flatnonzero(near[node] | near[:, node]).tolist()) - seen)
        left -= seen
        if len(seen) > 1:
            found.add(frozenset(seen))
    return found


def groups_of(report: DuplicateReport) -> set[frozenset[int]]:
    return {frozenset(member.row for member in group.members) for group in report.groups()}


@pytest.mark.parametrize("count", [1, 2, 50, 701])
def test_components_are_those_found_by_walking(count: int) -> None:
    rng = np.random.default_rng(count)
    near, components = np.zeros((count, count), bool), Components(count)
    for _ in range(5):
        left, right = rng.integers(0, count, (2, count // 6))
        near[left, right] = True
        components.join(left, right)
    roots = components.roots()
    found = {frozenset(np.flatnonzero(roots == root).tolist()) for root in np.unique(roots)}
    assert {group for group in found if len(group) > 1} == naive_groups(near)
    assert all(min(group) == roots[min(group)] for group in found)


@pytest.fixture
def by_cosine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., DuplicateReport]:
    """find_duplicates as if pixels said what embeddings say, for stores without images."""
    monkeypatch.setattr(duplicates, "read_miniatures", ByCosine)

    def find(store: Store, threshold: float = 0.95, *rest: Any, **options: Any) -> DuplicateReport:
        monkeypatch.setattr(ByCosine, "least", threshold)
        return find_duplicates(store, threshold, *rest, **options)

    return find


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize(("block", "tile"), [(16_384, 512), (37, 10), (23, 100)])
def test_in_a_group_each_is_near_to_each_and_no_two_groups_could_be_one(
    make_store: MakeStore, by_cosine: Any, monkeypatch: Any, block: int, tile: int, storage: str
) -> None:
    monkeypatch.setattr(near_pairs, "_BLOCK", block)
    monkeypatch.setattr(near_pairs, "_TILE", tile)
    store = make_store(planted(203, 12, 70, 0.09), part_rows=31, storage=storage)
    embeddings = store.embeddings()
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -1)
    assert not ((cosines > 0.9 - 1e-5) & (cosines < 0.9 + 1e-5)).any()
    report = by_cosine(store, 0.9)
    near = cosines >= 0.9
    groups = groups_of(report)
    assert len(groups) > 20
    alone = [frozenset({row}) for row in set(range(203)) - frozenset().union(*groups)]
    for one, other in itertools.combinations([*groups, *alone], 2):
        assert not near[np.ix_(sorted(one), sorted(other))].all()
    for group in groups:
        assert near[np.ix_(sorted(group), sorted(group))].sum() == len(group) * (len(group) - 1)
    assert report.look_alike == sum(bool(near[min(row)].any()) for row in alone)
    expected = groups
    assert report.grouped == sum(map(len, expected))
    assert len(report.redundant) == report.grouped - len(expected) == report.near_copies
    assert report.every_pair
    assert report.largest == max(map(len, expected))
    sizes = [len(group.members) for group in report.groups()]
    assert sizes == sorted(sizes, reverse=True)
    for group in report.groups():
        first = group.members[0]
        for member in group.members[1:]:
            cosine = float(embeddings[first.row] @ embeddings[member.row])
            assert member.cosine == pytest.approx(min(cosine, 1), abs=1e-5)
    nearest = dict(report.nearest)
    assert nearest[0.5] == pytest.approx(np.quantile(cosines.max(axis=1), 0.5), abs=1e-5)
    assert nearest[0.99] == pytest.approx(np.quantile(cosines.max(axis=1), 0.99), abs=1e-5)


def test_images_of_the_same_content_are_a_group_whatever_their_embeddings(
    make_store: MakeStore, by_cosine: Any
) -> None:
    values = planted(6, 40, 0, 0)
    report = by_cosine(make_store(values, contents=["a", "b", "a", "c", "b", "a"]), 1.0)
    assert groups_of(report) == {frozenset({0, 2, 5}), frozenset({1, 4})}
    assert (report.exact_copies, report.near_copies) == (3, 0)
    assert [[member.exact for member in group.members] for group in report.groups()] == [
        [False, True, True],
        [False, True],
    ]
    assert not any(group.near for group in report.groups())
    assert [member.row for member in next(iter(report.groups())).members] == [5, 2, 0], "most pixels first"


def test_a_copy_of_a_near_duplicate_is_exact_and_the_near_duplicate_is_not(
    make_store: MakeStore, by_cosine: Any
) -> None:
    values = np.eye(4, dtype=np.float32)[[0, 0, 0, 1]]
    values[1:3] = values[1:3] * 0.99 + np.eye(4, dtype=np.float32)[2] * np.float32(np.sqrt(1 - 0.99**2))
    report = by_cosine(make_store(values, contents=["a", "b", "b", "c"]), 0.95)
    (group,) = report.groups()
    assert [(member.row, member.exact) for member in group.members] == [(2, False), (1, True), (0, False)]
    assert (report.exact_copies, report.near_copies, group.near) == (1, 1, True)


def test_equal_embeddings_are_near_at_a_threshold_of_1(make_store: MakeStore, by_cosine: Any) -> None:
    values = planted(300, 33, 0, 0)
    report = by_cosine(make_store(np.concatenate([values, values])), 1.0)
    assert groups_of(report) == {frozenset({row, row + 300}) for row in range(300)}


def test_a_chain_is_cut_where_its_ends_are_not_the_same(make_store: MakeStore, by_cosine: Any) -> None:
    angles = np.deg2rad(np.arange(0, 90, 10))
    values = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    groups = groups_of(by_cosine(make_store(values), 0.98))
    assert all(len(group) == 2 and max(group) - min(group) == 1 for group in groups)
    assert 3 <= len(groups) <= 4


def test_what_looks_alike_and_is_of_another_picture_is_counted_and_not_grouped(
    make_store: MakeStore, by_cosine: Any, monkeypatch: Any
) -> None:
    values = np.repeat(planted(3, 8, 0, 0), [3, 2, 1], axis=0)
    monkeypatch.setattr(ByCosine, "correlations", lambda _, left, right: np.full(len(left), 0.9, np.float32))
    report = by_cosine(make_store(values, contents=["a", "b", "a", "c", "d", "e"]))
    assert groups_of(report) == {frozenset({0, 2})}
    assert (report.exact_copies, report.near_copies, report.look_alike, report.unseen) == (1, 0, 3, 0)


def test_images_that_are_gone_are_told_and_equal_ones_grouped_all_the_same(make_store: MakeStore) -> None:
    values = np.repeat(planted(2, 8, 0, 0), [4, 1], axis=0)
    report = find_duplicates(make_store(values, contents=["a", "a", "b", "c", "d"]))
    assert groups_of(report) == {frozenset({0, 1})}
    assert (report.look_alike, report.unseen) == (0, 2)
    assert "2 images that look like another could not be opened" in report.warnings[0]


def test_a_folder_of_nothing_but_copies_is_one_group(make_store: MakeStore, by_cosine: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(near_pairs, "_BLOCK", 700)
    values = np.repeat(planted(1, 8, 0, 0), 2_000, axis=0)
    report = by_cosine(make_store(values), 0.95)
    assert (report.group_count, report.largest, report.near_copies) == (1, 2_000, 1_999)


@pytest.mark.parametrize("block", [16_384, 20])
def test_between_two_folders_only_pairs_across_count(
    make_store: MakeStore, by_cosine: Any, monkeypatch: Any, block: int
) -> None:
    monkeypatch.setattr(near_pairs, "_BLOCK", block)
    values = planted(150, 12, 80, 0.09)
    folders = np.random.default_rng(1).choice(["train", "val", "rest"], 150)
    paths = [f"{folder}/{number:03d}.jpg" for number, folder in enumerate(folders)]
    contents = [f"{number % 140}" for number in range(150)]
    report = by_cosine(make_store(values, paths=paths, contents=contents, part_rows=40), 0.9, ("train", "val/"))
    across = (folders[:, None] == "train") & (folders == "val")
    same = np.array([[a == b for a in contents] for b in contents])
    near = across & ((values @ values.T >= 0.9) | same)
    assert groups_of(report) == naive_groups(near)
    leaked = np.flatnonzero(near.any(axis=0))
    assert len(leaked) > 5
    np.testing.assert_array_equal(report.redundant, leaked)
    assert report.exact_copies == (across & same).any(axis=0).sum()
    assert report.exact_copies + report.near_copies == len(leaked)
    assert report.sizes == ((folders == "train").sum(), (folders == "val").sum())
    best = {row: (values[folders == "train"] @ values[row]).max() for row in leaked}
    for group in report.groups():
        sides = [member.side for member in group.members]
        assert sides == sorted(sides)
        assert set(sides) == {"first", "second"}
        for member in group.members:
            assert member.path.startswith("train/" if member.side == "first" else "val/")
            if member.side == "second" and not member.exact:
                assert member.cosine == pytest.approx(best[member.row], abs=1e-5)
    # equal images have the same embedding, elsewhere; here it is that of the first on their side
    first = [min(n for n in range(150) if same[n, row] and folders[n] == folders[row]) for row in range(150)]
    everything = (values[first][folders == "val"] @ values[first][folders == "train"].T).max(axis=1)
    everything[(same & across).any(axis=0)[folders == "val"]] = 1
    assert dict(report.nearest)[0.5] == pytest.approx(np.quantile(everything, 0.5), abs=1e-5)


def test_folders_are_sources_or_lie_in_them_or_begin_paths(
    make_store: MakeStore, by_cosine: Any, tmp_path: Path
) -> None:
    sources = [str(tmp_path / "a"), str(tmp_path / "a"), str(tmp_path / "ab"), "s3://bucket/b.tar"]
    paths = ["x/1.jpg", "xy/1.jpg", "x/1.jpg", "x/1.jpg"]
    store = make_store(np.repeat(planted(1, 4, 0, 0), 4, axis=0), paths=paths, sources=sources)

    def rows(first: str, second: str) -> set[frozenset[int]]:
        return groups_of(by_cosine(store, 0.95, (first, second)))

    assert rows(str(tmp_path / "a"), str(tmp_path / "ab")) == {frozenset({0, 1, 2})}
    assert rows(str(tmp_path / "a" / "x"), "s3://bucket/b.tar") == {frozenset({0, 3})}
    assert rows(str(tmp_path / "ab" / ".." / "a" / "x") + "/", "xy") == {frozenset({0, 1})}
    assert rows("xy", "x") == {frozenset({0, 1, 2, 3})}
    with pytest.raises(UsageError, match=r"no image in y\. It has .*b\.tar"):
        rows("x", "y")
    with pytest.raises(UsageError, match="share images"):
        rows("x", str(tmp_path / "a"))


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@pytest.mark.parametrize("within", [True, False])
def test_an_index_finds_nearly_all_near_pairs_and_leaves_nothing_behind(
    make_store: MakeStore, by_cosine: Any, monkeypatch: Any, within: bool, kind: Any
) -> None:
    values = planted(6_000, 24, 2_000, 0.03)
    paths = [f"{'ab'[number % 2]}/{number:05d}.jpg" for number in range(6_000)]
    store = make_store(values, paths=paths)
    rebuild_index(store, kind)
    between = None if within else ("a", "b")
    exact = by_cosine(store, 0.95, between)
    monkeypatch.setattr(near_pairs, "EXACT_WORK", 0)
    monkeypatch.setattr(near_pairs, "EXACT_WORK_GPU", 0)
    monkeypatch.setattr(near_pairs, "_BLOCK", 900)
    fast = by_cosine(store, 0.95, between)
    assert (exact.every_pair, fast.every_pair) == (True, False)
    assert "misses a few pairs" in fast.warnings[-1]
    assert len(exact.redundant) > 500
    assert set(fast.redundant) <= set(exact.redundant)
    assert len(fast.redundant) >= 0.99 * len(exact.redundant)
    assert not list((store.root / "cache").iterdir())
    again = by_cosine(store, 0.95, between, every_pair=True)
    assert again.every_pair
    np.testing.assert_array_equal(again.rows, exact.rows)


def test_one_image_has_no_duplicate(make_store: MakeStore, by_cosine: Any) -> None:
    report = by_cosine(make_store(planted(1, 4, 0, 0)))
    assert (report.group_count, report.nearest, report.warnings, len(report.redundant)) == (0, (), (), 0)
    assert report.to_json()["groups"] == []


def test_a_threshold_that_is_no_cosine_is_refused(make_store: MakeStore) -> None:
    for threshold in (1.01, -2.0, float("nan")):
        with pytest.raises(UsageError, match="is no cosine"):
            find_duplicates(make_store(planted(2, 4, 0, 0), f"s{threshold}"), threshold)


def test_the_table_keeps_one_image_of_each_group(make_store: MakeStore, by_cosine: Any, tmp_path: Path) -> None:
    paths = [f'a,"ü" {number}\n.jpg' for number in range(60)]
    report = by_cosine(make_store(planted(60, 8, 30, 0.05), paths=paths), 0.9)
    write_duplicates(report, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [row["group"] for row in rows if row["keep"] == "1"]
    assert kept == [str(number) for number in range(1, report.group_count + 1)]
    dropped = {row["path"] for row in rows if row["keep"] == "0"}
    assert dropped == {paths[row] for row in report.redundant}


def test_the_page_shows_the_first_images_of_a_group_and_counts_the_rest(make_store: MakeStore, by_cosine: Any) -> None:
    store = make_store(np.repeat(planted(1, 8, 0, 0), 30, axis=0), paths=[f"<i>{n:02d}" for n in range(30)])
    page = duplicates_page(by_cosine(store, 0.95), store)
    assert page.count('class="gone"') == MAX_MEMBERS, "the files of this store do not exist"
    assert f"and {30 - MAX_MEMBERS} more" in page
    assert "<i>" not in page
    assert "29 of 30 images repeat another" in page
    assert not re.search(r"<script|@import|url\(|src=\"(?!data:)", page)


@pytest.fixture(scope="module")
def photo_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """12 photographs, of which three were copied, three halved and three encoded anew into another folder."""
    if not PHOTOS.exists():
        pytest.skip(f"needs {PHOTOS.name} of the project's shared folder")
    from pipeline.clip.models import load_clip
    from pipeline.embedding.embed import embed

    folder = tmp_path_factory.mktemp("photos")
    for name in ("train", "val"):
        (folder / name).mkdir()
    with tarfile.open(PHOTOS) as archive:
        members = [member for member in archive if member.isfile()][:12]
        photos = [archive.extractfile(member).read() for member in members]  # type: ignore[union-attr]
    for number, data in enumerate(photos):
        (folder / "train" / f"{number:02d}.jpg").write_bytes(data)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        file = folder / "val" / f"copy {number:02d}.jpg"
        if number < 3:
            file.write_bytes(data)
        elif number < 6:
            image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC).save(file, quality=90)
        elif number < 9:
            image.save(file, quality=70)
    store = folder / "store"
    embed([folder / "train", folder / "val"], store, load_clip("sample"))
    return Store.open(store)


def test_copies_of_photographs_are_found_and_nothing_else(photo_store: Store) -> None:
    """Even by the sample CLIP, which knows no photographs."""
    report = find_duplicates(photo_store)
    found = {frozenset(member.path for member in group.members) for group in report.groups()}
    assert found == {frozenset({f"{number:02d}.jpg", f"copy {number:02d}.jpg"}) for number in range(9)}
    assert (report.exact_copies, report.near_copies) == (3, 6)
    for group in report.groups():
        if group.near:
            assert (group.members[0].width or 0) >= (group.members[1].width or 0)


def test_the_command_tells_what_two_folders_share(photo_store: Store, tmp_path: Path) -> None:
    folder = photo_store.root.parent
    page, table = tmp_path / "page.html", tmp_path / "table.csv"
    arguments = ["duplicates", "--store", str(photo_store.root)]
    between = ["--between", str(folder / "train"), str(folder / "val")]
    result = CliRunner().invoke(app, [*arguments, *between, "--html", str(page), "--csv", str(table)])
    assert result.exit_code == 0, result.output
    numbers = re.findall(r"(?:images of|not there|same content|same picture).*?(\d+)\s*$", result.stdout, re.M)
    assert [int(number) for number in numbers[-4:]] == [9, 0, 3, 6]
    html = page.read_text(encoding="utf-8")
    assert html.count("<img ") == 18
    assert html.count('alt="copy ') == 9
    assert len(table.read_text().splitlines()) == 19
    data = json.loads(CliRunner().invoke(app, [*arguments, *between, "--json"]).stdout)
    assert (data["sizes"], data["exact_copies"], data["near_copies"]) == ([12, 9], 3, 6)
    assert [len(group) for group in data["groups"]] == [2] * 9
    wrong = CliRunner().invoke(app, [*arguments, "--between", "nothing", "val"])
    assert (wrong.exit_code, "no image in nothing" in wrong.stderr) == (2, True)
    wrong = CliRunner().invoke(app, [*arguments, "--html", "page.txt"])
    assert (wrong.exit_code, "not the name of a page" in wrong.stderr) == (2, True)


def test_the_sample_clip_opens_images_from_a_lower_cosine_on(make_store: MakeStore) -> None:
    store = make_store(planted(2, 4, 0, 0))
    assert find_duplicates(store).threshold == SAMPLE_THRESHOLD
    other = Store(store.root, dataclasses.replace(store.manifest, clip_spec="ViT-B-32/openai"))
    assert find_duplicates(other).threshold == USUAL_THRESHOLD


@pytest.mark.gpu
def test_a_gpu_finds_the_same_groups(make_store: MakeStore, by_cosine: Any, monkeypatch: Any) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    store = make_store(planted(5_000, 32, 2_000, 0.03))
    on_gpu = by_cosine(store, 0.95)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert groups_of(on_gpu) == groups_of(by_cosine(store, 0.95))
