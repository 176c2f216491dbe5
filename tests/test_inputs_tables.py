"""Tables: which column holds the images, odd cells, and reading bytes by row without reading the file."""

from __future__ import annotations

import io
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lanit.errors import LanitError
from pipeline.decoding.limits import ImageError
from pipeline.inputs import parquet_rows
from pipeline.inputs.columns import choose_column
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.places import Input, Place
from pipeline.inputs.tables import Table

SHARED = Path(__file__).parents[2] / "shared" / "data"
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_a_table_whose_pages_fill_the_memory_is_told_of_with_how_to_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"jpg": [random.Random(row).randbytes(3000) for row in range(400)]})
    pq.write_table(table, tmp_path / "large.parquet")
    pq.write_table(table, tmp_path / "small.parquet", use_dictionary=False, write_batch_size=16)
    pq.write_table(table, tmp_path / "groups.parquet", row_group_size=100)
    monkeypatch.setattr(parquet_rows, "_LARGE_PAGE", 600_000)
    warned = {}
    for name in ("large", "small", "groups"):
        [origin] = open_inputs([tmp_path / f"{name}.parquet"])
        assert len(list(origin.places())) == 400
        warned[name] = origin.warnings
    assert warned["small"] == warned["groups"] == []
    [warning] = warned["large"]
    assert "use_dictionary=False, write_batch_size=16" in warning


def table(path: Path, columns: dict[str, Any], rows_a_group: int = 1000) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=rows_a_group)
    return path


def opened(path: Path, image_column: str | None = None) -> tuple[Input, list[Place]]:
    [origin] = open_inputs([path], image_column)
    return origin, list(origin.places())


def contents(path: Path, image_column: str | None = None) -> dict[str, bytes]:
    origin, places = opened(path, image_column)
    return {place.path: origin.read(place.path, place.offset, place.bytes) for place in places}


@pytest.mark.parametrize(
    ("columns", "name", "bytes_field", "key"),
    [
        ({"path": "string", "url": "string"}, "path", None, None),
        ({"URL": "large_string", "caption": "string"}, "URL", None, None),
        ({"url": "string", "Image_Path": "string_view"}, "Image_Path", None, None),
        ({"path": "int64", "filepath": "string"}, "filepath", None, None),
        ({"path": "string", "jpeg": "binary"}, "jpeg", "jpeg", "path"),
        ({"id": "int64", "webp": "large_binary", "Key": "string"}, "webp", "webp", "Key"),
        ({"image": "struct", "file_name": "string"}, "image", "image.bytes", "file_name"),
        ({"mask": "struct", "image": "struct"}, "image", "image.bytes", None),
        ({"thumb": "binary", "jpg": "binary", "url": "string"}, "jpg", "jpg", None),
        ({"image": "string", "x": "binary"}, "x", "x", None),
    ],
)
def test_the_column_is_found_by_type_and_name(
    columns: dict[str, str], name: str, bytes_field: str | None, key: str | None
) -> None:
    types = {"struct": STRUCT, "string_view": pa.string_view()}
    schema = pa.schema([(column, types.get(kind) or pa.type_for_alias(kind)) for column, kind in columns.items()])
    found = choose_column(schema, None, "t")
    assert (found.name, found.bytes, found.key) == (name, bytes_field, key)


def test_of_columns_with_one_name_the_first_is_taken() -> None:
    schema = pa.schema([("path", pa.string()), ("path", pa.int64())])
    assert choose_column(schema, None, "t").name == "path"
    assert choose_column(schema, "path", "t").bytes is None


@pytest.mark.parametrize(
    ("columns", "named", "message", "hint"),
    [
        ({"text": ["x"], "label": [1]}, None, "no column of image paths or image bytes; its columns are text, label",
         "Name the column: --image-column NAME"),
        ({f"c{i}": [1] for i in range(20)}, None, "c10, c11, and 8 more", "--image-column"),
        ({"before": [b"x"], "after": [b"y"]}, None, "has several columns of image bytes: before, after",
         "Choose one, such as --image-column before"),
        ({"jpg": [b"x"], "png": [b"y"]}, None, "has several columns of image bytes: jpg, png", "--image-column jpg"),
        ({"path": ["x"], "label": [1]}, "photo", "has no column photo; its columns are path, label",
         "Choose one of them: --image-column NAME"),
        ({"path": ["x"], "label": [1]}, "label", "holds int64, neither image paths nor image bytes",
         "Choose another of path, label: --image-column NAME"),
    ],
)  # fmt: skip
def test_a_table_without_a_clear_column_says_what_to_type(
    tmp_path: Path, columns: dict[str, Any], named: str | None, message: str, hint: str
) -> None:
    path = table(tmp_path / "t.parquet", columns)
    with pytest.raises(LanitError) as caught:
        open_inputs([path], named)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_the_named_column_is_taken_and_remembered(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", {"before": [b"b"], "after": [b"a"], "path": ["x.jpg"]})
    [origin] = open_inputs([path], "after")
    assert origin.image_column == "after"
    assert contents(path, "after") == {"x.jpg": b"a"}
    (tmp_path / "x.jpg").write_bytes(b"file")
    assert contents(path, "path") == {"x.jpg": b"file"}
    (tmp_path / "t.csv").write_text("photo,path\nx.jpg,y.jpg\n")
    assert contents(tmp_path / "t.csv", "photo") == {"x.jpg": b"file"}


def test_rows_of_bytes_are_known_by_key_else_path_else_number(tmp_path: Path) -> None:
    rows = pa.array(
        [{"bytes": b"0", "path": "p0"}, {"bytes": b"1", "path": None}, {"bytes": b"2", "path": "p2"}], STRUCT
    )
    keyed = table(tmp_path / "k.parquet", {"image": rows, "name": ["k0", None, ""]}, rows_a_group=2)
    assert contents(keyed) == {"k0": b"0", "row-000000001": b"1", "p2": b"2"}
    bare = table(tmp_path / "b.parquet", {"img": [b"x", b"y"], "n": [1, 2]})
    _, places = opened(bare)
    modified = bare.stat().st_mtime_ns
    assert places == [Place(str(bare), f"row-00000000{row}", row, None, modified) for row in (0, 1)]


def test_a_row_of_the_struct_without_bytes_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"file")
    rows = [{"bytes": b"0", "path": "x"}, {"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": None}, None]
    for statistics in (True, False):
        path = tmp_path / f"{statistics}.parquet"
        pq.write_table(pa.table({"image": pa.array(rows, STRUCT)}), path, write_statistics=statistics)
        origin, places = opened(path)
        named = {place.path: place.offset for place in places}
        assert named == {"x": 0, "a.jpg": None, "row-000000002": 2, "row-000000003": 3}
        assert origin.read("a.jpg", None, None) == origin.read("x", 1, None) == b"file"
        for row in (2, 3):
            with pytest.raises(ImageError, match="the row holds no image"):
                origin.read("", row, None)


def test_a_row_without_bytes_fails_and_a_row_beyond_the_end_too(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", {"jpg": [b"x", None]})
    origin, places = opened(path)
    assert len(places) == 2
    with pytest.raises(ImageError, match="the row holds no image"):
        origin.read("", 1, None)
    for row in (2, -1):
        with pytest.raises(ImageError, match="2 rows by now"):
            origin.read("", row, None)


def test_paths_may_be_relative_absolute_or_urls(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/far/away", b"far")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a b.jpg").write_bytes(b"near")
    whole = tmp_path / "whole.jpg"
    whole.write_bytes(b"whole")
    (tmp_path / "t.tsv").write_text(f"image_path\nsub/a b.jpg\n{whole}\nmemory://far/away\n../gone.jpg\n")
    origin, places = opened(tmp_path / "t.tsv")
    assert [origin.read(place.path, None, None) for place in places[:3]] == [b"near", b"whole", b"far"]
    assert [place.bytes for place in places] == [4, 5, None, None]
    assert places[1].modified_ns == whole.stat().st_mtime_ns
    with pytest.raises(ImageError, match="No such file"):
        origin.read("../gone.jpg", None, None)


def test_rows_without_a_path_are_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'\xef\xbb\xbflabel,path\r\n1,a.jpg\r\n2,\r\n\r\n3\r\n4,"new\nline.jpg"\r\n')
    origin, places = opened(tmp_path / "t.csv")
    assert [place.path for place in places] == ["a.jpg", "new\nline.jpg"]
    assert origin.ignored == 2
    assert origin.warnings == [f"2 rows name no image in the column path of {tmp_path / 't.csv'}"]
    path = table(tmp_path / "t.parquet", {"path": ["a.jpg", None, ""]})
    origin, places = opened(path)
    assert ([place.path for place in places], origin.ignored) == (["a.jpg"], 2)


def test_semicolons_and_very_long_cells_are_understood(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f'caption;image_path\n{"x" * 300_000};a.jpg\n"a;b";b.jpg\n')
    assert [place.path for place in opened(tmp_path / "t.csv")[1]] == ["a.jpg", "b.jpg"]


def test_names_in_other_encodings_keep_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"caf\xe9,path\nx,caf\xe9.jpg\n")
    (tmp_path / "t.jsonl").write_bytes(b'{"path": "caf\xe9.jpg"}\n{"path": "\\ud800.jpg"}\n{"path": 3}\n')
    [place] = opened(tmp_path / "t.csv")[1]
    assert place.path.encode("utf-8", "surrogateescape") == b"caf\xe9.jpg"
    origin, places = opened(tmp_path / "t.jsonl")
    names = [place.path.encode("utf-8", "surrogateescape") for place in places]
    assert names == [b"caf\xe9.jpg", b"\xed\xa0\x80.jpg"]
    assert origin.ignored == 1
    with pytest.raises(ImageError):
        origin.read(places[1].path, None, None)


def test_parquet_text_that_is_no_utf8_keeps_its_bytes(tmp_path: Path) -> None:
    offsets, data = pa.py_buffer(bytes([0, 0, 0, 0, 8, 0, 0, 0])), pa.py_buffer(b"caf\xe9.jpg")
    broken = pa.StringArray.from_buffers(1, offsets, data)
    path = table(tmp_path / "t.parquet", {"path": broken})
    assert opened(path)[1][0].path.encode("utf-8", "surrogateescape") == b"caf\xe9.jpg"
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"file")
    for data in (b"held", None):
        image = pa.StructArray.from_arrays([pa.array([data], pa.binary()), broken], ["bytes", "path"])
        [(name, content)] = contents(table(tmp_path / "s.parquet", {"image": image})).items()
        assert (os.fsencode(name), content) == (b"caf\xe9.jpg", data or b"file")


def test_json_lines_take_columns_from_all_of_the_first_rows(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"label": 1}\n\n{"label": 2, "url": "a.jpg"}\n{"url": "b.jpg"}\nnot json\n')
    origin, places = opened(tmp_path / "t.jsonl")
    assert [place.path for place in places] == ["a.jpg", "b.jpg"]
    assert origin.ignored == 1
    assert f"1 line is not a JSON object: {tmp_path / 't.jsonl'}, line 5" in origin.warnings


@pytest.mark.parametrize(
    ("name", "data", "message", "hint"),
    [
        ("t.parquet", b"PAR1 but no more", "is not a whole Parquet file", "download it again"),
        ("t.parquet", b"", "is not a whole Parquet file", "download it again"),
        ("t.csv", b"", "its columns are none", "--image-column NAME"),
        ("t.jsonl", b"[1]\n", "row 1 is not a JSON object", '{"image_path": "a.jpg"}'),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, name: str, data: bytes, message: str, hint: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(LanitError) as caught:
        open_inputs([tmp_path / name])
    assert message in caught.value.message
    assert str(tmp_path / name) in caught.value.message
    assert hint in caught.value.hint


def test_a_parquet_file_damaged_inside_is_an_error_when_listed_and_when_read(tmp_path: Path) -> None:
    names = [f"{random.Random(number).random()}.jpg" for number in range(2000)]
    path = table(tmp_path / "t.parquet", {"path": names, "jpg": [name.encode() * 9 for name in names]})
    origin = Table(str(path), None)
    places = list(origin.places())
    data = bytearray(path.read_bytes())
    data[100 : len(data) * 3 // 4] = bytes(len(data) * 3 // 4 - 100)
    path.write_bytes(data)
    with pytest.raises(LanitError, match="is damaged") as caught:
        list(Table(str(path), None).places())
    assert caught.value.hint == "Copy or download it again."
    again = Table(str(path), None)
    for place in places[::400]:
        with pytest.raises(ImageError, match="damaged"):
            again.read(place.path, place.offset, None)
    path.unlink()
    assert not origin.exists()
    with pytest.raises(ImageError, match="No such file"):
        origin.read(places[0].path, 0, None)


def test_a_table_without_rows_is_a_warning(tmp_path: Path) -> None:
    for path in (table(tmp_path / "t.parquet", {"path": pa.array([], pa.string())}), tmp_path / "t.csv"):
        if path.suffix == ".csv":
            path.write_text("path\n")
        origin, places = opened(path)
        assert places == []
        assert origin.warnings == [f"there are no images in {path}"]


def test_rows_read_in_any_order_by_many_threads_are_the_right_ones(tmp_path: Path) -> None:
    rng = random.Random(3)
    images = [rng.randbytes(rng.randint(0, 3000)) for _ in range(700)]
    path = table(tmp_path / "t.parquet", {"jpg": images}, rows_a_group=230)
    [origin] = open_inputs([path])
    orders = [rng.sample(range(700), 700) for _ in range(3)] + [list(range(700))] * 3

    def work(order: list[int]) -> bool:
        return all(origin.read("", row, None) == images[row] for row in order[:300])

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, orders))


def test_rows_read_in_order_are_decoded_once_even_if_threads_overtake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[int] = []
    enter = parquet_rows._Cursor._enter
    monkeypatch.setattr(parquet_rows._Cursor, "_enter", lambda self, group: (entered.append(group), enter(self, group)))
    monkeypatch.setattr(parquet_rows, "_BATCH_BYTES", 1)  # batches of the fewest rows
    path = table(tmp_path / "t.parquet", {"jpg": [str(row).encode() for row in range(500)]}, rows_a_group=200)
    [origin] = open_inputs([path])
    shuffled = sorted(range(500), key=lambda row: row + random.Random(row).uniform(0, 30))
    assert [origin.read("", row, None) for row in shuffled] == [str(row).encode() for row in shuffled]
    assert entered == [0, 1, 2]


def test_a_large_row_group_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(100_000)
    path = tmp_path / "t.parquet"
    batch = pa.table({"jpg": [data] * 1200, "other": [data[:50_000]] * 1200})
    pq.write_table(batch, path, use_dictionary=False, compression="none", write_batch_size=8)
    del batch
    assert pq.ParquetFile(path).num_row_groups == 1
    pool = pa.system_memory_pool()
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        origin, places = opened(path)
        peak = 0
        for place in places:
            assert len(origin.read(place.path, place.offset, None)) == len(data)
            peak = max(peak, pool.bytes_allocated())
    finally:
        pa.set_memory_pool(before)
    assert len(data) < peak < 60_000_000 < 1200 * len(data)


def test_few_tables_hold_memory_at_a_time(tmp_path: Path) -> None:
    paths = [table(tmp_path / f"{number}.parquet", {"jpg": [bytes([number])]}) for number in range(9)]
    origins = open_inputs(paths)
    for _ in range(2):
        assert [origin.read("", 0, None) for origin in origins] == [bytes([number]) for number in range(9)]
        busy = [origin for origin in origins if isinstance(origin, Table) and origin._held_rows()._cursor is not None]
        assert len(busy) == parquet_rows._OPEN_FILES


def test_a_table_can_be_listed_while_threads_read_it(tmp_path: Path) -> None:
    images = [bytes([row % 251]) * 999 for row in range(900)]
    path = table(tmp_path / "t.parquet", {"jpg": images, "key": [str(row) for row in range(900)]}, rows_a_group=100)
    [origin] = open_inputs([path])
    stop = threading.Event()

    def work() -> int:
        rows = 0
        while not stop.is_set():
            assert origin.read("", rows % 900, None) == images[rows % 900]
            rows += 1
        return rows

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(work) for _ in range(3)]
        for _ in range(3):
            assert [place.path for place in origin.places()] == [str(row) for row in range(900)]
        stop.set()
        assert all(future.result() > 0 for future in futures)


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here")
def test_the_shared_photographs_just_work() -> None:
    origin, places = opened(SHARED / "cifar10-animals-test.parquet")
    assert len(places) == 2400
    assert places[0].path.startswith("test/")
    for place in (places[0], places[2399], places[1200]):
        with Image.open(io.BytesIO(origin.read(place.path, place.offset, place.bytes))) as image:
            assert image.size == (32, 32)
    tar, members = opened(SHARED / "photos.tar")
    assert len(members) == 63
    for place in members[::20]:
        with Image.open(io.BytesIO(tar.read(place.path, place.offset, place.bytes))) as image:
            image.load()
