"""Folders: what counts as an image, links, odd names, and Hugging Face's metadata files."""

from __future__ import annotations

import itertools
import os
import sys
import tracemalloc
from pathlib import Path

import fsspec
import pytest

from lanit.errors import LanitError
from pipeline.decoding.limits import ImageError
from pipeline.inputs.folders import Folder
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.places import Place


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode("utf-8", "surrogateescape") * 3)
    return folder


def listed(folder: Path) -> tuple[set[str], Folder]:
    [origin] = open_inputs([folder])
    assert isinstance(origin, Folder)
    paths = [place.path for place in origin.places()]
    assert len(set(paths)) == len(paths)
    return set(paths), origin


def test_images_are_known_by_suffix_in_any_case_and_dot_names_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "a.JPG", "b.jpeg.PnG", "d.jpg/c.tiff", "notes.txt", "bare", "._a.jpg", ".git/x.jpg", "d.jpg/.b.png")
    paths, origin = listed(tmp_path)
    assert paths == {"a.JPG", "b.jpeg.PnG", "d.jpg/c.tiff"}
    assert origin.ignored == 4  # the folder .git is not looked into
    assert origin.warnings == []


def test_size_and_time_are_those_of_the_file_behind_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real", "x.png")
    os.utime(tmp_path / "real" / "x.png", ns=(5, 1_234_567_890_123_456_789))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "y.png").symlink_to(tmp_path / "real" / "x.png")
    [place] = Folder(str(tmp_path / "photos")).places()
    assert place == Place(str(tmp_path / "photos"), "y.png", None, len("x.png") * 3, 1_234_567_890_123_456_789)


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path, "a/x.png", "a/b/y.png")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "root").symlink_to(tmp_path)
    (tmp_path / "z").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "self.png").symlink_to("self.png")
    paths, origin = listed(tmp_path)
    assert paths == {"a/x.png", "a/b/y.png", "self.png"}
    with pytest.raises(ImageError):
        origin.read("self.png", None, None)


def test_a_broken_link_and_a_pipe_are_listed_and_fail_when_read(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    [origin] = open_inputs([tmp_path])
    places = {place.path: place for place in origin.places()}
    assert [(place.bytes, place.modified_ns) for place in places.values()] == [(None, None)] * 2
    with pytest.raises(ImageError, match="No such file"):
        origin.read("gone.jpg", None, None)
    with pytest.raises(ImageError, match="not a regular file"):
        origin.read("pipe.jpg", None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_utf8_keeps_its_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    write(tmp_path, name)
    [origin] = open_inputs([tmp_path])
    [place] = origin.places()
    assert os.fsencode(place.path) == b"caf\xe9.jpg"
    assert origin.read(place.path, None, None) == b"caf\xe9.jpg" * 3


@pytest.mark.parametrize("name", ["zero\0byte.jpg", "lone\ud800surrogate.jpg"])
def test_names_that_no_file_can_have_fail_as_images(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError):
        Folder(str(tmp_path)).read(name, None, None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_without_permission_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "closed/b.jpg")
    (tmp_path / "closed").chmod(0)
    try:
        paths, origin = listed(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert paths == {"a.jpg"}
    assert origin.warnings == [f"1 folder cannot be listed: {tmp_path / 'closed'} (Permission denied)"]


def test_folders_that_cannot_be_listed_are_counted_in_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.jpg", *(f"closed{number}/b.jpg" for number in range(3)))
    scandir = os.scandir

    def refusing(path: str) -> object:
        if "closed" in path:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    paths, origin = listed(tmp_path)
    assert paths == {"a.jpg"}
    assert origin.warnings == [
        f"3 folders cannot be listed, the first is {tmp_path / 'closed0'} (Permission denied)",
    ]


def test_a_folder_that_vanishes_before_it_is_listed_is_an_error(tmp_path: Path) -> None:
    origin = Folder(str(tmp_path / "gone"))
    assert not origin.exists()
    with pytest.raises(LanitError, match=r"cannot list .*gone.*: No such file") as caught:
        list(origin.places())
    assert caught.value.hint == "Check its permissions."


@pytest.mark.parametrize(
    ("names", "message", "hint"),
    [
        ([], "there are no images in {0}", "Names of images end in"),
        (["a.txt", "b/c"], "there are no images in {0}, only 2 other files", ".jpg"),
        (["s/00.csv", "s/01.csv", "x.txt"], "there are no images in {0}, only 3 other files", "give '{0}/s/*.csv'"),
        (["a-1.parquet", "a-2.PARQUET", "b.parquet"], "only 3 other files", "give '{0}/*.parquet'"),
    ],
    ids=["empty", "others", "lists", "tables"],
)
def test_a_folder_without_images_says_what_to_give_instead(
    tmp_path: Path, names: list[str], message: str, hint: str
) -> None:
    write(tmp_path, *names)
    with pytest.raises(LanitError) as caught:
        listed(tmp_path)
    assert message.format(tmp_path) in caught.value.message
    assert hint.format(tmp_path) in caught.value.hint


def test_a_metadata_file_says_which_images_count(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "b/c.PNG", "b/extra.jpg", "other.jpg", "odd.bin", "notes.txt")
    (tmp_path / "metadata.csv").write_text(
        "text,file_name\nx,a.jpg\ny,./b//c.PNG\nz,gone.jpg\nw,a.jpg\nv,odd.bin\nu,\nt,../outside.jpg\n"
    )
    write(tmp_path.parent, "outside.jpg")
    [origin] = open_inputs([tmp_path])
    places = {place.path: place for place in origin.places()}
    assert set(places) == {"a.jpg", "b/c.PNG", "gone.jpg", "odd.bin", "../outside.jpg"}
    assert places["gone.jpg"].bytes is None
    assert places["../outside.jpg"].bytes == len("outside.jpg") * 3
    assert origin.ignored == 4  # two images, the notes and the metadata file
    assert origin.warnings == ["2 images are not listed in metadata.csv and ignored"]
    assert origin.read("odd.bin", None, None) == b"odd.bin" * 3
    with pytest.raises(ImageError, match="No such file"):
        origin.read("gone.jpg", None, None)


def test_a_metadata_file_may_name_urls_and_whole_paths(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/far/away.jpg", b"far")
    write(tmp_path / "other", "x.jpg")
    folder = write(tmp_path / "photos", "a.jpg")
    names = ["memory://far/away.jpg", str(tmp_path / "other" / "x.jpg"), "a.jpg"]
    (folder / "metadata.jsonl").write_text("".join(f'{{"file_name": "{name}"}}\n' for name in names))
    [origin] = open_inputs([folder])
    contents = {place.path: origin.read(place.path, place.offset, place.bytes) for place in origin.places()}
    assert contents == dict(zip(names, [b"far", b"x.jpg" * 3, b"a.jpg" * 3], strict=True))


@pytest.mark.parametrize("content", ["path,label\na.jpg,3\n", "", "\x00\x01\x02"])
def test_a_metadata_csv_without_file_names_is_a_file_like_any(tmp_path: Path, content: str) -> None:
    write(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "metadata.csv").write_text(content)
    (tmp_path / "metadata.parquet").write_bytes(b"no parquet")
    paths, origin = listed(tmp_path)
    assert paths == {"a.jpg", "b.jpg"}
    assert origin.ignored == 2
    assert origin.warnings == []


def test_a_metadata_file_that_lists_nothing_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    (tmp_path / "metadata.csv").write_text("file_name\n")
    with pytest.raises(LanitError, match=r"metadata\.csv lists no images") as caught:
        listed(tmp_path)
    assert "column file_name, or remove" in caught.value.hint


def test_lines_of_metadata_that_are_damaged_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "b.jpg")
    lines = ['{"file_name": "a.jpg"}', "{broken", "[1, 2]", '{"file_name": "b.jpg"}']
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    paths, origin = listed(tmp_path)
    assert paths == {"a.jpg", "b.jpg"}
    metadata = tmp_path / "metadata.jsonl"
    assert origin.warnings == [f"2 lines are not JSON objects, the first is {metadata}, line 2"]


@pytest.mark.parametrize("listed_by", ["", "metadata.csv", "table.csv"])
def test_memory_does_not_grow_with_the_files(tmp_path: Path, listed_by: str) -> None:
    tries = itertools.count()

    def peak(count: int) -> int:
        names = [f"{number % 7}/{number}.jpg" for number in range(count)]
        folder = write(tmp_path / f"{count}-{next(tries)}", *names)
        if listed_by:
            (folder / listed_by).write_text("\n".join(["file_name", *names]))
        [origin] = open_inputs([folder / listed_by if listed_by == "table.csv" else folder])
        del names
        tracemalloc.start()
        try:
            assert sum(1 for _ in origin.places()) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(50)  # imports and caches
    # the least of three: what threads of other tests still hold or import is counted too
    assert min(peak(2200) for _ in range(3)) - peak(200) < 2000 * 30  # a path alone takes more
