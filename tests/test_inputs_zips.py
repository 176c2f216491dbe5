"""Zips: names as programs write them, members that are no images, ranges, and damage; and single image files."""

from __future__ import annotations

import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lanit.errors import LanitError
from pipeline.decoding.limits import ImageError
from pipeline.inputs import remote
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.places import listed as in_memory
from pipeline.inputs.zips import Zip


def write_zip(path: Path, contents: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as sink:
        for name, data in contents.items():
            sink.writestr(name, data)
    return path


def listed(path: Path) -> tuple[dict[str, bytes], Zip]:
    [origin] = open_inputs([path])
    assert isinstance(origin, Zip)
    return {place.path: origin.read(place.path, place.offset, place.bytes) for place in in_memory(origin)}, origin


def reasons(path: Path) -> dict[str, str]:
    """Why each member cannot be read; empty where it can."""
    [origin] = open_inputs([path])
    found = {}
    for place in origin.places():
        try:
            origin.read(place.path, place.offset, place.bytes)
            found[place.path] = ""
        except ImageError as error:
            found[place.path] = error.reason
    return found


def test_images_of_all_folders_come_in_the_order_of_the_file_and_the_rest_is_counted(tmp_path: Path) -> None:
    names = ["z.jpg", "a/b/c.PNG", "a/d.webp"]
    others = [
        "a/notes.txt",
        ".git/x.jpg",
        "__MACOSX/a/._d.webp",
        "__MACOSX/e.jpg",
        "a/._d.webp",
        "a/@eaDir/d.webp/M.jpg",
    ]
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as sink:
        sink.mkdir("a")
        for name in [*names, *others]:
            sink.writestr(name, name.encode() * 3)
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        sink.writestr(link, "z.jpg")
    found, origin = listed(tmp_path / "t.zip")
    assert found == {name: name.encode() * 3 for name in names}
    places = list(origin.places())
    assert [place.path for place in places] == names
    assert [place.offset for place in places] == sorted(place.offset or 0 for place in places)
    assert {place.modified_ns for place in places} == {(tmp_path / "t.zip").stat().st_mtime_ns}
    assert origin.ignored == len(others) + 1
    assert origin.warnings == [f"1 symbolic links in {tmp_path / 't.zip'} are not followed"]


def test_names_are_utf8_whether_the_zip_says_so_or_not(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "t.zip", {"é/日本.jpg": b"said", "XX.jpg": b"unsaid", "YY.jpg": b"old"})
    data = path.read_bytes()
    data = data.replace(b"XX.jpg", "ü.jpg".encode()).replace(b"YY.jpg", b"\x81\x82.jpg")  # as a Mac writes; as DOS did
    path.write_bytes(data)
    assert listed(path)[0] == {"é/日本.jpg": b"said", "ü.jpg": b"unsaid", "üé.jpg": b"old"}


def test_the_later_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "t.zip", {"a.jpg": b"old", "b.jpg": b"b"})
    with zipfile.ZipFile(path, "a") as sink, pytest.warns(UserWarning, match="Duplicate"):
        sink.writestr("a.jpg", b"new")
    assert listed(path)[0] == {"a.jpg": b"new", "b.jpg": b"b"}


def test_zips_written_in_a_stream_with_a_file_before_them_or_a_comment_behind_read_back(tmp_path: Path) -> None:
    class Pipe:
        def __init__(self, path: Path) -> None:
            self.file = path.open("wb")

        def write(self, data: Any) -> int:
            return self.file.write(data)

        def flush(self) -> None:
            self.file.flush()

    contents = {f"{number}.jpg": random.Random(number).randbytes(3000) for number in range(3)}
    pipe = Pipe(tmp_path / "streamed.zip")
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as sink:  # type: ignore[arg-type]
        sink.comment = b"made by a test" * 99
        for name, data in contents.items():
            sink.writestr(name, data)
    pipe.file.close()
    assert listed(tmp_path / "streamed.zip")[0] == contents
    plain = write_zip(tmp_path / "plain.zip", contents)
    (tmp_path / "program.zip").write_bytes(b"#!/bin/sh\nexec unpack\n" * 9 + plain.read_bytes())
    assert listed(tmp_path / "program.zip")[0] == contents


def test_members_that_cannot_be_read_say_why_and_the_others_come(tmp_path: Path) -> None:
    bodies = {name: random.Random(name).randbytes(500) for name in ("good", "locked", "squeezed", "flipped", "header")}
    path = write_zip(tmp_path / "t.zip", {f"{name}.jpg": data for name, data in bodies.items()}, zipfile.ZIP_STORED)
    with zipfile.ZipFile(path, "a") as sink:
        sink.writestr("bz.jpg", b"x" * 500, zipfile.ZIP_BZIP2)
    with zipfile.ZipFile(path) as archive:
        offsets = {info.filename: info.header_offset for info in archive.infolist()}
    data = bytearray(path.read_bytes())
    data[offsets["flipped.jpg"] + 100] ^= 1
    data[offsets["header.jpg"]] ^= 1
    directory = data.rindex(b"PK\1\2", 0, data.rindex(b"locked.jpg"))
    data[directory + 8] |= 1
    directory = data.rindex(b"PK\1\2", 0, data.rindex(b"squeezed.jpg"))
    data[directory + 10 : directory + 12] = struct.pack("<H", 9)
    path.write_bytes(data)
    found = reasons(path)
    assert found.pop("good.jpg") == ""
    for name, words in {
        "locked.jpg": "encrypted: unpack the zip with its password",
        "squeezed.jpg": "compressed by Deflate64, which is not read: unpack the zip",
        "bz.jpg": "compressed by bzip2",
        "flipped.jpg": "its checksum is not what the directory says",
        "header.jpg": "it does not begin as a member does",
    }.items():
        assert words in found.pop(name)
    assert not found


def test_a_member_that_grows_beyond_what_it_says_or_says_too_much_takes_no_memory(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "t.zip", {"a.jpg": bytes(1 << 20)})
    whole = path.read_bytes()
    directory = whole.rindex(b"PK\1\2")
    for size, words in ((100, "its length is not"), (3 << 30, "more than any image")):
        data = bytearray(whole)
        data[directory + 24 : directory + 28] = struct.pack("<I", size)
        path.write_bytes(data)
        assert words in reasons(path)["a.jpg"]


@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_a_zip_that_is_not_whole_is_one_line(tmp_path: Path, keep: float) -> None:
    path = write_zip(tmp_path / "t.zip", {f"{number}.jpg": b"x" * 99 for number in range(5)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if 0 < keep < 1 else int(keep)])
    [origin] = open_inputs([path])
    with pytest.raises(LanitError, match="is not a whole zip") as caught:
        list(origin.places())
    assert caught.value.hint == "Copy or download it again."


def test_a_zip_that_was_replaced_gives_no_other_image(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "t.zip", {"a.jpg": b"a" * 99, "b.jpg": b"b" * 99}, zipfile.ZIP_STORED)
    [origin] = open_inputs([path])
    places = list(origin.places())
    write_zip(path, {"b.jpg": b"x" * 99, "a.jpg": b"y" * 99}, zipfile.ZIP_STORED)
    for place in places:
        with pytest.raises(ImageError, match="checksum"):
            origin.read(place.path, place.offset, place.bytes)
    with pytest.raises(ImageError, match="no such member by now"):
        open_inputs([path])[0].read("a.jpg", 7, 99)


def test_an_image_behind_a_url_is_one_request_and_nothing_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f"{number}.jpg": random.Random(number).randbytes(5000) for number in range(20)}
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/z/t.zip", write_zip(tmp_path / "t.zip", contents).read_bytes())
    monkeypatch.setattr(remote, "_BUFFER_BYTES", 3000)
    asked: list[tuple[int, int]] = []
    whole = type(memory).cat_file

    def cat_file(self: Any, path: str, start: int | None = None, end: int | None = None, **more: Any) -> Any:
        asked.append((start or 0, end or 0))
        return whole(self, path, start, end, **more)

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    try:
        [origin] = open_inputs(["memory://z/t.zip"])
        places = list(origin.places())
        assert sum(end - start for start, end in asked) < 10_000, "the listing reads more than the directory"
        for place in reversed(places):
            asked.clear()
            assert origin.read(place.path, place.offset, place.bytes) == contents[place.path]
            assert len(asked) == 1
            assert asked[0][1] - asked[0][0] < 5200
    finally:
        memory.store.clear()


def test_an_image_given_by_its_name_is_an_input_of_one(tmp_path: Path) -> None:
    (tmp_path / "a b.JPG").write_bytes(b"image")
    (tmp_path / "link.png").symlink_to("a b.JPG")
    for name in ("a b.JPG", "link.png"):
        [origin] = open_inputs([tmp_path / name])
        [place] = origin.places()
        assert (place.path, place.offset, place.bytes) == (name, None, 5)
        assert place.modified_ns == (tmp_path / name).stat().st_mtime_ns
        assert origin.read(place.path, None, 5) == b"image"
    assert len(open_inputs([f"{tmp_path}/*.JPG", tmp_path / "link.png"])) == 1, "the link leads to the first"
    (tmp_path / "a b.JPG").unlink()
    with pytest.raises(LanitError, match="there is no file"):
        list(origin.places())
