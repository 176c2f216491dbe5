"""What the user may type, and what is answered where it is wrong."""

from __future__ import annotations

import gzip
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lanit.errors import LanitError, UsageError
from pipeline.inputs.folders import Folder
from pipeline.inputs.image_files import ImageFile
from pipeline.inputs.opening import open_inputs, open_source
from pipeline.inputs.patterns import expand_braces
from pipeline.inputs.places import Input
from pipeline.inputs.tables import Table
from pipeline.inputs.tars import Tar
from pipeline.inputs.zips import Zip


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"image")
    return path


def tar(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w"):
        return path


def sources(*texts: str | Path) -> list[str]:
    return [origin.source for origin in open_inputs(texts)]


def refusal(*texts: str | Path, image_column: str | None = None) -> tuple[str, str]:
    with pytest.raises(LanitError) as caught:
        open_inputs(texts, image_column)
    assert "\n" not in str(caught.value)
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ["a"]),
        ("{00000..00010}.tar", [f"{number:05d}.tar" for number in range(11)]),
        ("x{8..11}", ["x8", "x9", "x10", "x11"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{3..1}{a,b}", ["3a", "3b", "2a", "2b", "1a", "1b"]),
        ("{0..10..4}", ["0", "4", "8"]),
        ("{-1..1}", ["-1", "0", "1"]),
        ("{train,val/{0..1},}.tar", ["train.tar", "val/0.tar", "val/1.tar", ".tar"]),
        ("{x}{1..2}", ["{x}1", "{x}2"]),
        ("{a,b", ["{a,b"]),
        ("a}{", ["a}{"]),
        ("{x{1,2}}", ["{x1}", "{x2}"]),
        ("{}", ["{}"]),
        ("s3://b/{a,b}-{0..1}.tar", ["s3://b/a-0.tar", "s3://b/a-1.tar", "s3://b/b-0.tar", "s3://b/b-1.tar"]),
    ],
)
def test_braces_expand_as_in_a_shell(text: str, expected: list[str]) -> None:
    assert expand_braces(text) == expected


def test_a_vast_range_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(LanitError, match="more than 100,000 names") as caught:
        expand_braces("{0..99999999999}.tar")
    assert caught.value.hint == "Check the range."


def test_each_kind_is_known_and_opens_again_from_its_name(tmp_path: Path) -> None:
    image(tmp_path / "photos" / "a.jpg")
    tar(tmp_path / "t.TAR")
    (tmp_path / "c.csv").write_text("path\n")
    (tmp_path / "j.ndjson").write_text('{"path": "a.jpg"}\n')
    (tmp_path / "v.tsv").write_text("url\n")
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "p.parquet")
    image(tmp_path / "named.tar" / "a.jpg")
    with zipfile.ZipFile(tmp_path / "z.Zip", "w"):
        pass
    image(tmp_path / "one.JPG")
    names = ["photos", "t.TAR", "z.Zip", "one.JPG", "c.csv", "j.ndjson", "v.tsv", "p.parquet", "named.tar"]
    inputs = open_inputs([tmp_path / name for name in names])
    kinds: list[type] = [Folder, Tar, Zip, ImageFile, Table, Table, Table, Table, Folder]
    assert [type(origin) for origin in inputs] == kinds
    assert [origin.source for origin in inputs] == [str(tmp_path / name) for name in names]
    again = [open_source(origin.source, "column") for origin in inputs]
    assert [type(origin) for origin in again] == kinds
    assert [origin.image_column for origin in again] == [*[None] * 4, *["column"] * 4, None]
    assert type(open_source(str(tmp_path / "gone"), None)) is Folder
    assert not open_source(str(tmp_path / "gone.tar"), None).exists()
    assert not open_source(str(tmp_path / "gone.jpg"), None).exists()


def test_relative_names_links_and_file_urls_come_to_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "photos" / "a.jpg")
    (tmp_path / "link").symlink_to("photos")
    monkeypatch.chdir(tmp_path)
    texts = ["photos", "./photos/", "link", "photos/../photos", f"file://{tmp_path}/photos", tmp_path / "photos"]
    assert sources(*texts) == [str(tmp_path / "photos")]


def test_a_link_to_a_file_keeps_its_name_and_its_folder(tmp_path: Path) -> None:
    """As the cache of Hugging Face's hub keeps its files: the targets have names without a suffix."""
    image(tmp_path / "snapshot" / "a.jpg")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0123abc").write_text("path\na.jpg\n")
    (tmp_path / "snapshot" / "t.csv").symlink_to("../blobs/0123abc")
    [origin] = open_inputs([tmp_path / "snapshot" / "t.csv"])
    assert origin.source == str(tmp_path / "snapshot" / "t.csv")
    assert origin.read("a.jpg", None, None) == b"image"
    (tmp_path / "again.csv").symlink_to("snapshot/t.csv")
    assert sources(tmp_path / "snapshot" / "t.csv", tmp_path / "again.csv") == [origin.source]


def test_patterns_give_an_input_for_each_file_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (0, 1, 2, 10):
        tar(tmp_path / "data dir" / f"{number:02d}.tar")
    tar(tmp_path / "data dir" / "deep" / "x.tar")
    names = [str(tmp_path / "data dir" / f"{number:02d}.tar") for number in (0, 1, 2, 10)]
    monkeypatch.chdir(tmp_path)
    assert sources("data dir/{00..02}.tar") == names[:3]
    assert sources("data dir/*.tar") == names
    assert sources("data ?ir/0[12].tar") == names[1:3]
    assert sources("{data dir,./data dir}/*0.tar") == [names[0], names[3]]
    assert sources("**/x.tar") == [str(tmp_path / "data dir" / "deep" / "x.tar")]
    assert sources("data dir/{02,0*}.tar", names[0]) == [names[2], names[0], names[1]]


def test_a_name_that_exists_is_no_pattern(tmp_path: Path) -> None:
    for name in ("{a,b}", "x[1]", "50%*?"):
        image(tmp_path / name / "i.jpg")
        assert sources(tmp_path / name, f"file://{tmp_path / name}") == [str(tmp_path / name)]


def test_a_folder_in_a_folder_is_refused_and_so_is_a_table_of_paths(tmp_path: Path) -> None:
    image(tmp_path / "photos" / "cats" / "a.jpg")
    image(tmp_path / "photos 2" / "a.jpg")
    tar(tmp_path / "photos" / "t.tar")
    (tmp_path / "photos" / "t.csv").write_text("path\ncats/a.jpg\n")
    pq.write_table(pa.table({"jpg": [b"x"]}), tmp_path / "photos" / "bytes.parquet")
    photos = tmp_path / "photos"
    for inner in ("cats", "t.csv", "cats/a.jpg"):
        for texts in ([photos, photos / inner], [photos / inner, photos]):
            message, hint = refusal(*texts)
            assert message == f"{photos / inner} lies in {photos}, which is given too: images would come twice"
            assert hint == "Give one of the two."
    kept = [photos, tmp_path / "photos 2", photos / "t.tar", photos / "bytes.parquet"]
    assert sources(*kept) == [str(path) for path in kept]


def test_a_mistyped_name_is_answered_with_a_close_one(tmp_path: Path) -> None:
    image(tmp_path / "Holiday photos" / "a.jpg")
    tar(tmp_path / "Holiday photos" / "train.tar")
    gone = tmp_path / "holiday fotos"
    assert refusal(gone) == (f"there is no folder {gone}", f"Did you mean {tmp_path / 'Holiday photos'}?")
    deep = gone / "deeper" / "still"
    assert refusal(deep) == (f"there is no folder {deep}", f"Did you mean {tmp_path / 'Holiday photos'}?")
    shard = tmp_path / "Holiday photos" / "trian.tar"
    assert refusal(shard) == (f"there is no file {shard}", f"Did you mean {tmp_path / 'Holiday photos' / 'train.tar'}?")
    other = tmp_path / "something else"
    assert refusal(other) == (f"there is no folder {other}", "Check the path.")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert refusal(tmp_path / "dangling")[0] == f"there is no folder {tmp_path / 'dangling'}"


def test_missing_shards_and_empty_patterns_are_named(tmp_path: Path) -> None:
    for number in (0, 2):
        tar(tmp_path / f"{number}.tar")
    message, hint = refusal(f"{tmp_path}/{{0..3}}.tar")
    assert message == f"2 of the 4 files of {tmp_path}/{{0..3}}.tar are missing, the first is {tmp_path / '1.tar'}"
    assert hint == "Check the range."
    message, hint = refusal(f"{tmp_path}/{{7,8}}.tar")
    assert message == f"all 2 files of {tmp_path}/{{7,8}}.tar are missing, the first is {tmp_path / '7.tar'}"
    message, hint = refusal(f"{tmp_path}/*.parquet")
    assert (message, hint) == (f"nothing fits the pattern {tmp_path}/*.parquet", "Check its folder and suffix.")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        (
            "a.doc",
            "{} is a file, but neither a tar nor a zip nor a table nor an image",
            "Give a folder of images, or a tar: .tar, or a zip: .zip, or a table: .parquet",
        ),
        ("a.txt", "{} is no table", "Give CSV, TSV, JSON Lines or Parquet, or what a tool exports."),
        ("bare", "{} is a file, but neither a tar nor a zip nor a table nor an image", "Give a folder of images"),
        ("a.tar.gz", "{} is a compressed tar", "gunzip"),
        ("a.tgz", "{} is a compressed tar", "gunzip"),
        ("a.tar.zst", "{} is a compressed tar", "Unpack it first"),
        ("a.7z", "{} is compressed", "Unpack it first."),
        ("a.csv.gz", "{} is compressed", "Unpack it first."),
    ],
)
def test_files_of_other_kinds_are_refused(tmp_path: Path, name: str, message: str, hint: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"x"))
    found = refusal(path)
    assert found[0] == message.format(path)
    assert hint.format(path) in found[1]


def test_options_and_names_that_make_no_sense_are_usage_errors(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    for texts, column, message, hint in [
        ([], None, "no input was given", "Give a folder, a tar, a zip, a table or an image."),
        (["  "], None, "an input has no name", "Give a folder, a tar, a zip, a table or an image."),
        ([tmp_path], "photo", "--image-column is for tables, and none was given", "Leave it out."),
    ]:
        with pytest.raises(UsageError) as caught:
            open_inputs(texts, column)
        assert (caught.value.message, caught.value.hint) == (message, hint)
    assert refusal("zero\0byte")[0].startswith("there is no folder zero")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_an_input_whose_own_name_is_no_utf8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    image(folder / "a.jpg")
    assert refusal(folder) == (f"the name of {tmp_path}/caf\\xe9 is not valid UTF-8", "Rename it.")
    tar(folder / "t.tar")
    assert refusal(folder / "t.tar") == (f"the name of {tmp_path}/caf\\xe9/t.tar is not valid UTF-8", "Rename it.")


def test_of_a_pattern_of_tables_the_first_is_checked_at_once(tmp_path: Path) -> None:
    for number in range(3):
        pq.write_table(pa.table({"text": ["x"]}), tmp_path / f"{number}.parquet")
    message, hint = refusal(f"{tmp_path}/*.parquet")
    assert message.startswith(f"{tmp_path / '0.parquet'} has no column of image paths or image bytes")
    assert hint == "Name the column: --image-column NAME"
    pq.write_table(pa.table({"jpg": [b"x"]}), tmp_path / "0.parquet")
    inputs: list[Input] = open_inputs([f"{tmp_path}/*.parquet"])
    with pytest.raises(LanitError, match=r"1\.parquet has no column"):
        list(inputs[1].places())


def test_urls_are_sources_as_typed(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name in ("/b/x/a.jpg", "/b/y.tar/a.jpg", "/b/1.tar", "/b/2.tar", "/b/sub/3.tar"):
        memory.pipe_file(name, b"image")
    image(tmp_path / "a.jpg")
    try:
        assert sources("memory://b/x/", "memory://b/x", "memory:///b/x") == ["memory://b/x"]
        assert sources("memory://b/y.tar") == ["memory://b/y.tar/"]  # the slash tells a folder from a tar
        assert type(open_source("memory://b/y.tar/", None)) is Folder
        assert (
            sources("memory://b/{1,2}.tar")
            == sources("memory://b/[0-9].tar")
            == ["memory://b/1.tar", "memory://b/2.tar"]
        )
        assert sources("memory://b/**/3.tar", tmp_path) == ["memory://b/sub/3.tar", str(tmp_path)]
        assert refusal("memory://b", "memory://b/x")[0] == (
            "memory://b/x lies in memory://b, which is given too: images would come twice"
        )
        assert refusal("memory://b/nothing") == ("there is no folder memory://b/nothing", "Check the path.")
        assert refusal("memory://b/no.tar") == ("there is no file memory://b/no.tar", "Check the path.")
        assert refusal("memory://b/{1..9}.tar")[0].startswith("7 of the 9 files of memory://b/{1..9}.tar are missing")
        assert refusal("memory://b/*.parquet")[0] == "nothing fits the pattern memory://b/*.parquet"
        assert sources("memory://b/x/a.jpg") == ["memory://b/x/a.jpg"]
        assert refusal("tar://a.jpg::memory://b/1.tar")[0].endswith("is a chain of URLs, which is not supported")
    finally:
        memory.store.clear()
