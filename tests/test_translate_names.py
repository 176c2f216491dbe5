"""Whatever goes in, every result has a name of its own below the folder of results, and every image a row."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lanit.errors import LanitError
from pipeline.decoding.images import decode_rgb
from pipeline.files import storable
from pipeline.translating.naming import Naming, tagged
from pipeline.translating.pictures import encode_picture
from pipeline.translating.requests import TranslateRequest
from pipeline.translating.translation import TranslateOptions, translate
from tests.hostile_files import make_hostile_folder
from tests.translation_world import TABLES, files, good, make_model, make_source, pictures, pixels, table

HAT = TranslateRequest(to=(("hat", 1.0),))
BLIND = TranslateOptions(margins=False)


@pytest.fixture
def source(make_images: Callable[..., Path]) -> Path:
    return make_source(make_images)


@pytest.fixture
def model(source: Path, tiny_clip: Any, tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", source, tiny_clip)


def encoded(size: tuple[int, int] = (40, 30), form: str = "PNG", seed: int = 0) -> bytes:
    sink, rng = io.BytesIO(), np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(sink, form)
    return sink.getvalue()


def write_tar(path: Path, contents: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as sink:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            sink.addfile(member, io.BytesIO(data))
    return path


def test_results_keep_names_and_formats_that_can_be_written(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    kinds = {"a.jpg": "JPEG", "b.JPEG": "JPEG", "c.png": "PNG", "d.webp": "WEBP", "e.bmp": "BMP", "f.tiff": "TIFF"}
    for name, form in (kinds | {"g.gif": "GIF", "h.ppm": "PPM"}).items():
        (folder / name).write_bytes(encoded(form=form))
    translate(folder, tmp_path / "out", model, HAT, BLIND)
    assert sorted(pictures(tmp_path / "out")) == sorted([*kinds, "g.png", "h.png"])
    for name, form in (kinds | {"g.png": "PNG", "h.png": "PNG"}).items():
        with Image.open(tmp_path / "out" / name) as image:
            assert (image.format, image.size) == (form, (32, 32))


@pytest.mark.parametrize(("form", "suffix", "most"), [("png", ".png", 0), ("jpeg", ".jpg", 12)])
def test_one_format_for_all(model: Path, tmp_path: Path, form: Any, suffix: str, most: float) -> None:
    """JPEG at quality 95 with all its colours stays within some levels of the PNG, even for noise."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, kind in {"a.jpg": "JPEG", "b.png": "PNG", "c.webp": "WEBP"}.items():
        (folder / name).write_bytes(encoded(form=kind))
    translate(folder, tmp_path / "png", model, HAT, TranslateOptions(margins=False, format="png"))
    translate(folder, tmp_path / "out", model, HAT, TranslateOptions(margins=False, format=form))
    assert sorted(pictures(tmp_path / "out")) == [f"{stem}{suffix}" for stem in "abc"]
    for stem in "abc":
        difference = np.abs(pixels(tmp_path / "out" / f"{stem}{suffix}") - pixels(tmp_path / "png" / f"{stem}.png"))
        assert difference.mean() <= most


def test_formats_other_than_jpeg_lose_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 20, 3), dtype=np.uint8)
    for name in ("a.png", "a.webp", "a.WEBP", "a.bmp", "a.tif", "a.gif"):
        np.testing.assert_array_equal(decode_rgb(encode_picture(noise, name)), noise)
    red = np.zeros((32, 32, 3), np.uint8)
    red[::2, :, 0] = 200  # lines of colour, which half-sized colours would mix
    assert np.abs(decode_rgb(encode_picture(red, "a.jpg")).astype(int) - red).mean() < 4


def test_outputs_are_named_after_inputs_and_never_collide(model: Path, tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "twins"
    folder.mkdir()
    names = ("x.png", "x.gif", "x.gif.png", "x.ppm", "y.tga", "Z.JPG", "x.png.jpg")
    for name in names:
        Image.open(source / good(source)[0]).convert("RGB").save(folder / name)
    report = translate(folder, tmp_path / "out", model, HAT, BLIND)
    outputs = {row["path"]: row["output"] for row in table(tmp_path / "out")}
    assert report.ok == len(names) == len(set(outputs.values()))
    assert all(outputs[name] == name for name in ("x.png", "x.gif.png", "Z.JPG", "x.png.jpg"))
    assert (outputs["y.tga"], outputs["x.gif"], outputs["x.ppm"]) == ("y.png", "x~2.png", "x.ppm.png")
    assert sorted(pictures(tmp_path / "out")) == sorted(outputs.values())


def test_names_of_several_styles_do_not_meet_those_of_other_images(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twins"
    folder.mkdir()
    for name in ("x.png", "x-style2.png"):
        (folder / name).write_bytes(encoded())
    report = translate(folder, tmp_path / "out", model, TranslateRequest(to=(("hat", 1.0),), styles=2), BLIND)
    assert (report.ok, report.results, len(pictures(tmp_path / "out"))) == (2, 4, 4)
    assert tagged("a.b/c.d.png", "-style2") == "a.b/c.d-style2.png"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("../../etc/x.png", "etc/x.png"),
        ("/abs/x.png", "abs/x.png"),
        ("a/./../b//x.png", "a/b/x.png"),
        ("https://host/a/x.png?size=3", "host/a/x.png"),
        ("s3://bucket/x.png", "bucket/x.png"),
        ("..", "image"),
    ],
)
def test_no_name_leads_out_of_the_folder(path: str, expected: str) -> None:
    naming = Naming(frozenset({".png"}), ".png")
    assert naming.base("source", path) == expected
    assert next(naming.candidates(naming.base("source", path))) in (expected, f"{expected}.png")


def test_a_tar_is_translated_and_what_it_names_stays_below_the_folder(model: Path, tmp_path: Path) -> None:
    contents = {"../evil.png": encoded(), "d/a.jpg": encoded(form="JPEG"), "d/bad.jpg": b"nothing", "d/a.json": b"{}"}
    report = translate(write_tar(tmp_path / "t.tar", contents), tmp_path / "deep" / "out", model, HAT, BLIND)
    assert (report.found, report.ok, report.failed) == (3, 2, 1)
    assert sorted(pictures(tmp_path / "deep" / "out")) == ["d/a.jpg", "evil.png"]
    assert not (tmp_path / "deep" / "evil.png").exists()
    assert {row["path"] for row in table(tmp_path / "deep" / "out")} == {"../evil.png", "d/a.jpg", "d/bad.jpg"}


def test_several_inputs_have_a_folder_each(model: Path, source: Path, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "photos.tar", {"b/000.png": encoded()})
    held = pa.table({"key": ["one", "two.png"], "image": [encoded(seed=1), encoded(seed=2)]})
    pq.write_table(held, tmp_path / "rows.parquet")
    inputs = [source, tar, tmp_path / "rows.parquet", source / "a" / "001.png"]
    report = translate(inputs[:3], tmp_path / "out", model, HAT, BLIND)
    assert (report.found, report.ok) == (8 + 1 + 2, 7 + 1 + 2)
    expected = [*(f"photos/{name}" for name in good(source)), "photos~2/b/000.png", "rows/one.png", "rows/two.png"]
    assert sorted(pictures(tmp_path / "out")) == sorted(expected)
    files_alone = translate([source / "a" / "001.png", source / "a" / "003.png"], tmp_path / "few", model, HAT, BLIND)
    assert (files_alone.found, sorted(pictures(tmp_path / "few"))) == (2, ["001.png", "003.png"])
    with pytest.raises(LanitError, match="another request, model or input"):
        translate(source / "a" / "005.png", tmp_path / "few", model, HAT, BLIND)


def test_every_hostile_file_is_a_row_and_its_neighbours_are_translated(model: Path, tmp_path: Path) -> None:
    verdicts = make_hostile_folder(tmp_path / "files")
    report = translate(tmp_path / "files", tmp_path / "out", model, HAT, TranslateOptions(16, margins=False))
    assert report.found == len(verdicts) == report.ok + report.failed
    rows = {row["path"]: row for row in table(tmp_path / "out")}
    for name, verdict in verdicts.items():
        row = rows[storable(name)]
        if verdict != "either":
            assert row["status"] == {"ok": "ok", "bad": "failed"}[verdict], (name, row["error_message"])
        assert (row["output"] == "") == (row["status"] == "failed") == (row["error_message"] != "")
    outputs = {row["output"] for row in rows.values() if row["output"]}
    assert len(outputs) == report.ok == len(pictures(tmp_path / "out"))
    assert all((tmp_path / "out" / output).is_file() for output in outputs)


def test_a_folder_of_other_files_is_left_alone(model: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "001.png").write_bytes(b"precious")
    (tmp_path / "file").write_bytes(b"")
    for out, message in [("mine", "holds other files"), ("file", "is a file")]:
        with pytest.raises(LanitError, match=message):
            translate(source, tmp_path / out, model, HAT, BLIND)
    assert files(tmp_path / "mine") == {"001.png": b"precious"}
    with pytest.raises(LanitError, match="folder of the originals, or holds it"):
        translate([source / "a", source / "b"], source, model, HAT, BLIND)
    assert set(TABLES) & set(files(source)) == set()
