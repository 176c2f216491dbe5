"""Labels that people give: from tables, from folders, joined to images."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lanit.errors import LanitError
from pipeline.labelling.image_folders import folders_of_paths
from pipeline.labelling.known_labels import Truth, folder_names, folder_truth, read_truth

DOMAINS = ("blond hair", "smiling", "eyeglasses")


def strings(*values: str) -> pa.ChunkedArray:
    return pa.chunked_array([list(values[:1]), list(values[1:])], pa.string())


def test_csv_and_parquet_are_read_alike(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["a b/é.png", "2.png"], "Blond_Hair": [1, 0], "smiling ": [0, 1], "note": ["x", "y"]})
    frame.to_csv(tmp_path / "truth.csv", index=False)
    frame.assign(Blond_Hair=[True, False]).to_parquet(tmp_path / "truth.parquet")
    frame.assign(Blond_Hair=[1, -1]).to_parquet(tmp_path / "signs.parquet")
    for name in ("truth.csv", "truth.parquet", "signs.parquet"):
        truth = read_truth(tmp_path / name, DOMAINS)
        assert truth.key == "path"
        assert truth.keys == ("a b/é.png", "2.png")
        assert truth.domains == ("blond hair", "smiling")
        assert truth.labels.tolist() == [[True, False], [False, True]]
        assert truth.known is None


def test_blanks_are_unknown_where_they_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("path,smiling,blond_hair\na.png,1,\nb.png,,0\n", encoding="utf-8")
    frame = pd.DataFrame({"path": ["a.png", "b.png"], "smiling": [1.0, None], "blond_hair": [None, 0.0]})
    frame.to_parquet(tmp_path / "labels.parquet")
    for name in ("labels.csv", "labels.parquet"):
        labels = read_truth(tmp_path / name, DOMAINS, blanks=True)
        values = labels.values(np.array([1, -1, 0]), DOMAINS)
        assert values.tolist() == [[0, -1, -1], [-1, -1, -1], [-1, 1, -1]]
    with pytest.raises(LanitError, match="column 'blond_hair' has '' in row 1"):
        read_truth(path, DOMAINS)


def test_every_column_is_a_domain_where_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("image_id,Blond_Hair,no beard\nx,1,0\n", encoding="utf-8")
    assert read_truth(path, None).domains == ("Blond Hair", "no beard")
    path.write_text("image_id,Blond_Hair,remark\nx,1,a man\n", encoding="utf-8")
    assert read_truth(path, None).domains == ("Blond Hair",), "what is no label is left alone"
    path.write_text("path,hat\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(20)) + "z.png,o\n", encoding="utf-8")
    with pytest.raises(LanitError, match="column 'hat' has 'o' in row 21"):  # a slip in a column of labels
        read_truth(path, None)


BAD_TRUTH = {
    "no key": ("photo,smiling\na.png,1\n", "no column 'path'"),
    "no domain": ("path,hat\na.png,1\n", "no column for any"),
    "no rows": ("path,smiling\n", "no rows"),
    "two rows": ("path,smiling\na.png,1\nb.png,0\na.png,0\n", "2 rows for 'a.png'"),
    "not binary": ("path,smiling\na.png,1\nb.png,maybe\n", "has 'maybe' in row 2"),
    "blank": ("path,smiling\na.png,\n", "has '' in row 1"),
    "ragged": ("path,smiling\na.png,1,1,1\nb.png,0\nc,d,e,f,g,h\n", "cannot read"),
}


@pytest.mark.parametrize("mistake", BAD_TRUTH)
def test_bad_tables_are_one_line(mistake: str, tmp_path: Path) -> None:
    text, expected = BAD_TRUTH[mistake]
    path = tmp_path / "truth.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LanitError) as caught:
        read_truth(path, DOMAINS)
    assert expected in caught.value.message
    assert caught.value.hint


COLUMNS = {
    "booleans": pa.array([True, False]),
    "floats": pa.array([1.0, -1.0]),
    "decimals": pa.array([Decimal(1), Decimal(0)]),
    "categories": pa.array(["1", "0"]).dictionary_encode(),
    "large texts": pa.array([" TRUE ", "0.0"], pa.large_string()),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_any_type_that_can_say_it(kind: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.png", "b.png"], "hat": COLUMNS[kind]}), tmp_path / "x.parquet")
    assert read_truth(tmp_path / "x.parquet", ["hat"]).labels.tolist() == [[True], [False]]


NO_LABELS = {
    "bytes": pa.array([b"1", b"0"]),
    "lists": pa.array([[1], [0]]),
    "structs": pa.array([{"a": 1}, {"a": 0}]),
    "times": pa.array([1, 0], pa.timestamp("ms")),
}


@pytest.mark.parametrize("kind", NO_LABELS)
def test_columns_of_other_types_are_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"path": ["a.png", "b.png"], "hat": NO_LABELS[kind]}), path)
    with pytest.raises(LanitError, match="has no column of labels"):
        read_truth(path, None, blanks=True)
    with pytest.raises(LanitError, match=r"column 'hat' holds|no column for any of: hat"):
        read_truth(path, ["hat"], blanks=True)
    pq.write_table(pa.table({"path": NO_LABELS[kind], "hat": [1, 0]}), path)
    if kind != "bytes":  # those are images, named by their rows
        with pytest.raises(LanitError, match=r"column 'path' holds|has no column 'path'"):
            read_truth(path, None, blanks=True)
    pq.write_table(pa.table({"path": ["a.png", "b.png"], "hat": [1, 0], "other": NO_LABELS[kind]}), path)
    assert read_truth(path, ["hat"]).domains == ("hat",), "a column that nobody asked for does not matter"


def test_odd_tables_are_one_line(tmp_path: Path) -> None:
    names = pa.array(["a.png", "b.png"])
    tables = {
        "has 2 columns 'Hat'": pa.table([names, pa.array([1, 0]), pa.array([1, 0])], ["path", "hat", "Hat"]),
        "has 2 columns 'path'": pa.table([names, names, pa.array([1, 0])], ["path", "path", "hat"]),
        "row 2 has no path": pa.table({"path": pa.array(["a.png", None]), "hat": [1, 0]}),
        "has no rows": pa.table({"path": pa.array([], pa.string()), "hat": pa.nulls(0)}),
    }
    for message, table in tables.items():
        pq.write_table(table, tmp_path / "x.parquet")
        with pytest.raises(LanitError, match=message) as caught:
            read_truth(tmp_path / "x.parquet", ["hat"], blanks=True)
        assert caught.value.hint
    (tmp_path / "x.csv").write_text("path,hat,hat\na.png,1,0\n", encoding="utf-8")
    with pytest.raises(LanitError, match="has 2 columns 'hat'"):
        read_truth(tmp_path / "x.csv", None)
    pq.write_table(pa.table({"path": names, "hat": pa.nulls(2)}), tmp_path / "x.parquet")
    empty = read_truth(tmp_path / "x.parquet", ["hat"], blanks=True)
    assert empty.known is not None
    assert not empty.known.any()


def test_a_question_mark_takes_back_and_is_no_label_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("path,hat,smiling\na.png,?,1\nb.png,,?\n", encoding="utf-8")
    labels = read_truth(path, ["hat", "smiling"], blanks=True)
    rows = np.array([1, 0, -1])
    assert labels.values(rows, ["smiling", "hat"]).tolist() == [[-1, -1], [1, -1], [-1, -1]]
    assert labels.taken_back(rows, ["smiling", "hat"]).tolist() == [[True, False], [False, True], [False, False]]
    with pytest.raises(LanitError, match=r"column 'hat' has '\?' in row 1"):
        read_truth(path, ["hat"])


def test_missing_and_damaged_tables(tmp_path: Path) -> None:
    with pytest.raises(LanitError, match="no file of labels"):
        read_truth(tmp_path / "none.csv", DOMAINS)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(LanitError, match="is not a whole Parquet file"):
        read_truth(tmp_path / "bad.parquet", DOMAINS)


@pytest.mark.parametrize("key", ["image_id", "path"])
def test_rows_are_joined_by_their_key(key: str) -> None:
    labels = np.eye(3, dtype=bool)
    truth = Truth(key, ("c", "a", "zzz"), DOMAINS, labels)  # type: ignore[arg-type]
    names, others = strings("a", "b", "c"), strings("1", "2", "3")
    rows = truth.align(names, others) if key == "image_id" else truth.align(others, names)
    assert rows.tolist() == [1, -1, 0]
    assert truth.values(rows, ("eyeglasses", "blond hair", "hat")).tolist() == [[0, 0, -1], [-1, -1, -1], [0, 1, -1]]


def test_labels_of_other_images_and_of_two_images_at_once_are_refused() -> None:
    truth = Truth("path", ("x.png",), DOMAINS, np.ones((1, 3), bool))
    with pytest.raises(LanitError, match=r"no path of the known labels .* 'x.png' against 'a.png'") as caught:
        truth.align(strings("1", "2"), strings("a.png", "b.png"))
    assert caught.value.hint
    with pytest.raises(LanitError, match="two sources of this store"):
        truth.align(strings("1", "2"), strings("x.png", "x.png"))


def test_a_folder_names_its_images_domain() -> None:
    paths = strings("Blond_Hair/1.png", "a/smiling/b/2.png", "smiling/blond hair/3.png", "other/4.png", "smiling.png")
    ids = strings("1", "2", "3", "4", "5")
    truth = folder_truth(folders_of_paths(ids, paths), DOMAINS)
    assert truth.domains == ("blond hair", "smiling")
    rows = truth.align(ids, paths)
    assert truth.values(rows, DOMAINS).tolist() == [[1, 0, -1], [0, 1, -1], [1, 1, -1], [-1] * 3, [-1] * 3]
    with pytest.raises(LanitError, match="no folder of the images is named after any of: hat"):
        folder_truth(folders_of_paths(ids, paths), ("hat",))


def test_folder_names_are_phrases() -> None:
    paths = strings("x/snow_leopard/1.png", "x/Fox/2.png", "y/fox/3.png", "4.png", "x/5.png")
    assert folder_names(folders_of_paths(paths, paths)) == ("Fox", "snow leopard", "x")
    with pytest.raises(LanitError, match="lie in no folders"):
        folder_names(folders_of_paths(paths, strings("1.png", "2.png")))
