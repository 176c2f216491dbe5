"""Pages are one file each, load nothing, escape what they show, and say what a picture shows."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lanit.errors import UsageError
from pipeline.showing.pages import (
    Picture,
    check_page,
    data_uri,
    file_link,
    jpeg_uri,
    percent,
    plural,
    render_page,
    score,
    whole,
    write_page,
)
from pipeline.store.store_images import thumbnail_of


def test_a_picture_survives_its_address() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    decoded = Image.open(io.BytesIO(base64.b64decode(data_uri(picture).removeprefix("data:image/png;base64,"))))
    assert np.array_equal(np.asarray(decoded), picture)
    assert base64.b64decode(jpeg_uri(b"any").removeprefix("data:image/jpeg;base64,")) == b"any"


@pytest.mark.parametrize(("height", "width", "expected"), [(40, 90, (90, 40)), (400, 100, (24, 96)), (1, 500, (96, 1))])
def test_a_thumbnail_keeps_the_shape_and_is_never_larger_than_the_image(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    thumbnail = Image.open(io.BytesIO(thumbnail_of(np.full((height, width, 3), 200, np.uint8), 96)))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", expected)


def test_a_picture_has_a_text_a_link_where_there_is_one_and_a_box_where_it_is_gone() -> None:
    values = {"r": _report(), "clip": "", "model": "m", "several": False, "example": None}
    hit = {"rank": 1, "cosine": 0.5, "path": "p"}
    name = '<b>a & "b"</b>.jpg'
    escaped = "&lt;b&gt;a &amp; &#34;b&#34;&lt;/b&gt;.jpg"
    shown = [Picture(b"x", name), Picture(b"x", name, "file:///a%20b.jpg"), Picture(None, name)]
    plain, linked, gone = (render_page("search.html", values | {"hits": [(hit, each)]}) for each in shown)
    for page in (plain, linked, gone):
        assert escaped in page
        assert "<b>a" not in page
    assert f'<img src="{jpeg_uri(b"x")}" alt="{escaped}"' in plain
    assert "<a " not in plain
    assert '<a href="file:///a%20b.jpg"><img' in linked
    assert "<img" not in gone
    assert 'role="img"' in gone


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(Exception, match="undefined"):
        render_page("search.html", {"r": _report()})


def test_only_files_of_a_local_folder_have_a_link(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    assert file_link(str(tmp_path), "b/ü &.jpg") == (tmp_path / "b" / "ü &.jpg").as_uri()
    for source in (str(tmp_path / "a.tar"), str(tmp_path / "gone"), "s3://bucket/folder", "relative"):
        assert file_link(source, "x.jpg") is None


def test_a_page_is_named_so_before_any_work_is_done(tmp_path: Path) -> None:
    for name in ("page.txt", "page", "."):
        with pytest.raises(UsageError, match="not the name of a page"):
            check_page(tmp_path / name)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UsageError, match="not the name of a page"):
        write_page(tmp_path / "folder.html", "x")
    write_page(tmp_path / "new" / "page.HTML", "ä")
    assert (tmp_path / "new" / "page.HTML").read_bytes() == "ä".encode()


def test_numbers_as_people_read_them() -> None:
    assert (whole(1234567.0), score(0.12345), percent(0.5)) == ("1\u202f234\u202f567", "0.123", "50\u202f%")
    assert [plural(count, "image") for count in (0, 1, 6.25, 1000)] == [
        "0 images",
        "1 image",
        "6.25 images",
        "1\u202f000 images",
    ]


def _report() -> object:
    from pipeline.searching.search import SearchReport

    return SearchReport("store", "text", "words", 7, True, (), (), ())
