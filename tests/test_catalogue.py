"""The scratch catalogue: what was found against what is known, in the order of the table, off the heap."""

from __future__ import annotations

import pickle
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lanit.errors import LanitError
from pipeline.embedding.image_rows import RowCatalogue
from pipeline.inputs.catalogue import connect_scratch
from pipeline.inputs.places import Place
from pipeline.translating.naming import Naming
from pipeline.translating.worklist import Worklist


class Listed:
    """An input that lists what it is given."""

    image_column = None
    ignored = 0

    def __init__(self, source: str, places: Iterator[Place] | list[Place], later_counts: bool = False) -> None:
        self.source, self._places, self.later_counts = source, places, later_counts
        self.warnings: list[str] = []

    def places(self) -> Iterator[Place]:
        yield from self._places

    def read(self, path: str, offset: int | None, size: int | None) -> bytes:
        raise NotImplementedError

    def exists(self) -> bool:
        return True


def part(rows: list[tuple[str, str, int | None, int | None, int | None, str | None, str]]) -> pa.Table:
    names = ["source", "path", "offset", "modified_ns", "bytes", "sha256", "status"]
    types = [pa.string(), pa.string(), pa.int64(), pa.int64(), pa.int64(), pa.string(), pa.string()]
    columns = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(types)]
    return pa.table(columns, names=names)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[RowCatalogue]:
    made = RowCatalogue(tmp_path / "catalogue.sqlite")
    yield made
    made.close()
    assert not (tmp_path / "catalogue.sqlite").exists()


def test_rows_come_by_source_then_offset_then_path(catalogue: RowCatalogue) -> None:
    catalogue.find(Listed("/b", [Place("/b", name) for name in ("ä", "z", "a b", "\n", "Z")]))
    catalogue.find(Listed("/a.tar", [Place("/a.tar", "x", 900), Place("/a.tar", "y", 100), Place("/a.tar", "w", 500)]))
    catalogue.ready()
    planned = [(row.source, row.path) for row in catalogue.table([])]
    assert planned[:3] == [("/a.tar", "y"), ("/a.tar", "w"), ("/a.tar", "x")]
    assert planned[3:] == [("/b", name) for name in ("\n", "Z", "a b", "z", "ä")]
    assert catalogue.count([]) == 8


def test_names_that_come_twice_are_one_file_the_later_member_or_two_rows(catalogue: RowCatalogue) -> None:
    twice = [Place("", "a", 5, 1, 1), Place("", "a", 7, 2, 2)]
    assert catalogue.find(Listed("/f", [Place("/f", "a"), Place("/f", "a")])) == (1, 1)
    assert catalogue.find(Listed("/t.parquet", twice)) == (2, 1)
    assert catalogue.find(Listed("/t.tar", twice, later_counts=True)) == (1, 1)
    catalogue.ready()
    rows = [(row.source, row.path, row.offset, row.bytes, row.modified_ns) for row in catalogue.table([])]
    assert rows == [
        ("/f", "a", None, None, None),
        ("/t.parquet", "a", 5, 1, 1),
        ("/t.parquet", "a#7", 7, 2, 2),
        ("/t.tar", "a", 7, 2, 2),
    ]


def test_unchanged_means_same_size_time_and_place(catalogue: RowCatalogue, tmp_path: Path) -> None:
    known = [
        ("/f", "same", None, 5, 10, "s1", "ok"),
        ("/f", "longer", None, 5, 10, "s2", "ok"),
        ("/f", "touched", None, 5, 10, "s3", "ok"),
        ("/f", "timeless", None, None, 10, "s4", "ok"),
        ("/f", "failed", None, 5, 10, None, "failed"),
        ("/f", "gone", None, 5, 10, "s5", "ok"),
    ]
    catalogue.learn("p0", part(known), committed=True)
    found = [
        ("same", 10, 5),
        ("longer", 11, 5),
        ("touched", 10, 6),
        ("timeless", 10, None),
        ("failed", 10, 5),
        ("new", 1, 1),
    ]
    catalogue.find(Listed("/f", [Place("/f", path, None, size, time) for path, size, time in found]))
    catalogue.ready()
    rows = {row.path: row for row in catalogue.table([])}
    assert {path for path, row in rows.items() if row.as_is} == {"same", "failed"}
    assert rows["new"].known is None
    assert rows["touched"].known is not None
    assert not rows["failed"].known.ok  # type: ignore[union-attr]
    assert catalogue.dropped([]) == 1


def test_content_is_known_of_the_store_but_not_of_an_unfinished_run(catalogue: RowCatalogue, tmp_path: Path) -> None:
    catalogue.learn("p0", part([("/f", "a", None, 1, 1, "in store", "ok")]), committed=True)
    catalogue.learn("p1", part([("/f", "b", None, 1, 1, "in journal", "ok")]), committed=False)
    catalogue.find(Listed("/f", [Place("/f", "b", None, 1, 1)]))
    catalogue.ready()
    assert catalogue.by_content("in store") is not None
    assert catalogue.by_content("in journal") is None
    (row,) = catalogue.table([])
    assert row.as_is
    assert catalogue.dropped([]) == 1  # "a", which only the store knows


def test_rows_of_other_inputs_are_kept_as_the_store_has_them(catalogue: RowCatalogue, tmp_path: Path) -> None:
    rows = [("/other", "x", None, 1, 1, "s", "ok"), ("/vanished", "y", None, 1, 1, "t", "ok")]
    catalogue.learn("p0", part(rows), committed=True)
    catalogue.find(Listed("/f", [Place("/f", "b")]))
    catalogue.ready()
    planned = list(catalogue.table(["/other"]))
    assert [(row.source, row.kept) for row in planned] == [("/f", False), ("/other", True)]
    assert catalogue.count(["/other"]) == 2
    assert catalogue.dropped(["/other"]) == 1


def test_memory_does_not_grow_with_the_rows(catalogue: RowCatalogue) -> None:
    def places(count: int) -> Iterator[Place]:
        return (Place("/f", f"folder/{number:09d}.jpg", None, number, number) for number in range(count))

    catalogue.find(Listed("/f", places(20_000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    catalogue.find(Listed("/g", places(200_000)))
    catalogue.ready()
    assert sum(1 for _ in catalogue.table([])) == 220_000
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 200_000 * 80, "a Python string and tuple for each row would take more"


def test_rows_of_what_cannot_be_listed_are_held_where_they_begin_so(catalogue: RowCatalogue) -> None:
    names = ["a/1", "a/2", "a0", "a", "ab/1", "b/1"]
    catalogue.learn("p0", part([("/f", name, None, 1, 1, name, "ok") for name in names]), committed=True)
    catalogue.find(Listed("/f", [Place("/f", "a/2", None, 2, 2), Place("/f", "b/1", None, 1, 1)]))
    assert catalogue.hold("/f", ["a/"]) == 1
    catalogue.ready()
    planned = {row.path: (row.kept, row.as_is) for row in catalogue.table([])}
    assert planned == {"a/1": (True, True), "a/2": (False, False), "b/1": (False, True)}
    assert catalogue.dropped([]) == 3
    assert catalogue.hold("/f", [""]) == 3
    assert catalogue.dropped([]) == 0


@pytest.mark.parametrize("pages", [1, 5])  # full before the first table, and in the middle of the list
def test_a_full_disk_under_the_list_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    def tiny_disk(path: Path, cache_kib: int = 0) -> sqlite3.Connection:
        database = connect_scratch(path)
        database.execute(f"PRAGMA max_page_count = {pages}")
        return database

    listed = Listed("/f", [Place("/f", f"{number:0200d}.jpg") for number in range(500)])
    for make in (RowCatalogue, Worklist):
        path = tmp_path / make.__name__
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.inputs.catalogue.connect_scratch", tiny_disk)
            with pytest.raises(LanitError, match="database or disk is full") as caught:
                fill(make, path, listed)
        assert "run the same command again" in caught.value.hint
        assert not [each for each in tmp_path.rglob("*") if each.is_file()]
        fill(make, path, listed)


def fill(make: Any, path: Path, listed: Listed) -> None:
    made = make(path)
    try:
        made.find(listed)
        if isinstance(made, Worklist):
            made.name(Naming(frozenset({".jpg"}), ".png"))
        made.ready()
    finally:
        made.close()


def test_a_plan_can_be_sent_to_another_process_and_gone_through_twice(catalogue: RowCatalogue, tmp_path: Path) -> None:
    digests = ["00" * 31 + "01", "7f" * 15 + "00" * 17, "7f" * 32, "ff" * 32]
    rows = [("/f", f"{number}", None, 1, 1, digest, "ok") for number, digest in enumerate(reversed(digests))]
    catalogue.learn("p0", part([*rows, ("/f", "bad", None, 1, 1, None, "failed")]), committed=True)
    catalogue.find(Listed("/f", [Place("/f", name, None, 1, 1) for name in ("0", "new", "3")]))
    catalogue.ready()
    plan = catalogue.table(["/kept"])
    sent = pickle.loads(pickle.dumps(plan))
    assert [row.path for row in plan] == ["0", "3", "new"]
    assert list(sent) == list(plan)
    contents = catalogue.digests()
    assert contents.dtype == np.dtype("S16")
    assert [bytes(digest).ljust(16, b"\0").hex() for digest in contents] == [digest[:32] for digest in digests]


def test_thousands_of_results_have_names_of_their_own_in_the_order_of_their_images(tmp_path: Path) -> None:
    """Names are given while the list is read: none is left out, none met twice."""
    paths = [f"{number % 40}/{number // 3:04d}.{suffix}" for number, suffix in enumerate(("png", "gif", "ppm") * 2000)]
    naming, tags = Naming(frozenset({".png"}), ".png", ("-style1", "-style2")), ("-style1", "-style2")
    taken: set[str] = set()
    expected: dict[str, str] = {}
    for kept in (True, False):
        for path in sorted(paths):
            if path.endswith(".png") == kept:
                names = ([f"{name.removesuffix('.png')}{tag}.png" for tag in tags] for name in naming.candidates(path))
                free = next(each for each in names if not taken & set(each))
                taken |= set(free)
                expected[path] = free[0].replace("-style1", "")
    worklist = Worklist(tmp_path)
    try:
        worklist.find(Listed("/f", [Place("/f", path) for path in paths]))
        assert worklist.name(naming) == 6000
        worklist.ready()
        images = list(worklist.images())
    finally:
        worklist.close()
    assert [image.path for image in images] == sorted(paths)
    assert {image.path: image.output for image in images} == expected
