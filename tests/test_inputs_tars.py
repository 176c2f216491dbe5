"""Tars: every way to write a name, members that are no images, and damage."""

from __future__ import annotations

import contextlib
import io
import os
import random
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import pytest

from lanit.errors import LanitError
from pipeline.decoding.limits import ImageError
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.places import listed as in_memory
from pipeline.inputs.tars import Tar

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def add(sink: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(data), kind, target
    sink.addfile(member, io.BytesIO(data))


def write_tar(path: Path, contents: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form, encoding="utf-8", errors="surrogateescape") as sink:
        for name, data in contents.items():
            add(sink, name, data)
    return path


def listed(path: Path) -> tuple[dict[str, bytes], Tar]:
    [origin] = open_inputs([path])
    assert isinstance(origin, Tar)
    places = list(origin.places())
    return {place.path: origin.read(place.path, place.offset, place.bytes) for place in places}, origin


@pytest.mark.parametrize("form", FORMATS)
def test_long_odd_and_foreign_names_read_back_in_every_format(tmp_path: Path, form: int) -> None:
    names = ["a.jpg", "é ü/日本.PNG", "deep/" * 40 + "end.jpg", "new\nline.jpg", "back\\slash.jpg", "a/../b.jpg"]
    if form != tarfile.USTAR_FORMAT:
        names += ["x" * 180 + ".jpg", "日" * 90 + ".webp"]
    if form == tarfile.GNU_FORMAT:
        names += [os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"\xff" * 120 + b".jpg")]
    contents = {name: name.encode("utf-8", "surrogateescape") * 7 for name in names}
    path = write_tar(tmp_path / "t.tar", contents, form)
    found, origin = listed(path)
    assert found == contents
    assert origin.warnings == []
    assert origin.ignored == 0


def test_names_come_in_one_spelling(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {"./a.jpg": b"1", "./b/./c.jpg": b"2", "b//d.jpg": b"3", "/e.jpg": b"4"})
    found, _ = listed(path)
    assert found == {"a.jpg": b"1", "b/c.jpg": b"2", "b/d.jpg": b"3", "/e.jpg": b"4"}


def test_offset_and_size_are_those_of_the_data_and_the_time_is_the_tars(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {"a.jpg": b"x" * 513, "b.jpg": b"", "c.jpg": b"yz"})
    [origin] = open_inputs([path])
    whole = path.read_bytes()
    places = list(origin.places())
    with tarfile.open(path) as reference:
        expected = [(member.name, member.offset_data, member.size) for member in reference]
    assert [(place.path, place.offset, place.bytes) for place in places] == expected
    assert whole[places[2].offset :][:2] == b"yz"
    assert {place.modified_ns for place in places} == {path.stat().st_mtime_ns}


def test_what_is_no_regular_image_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "of the whole tar"}) as sink:
        add(sink, "folder.jpg", kind=tarfile.DIRTYPE)
        add(sink, "a.jpg", b"data")
        add(sink, "a.json", b"{}")
        add(sink, "soft", kind=tarfile.SYMTYPE, target="a.jpg")
        add(sink, "pipe.jpg", kind=tarfile.FIFOTYPE)
        add(sink, "d/._a.jpg", b"resource fork")
        add(sink, ".git/b.jpg", b"hidden")
        add(sink, "photos/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", b"thumbnail")
        sparse = tarfile.TarInfo("sparse.jpg")
        sparse.size, sparse.pax_headers = 4, {"GNU.sparse.major": "1", "GNU.sparse.name": "sparse.jpg"}
        sink.addfile(sparse, io.BytesIO(b"hole"))
        add(sink, "Z.JPG", b"last")
    found, origin = listed(path)
    assert found == {"a.jpg": b"data", "Z.JPG": b"last"}
    assert origin.ignored == 7
    assert origin.warnings == []


@pytest.mark.parametrize("form", FORMATS)
def test_links_are_images_of_their_own_at_the_place_that_they_lead_to(tmp_path: Path, form: int) -> None:
    deep = "deep/" * (10 if form == tarfile.USTAR_FORMAT else 40)
    links = [
        ("cats/hard.jpg", tarfile.LNKTYPE, f"{deep}a.jpg"),
        ("dogs/hard again.jpg", tarfile.LNKTYPE, "./cats/hard.jpg"),
        ("dogs/soft.jpg", tarfile.SYMTYPE, "../b.jpg"),
        ("dogs/of a soft one.jpg", tarfile.SYMTYPE, "soft.jpg"),
        ("ahead.jpg", tarfile.SYMTYPE, "last.bin"),
    ]
    lost = [
        ("outside.jpg", tarfile.SYMTYPE, "../a.jpg"),
        ("absolute.jpg", tarfile.SYMTYPE, "/etc/a.jpg"),
        ("round.jpg", tarfile.SYMTYPE, "about.jpg"),
        ("about.jpg", tarfile.SYMTYPE, "round.jpg"),
    ]
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=form) as sink:
        add(sink, f"{deep}a.jpg", b"the image")
        add(sink, "b.jpg", b"old b")
        for name, kind, target in [*links, *lost]:
            add(sink, name, kind=kind, target=target)
        add(sink, "b.jpg", b"the other")
        add(sink, "last.bin", b"a third")
    found, origin = listed(path)
    assert found == {
        f"{deep}a.jpg": b"the image",
        "cats/hard.jpg": b"the image",
        "dogs/hard again.jpg": b"the image",
        "b.jpg": b"the other",
        "dogs/soft.jpg": b"the other",
        "dogs/of a soft one.jpg": b"the other",
        "ahead.jpg": b"a third",
    }
    assert origin.warnings == [f"4 links of images lead to no file in {path}"]
    assert origin.unlisted == [], "a link that leads nowhere hides no image"
    assert origin.ignored == 1 + len(lost)  # last.bin


def test_members_behind_a_sparse_file_of_the_old_kind_are_found(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {"sparse.jpg": b"s" * 700, "after.jpg": b"after"})
    data = bytearray(path.read_bytes())
    data[156:157] = tarfile.GNUTYPE_SPARSE
    data[482] = 1  # its map goes on in a block of its own, and in one more
    data[148:156] = b"        "
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    more, last = bytearray(512), bytes(512)
    more[504] = 1
    path.write_bytes(bytes(data[:512]) + bytes(more) + last + bytes(data[512:]))
    found, origin = listed(path)
    assert found == {"after.jpg": b"after"}
    assert origin.ignored == 1


def test_of_two_members_of_one_name_the_later_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as sink:
        add(sink, "a.jpg", b"old")
        add(sink, "b.jpg", b"other")
        add(sink, "a.jpg", b"new")
    [origin] = open_inputs([path])
    assert origin.later_counts
    assert {place.path: origin.read("", place.offset, place.bytes) for place in in_memory(origin)} == {
        "a.jpg": b"new",
        "b.jpg": b"other",
    }


def test_a_tar_cut_at_any_byte_yields_what_is_whole_and_says_so(tmp_path: Path) -> None:
    contents = {f"{'long name ' * 12}{number}.jpg": bytes([number]) * (400 * number) for number in range(1, 5)}
    whole = write_tar(tmp_path / "whole.tar", contents).read_bytes()
    ends = {}
    [origin] = open_inputs([tmp_path / "whole.tar"])
    for place in origin.places():
        assert place.offset is not None
        assert place.bytes is not None
        ends[place.path] = place.offset + place.bytes
    last = -(-max(ends.values()) // 512) * 512
    for size in [0, 1, 511, *range(512, last + 1, 171), last]:
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:size])
        found, origin = listed(path)
        assert found == {name: data for name, data in contents.items() if ends[name] <= size}, size
        assert "cut short or damaged" in origin.warnings[0], size


def test_a_damaged_header_ends_the_tar_with_a_warning(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {"a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c"})
    data = bytearray(path.read_bytes())
    data[1024 + 20] ^= 0xFF  # in the header of b.jpg
    path.write_bytes(data)
    found, origin = listed(path)
    assert found == {"a.jpg": b"a"}
    assert origin.warnings == [f"{path} is cut short or damaged at byte 1,024; the images before were taken"]


def test_headers_that_lie_about_sizes_do_no_harm(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {"a.jpg": b"a", "x" * 150 + ".jpg": b"b"})
    whole = path.read_bytes()
    for size in (b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"77777777777\0"):  # negative, vast, 8 GiB
        for header in (1024, 0):  # of the long name, of the first member
            data = bytearray(whole)
            data[header + 124 : header + 136] = size
            data[header + 148 : header + 156] = b"        "
            data[header + 148 : header + 156] = f"{sum(data[header : header + 512]):06o}\0 ".encode()
            path.write_bytes(data)
            [origin] = open_inputs([path])
            try:
                paths = [place.path for place in origin.places()]
            except LanitError:
                paths = []
            assert paths == (["a.jpg"] if header else [])


def test_random_damage_never_crashes_or_hangs(tmp_path: Path) -> None:
    rng = random.Random(5)
    whole = write_tar(tmp_path / "w.tar", {f"{'n' * (60 * i)}{i}.jpg": b"x" * 99 for i in range(6)}, tarfile.PAX_FORMAT)
    data = whole.read_bytes()
    path = tmp_path / "t.tar"
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(LanitError):  # where the first header is hit, it is no tar
            assert len(listed(path)[0]) <= 6


def test_a_tar_that_changed_under_a_reader_is_an_image_error(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {"a.jpg": b"a" * 2000})
    [origin] = open_inputs([path])
    [place] = origin.places()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ImageError, match="shorter since"):
        origin.read(place.path, place.offset, place.bytes)
    path.unlink()
    assert not origin.exists()
    with pytest.raises(ImageError, match="No such file"):
        origin.read(place.path, place.offset, place.bytes)
    with pytest.raises(ImageError, match="nothing tells where"):
        origin.read(place.path, None, None)


def test_a_tar_without_images_is_a_warning(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {"a.txt": b"text"})
    found, origin = listed(path)
    assert found == {}
    assert origin.ignored == 1
    assert origin.warnings == [f"there are no images in {path}"]


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (b"\x1f\x8b" + zlib.compress(bytes(2000)) + bytes(512), "is a compressed tar", "gunzip"),
        (b"no tar at all " * 60, "is not a tar", "download it again"),
    ],
    ids=["gzip", "text"],
)
def test_a_file_named_tar_that_is_none_says_so(tmp_path: Path, data: bytes, message: str, hint: str) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(data)
    with pytest.raises(LanitError) as caught:
        listed(path)
    assert caught.value.message == f"{path} {message}"
    assert hint in caught.value.hint


def test_memory_does_not_grow_with_the_members(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = write_tar(tmp_path / f"{count}.tar", {f"{number}.jpg": b"" for number in range(count)})
        tracemalloc.start()
        try:
            assert sum(1 for _ in Tar(str(path)).places()) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(50)  # imports and caches
    # the least of three: what threads of other tests still hold or import is counted too
    assert min(peak(3000) for _ in range(3)) < peak(300) * 1.3 + 10_000
