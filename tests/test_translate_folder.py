"""The folder of results: nothing outside of it is written, nothing in it that is not lanit's, and damage is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lanit.errors import LanitError
from pipeline.files import write_json
from pipeline.translating.naming import SCRATCH_NAME
from pipeline.translating.requests import TranslateRequest
from pipeline.translating.translation import TranslateOptions, translate
from tests.translation_world import TABLES, files, make_model, pictures

HAT = TranslateRequest(to=(("hat", 1.0),))
BLOND = TranslateRequest(to=(("blond hair", 1.0),))
BLIND = TranslateOptions(batch_size=2, part_images=2, margins=False, workers=1)
ANEW = replace(BLIND, overwrite=True)


@pytest.fixture
def source(make_images: Callable[..., Path]) -> Path:
    return make_images(7, "photos")


@pytest.fixture
def model(source: Path, tiny_clip: Any, tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", source, tiny_clip)


@pytest.fixture
def out(source: Path, model: Path, tmp_path: Path) -> Path:
    """Seven results in the folders a and b, finished."""
    translate(source, tmp_path / "out", model, HAT, BLIND)
    return tmp_path / "out"


def interrupt(source: Path, out: Path, model: Path, options: TranslateOptions = BLIND, after: int = 5) -> None:
    def stop(done: int, of: int, shares: str) -> None:
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        translate(source, out, model, HAT, options, progress=stop)


def flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 4
    path.write_bytes(data)


def renamed_results(table: Path, names: dict[str, str]) -> None:
    """A finished table that names other results, as somebody could write one."""
    found = pq.read_table(table)
    outputs = [names.get(name, name) for name in found["output"].to_pylist()]
    column = found.schema.get_field_index("output")
    pq.write_table(found.set_column(column, "output", pa.array(outputs)), table)


@pytest.mark.parametrize("options", [BLIND, ANEW], ids=["again", "overwrite"])
def test_nothing_is_written_or_removed_through_a_link(
    source: Path, model: Path, out: Path, tmp_path: Path, options: TranslateOptions
) -> None:
    outside = tmp_path / "outside"
    (out / "b").rename(outside)
    (out / "b").symlink_to(outside)
    before = files(outside)
    for request in (HAT, BLOND) if options.overwrite else (HAT,):
        with pytest.raises(LanitError, match="holds b, which lanit did not write there"):
            translate(source, out, model, request, options)
    (out / "b").unlink()
    (out / "b").mkdir()
    (out / "b" / "004.png").symlink_to(outside / "004.png")
    with pytest.raises(LanitError, match=r"holds b/004\.png, which lanit did not write there"):
        translate(source, out, model, HAT, options)
    assert files(outside) == before
    (out / "b" / "004.png").unlink()
    assert translate(source, out, model, HAT, options).ok == 7


def test_names_in_an_earlier_table_lead_nowhere_outside(source: Path, model: Path, out: Path, tmp_path: Path) -> None:
    size = (out / "a" / "001.png").stat().st_size
    for name in ("mine", "own"):
        (tmp_path / name).write_bytes(bytes(size))
    (out / "link").symlink_to(tmp_path)
    table = out / "translations.parquet"
    renamed_results(table, {"a/001.png": "../mine", "a/003.png": "link/own", "a/005.png": str(tmp_path / "own")})
    translate(source, out, model, BLOND, replace(ANEW, format="jpeg"))
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "own").read_bytes() == bytes(size)


def test_a_file_of_the_user_in_the_way_of_a_result_stays(source: Path, model: Path, out: Path) -> None:
    (source / "a" / "001.png").rename(source / "a" / "new.png")
    (out / "a" / "new.png").write_text("mine")
    before = files(out)
    for options in (BLIND, ANEW):
        with pytest.raises(LanitError, match=r"holds a/new\.png, which lanit did not write there") as caught:
            translate(source, out, model, HAT, options)
        assert "Move it away" in caught.value.hint
        assert (out / "a" / "new.png").read_text() == "mine"
        if options is BLIND:
            assert files(out) == before
    (out / "a" / "new.png").unlink()
    assert translate(source, out, model, HAT, ANEW).ok == 7


def test_overwrite_removes_results_that_are_as_they_were_written_and_nothing_else(
    source: Path, model: Path, out: Path
) -> None:
    (out / "a" / "001.png").write_text("retouched")
    (out / "a" / "notes.txt").write_text("mine")
    only_b = source / "b"
    translate(only_b, out, model, HAT, ANEW)
    assert {name: text for name, text in files(out).items() if name.startswith("a/")} == {
        "a/001.png": b"retouched",
        "a/notes.txt": b"mine",
    }
    assert set(pictures(out)) == {"000.png", "002.png", "004.png", "006.png", "a/001.png", "a/notes.txt"}


@pytest.mark.parametrize("place", [0.1, 0.5, 0.95])
def test_a_damaged_part_is_made_again(source: Path, model: Path, out: Path, place: float) -> None:
    expected = files(out)
    translate(source, out, model, BLOND, ANEW)
    interrupt(source, out, model, ANEW)
    parts = sorted((out / SCRATCH_NAME).glob("part-*.parquet"))
    flip(parts[1], place)
    report = translate(source, out, model, HAT, BLIND)
    assert any(f"{parts[1]} was changed since it was written" in warning for warning in report.warnings)
    assert report.done_before == 2 * (len(parts) - 1)
    assert files(out) == expected


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.8, 0.9, 0.99])
def test_a_damaged_table_is_not_taken_for_what_it_says(source: Path, model: Path, out: Path, place: float) -> None:
    expected = files(out)
    flip(out / "translations.parquet", place)
    try:
        report = translate(source, out, model, HAT, BLIND)
    except LanitError as error:
        refusal = error
    else:
        assert any("was changed since it was written" in warning for warning in report.warnings)
        assert report.done_before == 0
        assert files(out) == expected
        return
    assert "translations.parquet is damaged" in str(refusal)
    assert "--out DIR" in refusal.hint


def test_what_killed_runs_left_goes_and_what_others_put_into_the_scratch_folder_stays(
    source: Path, model: Path, out: Path
) -> None:
    expected = files(out)
    translate(source, out, model, BLOND, ANEW)
    interrupt(source, out, model, ANEW)
    left = [out / ".translations.csv.99999999.tmp", out / SCRATCH_NAME / ".0a1b2c3d-7.99999999.tmp",
            out / SCRATCH_NAME / "0a1b2c3d-7.tmp", out / SCRATCH_NAME / "worklist.sqlite"]  # fmt: skip
    for path in left:
        path.write_bytes(b"left")
    (out / SCRATCH_NAME / "thesis.txt").write_text("mine")
    assert translate(source, out, model, HAT, ANEW).done_before > 0, "the same command goes on"
    assert files(out) == expected | {f"{SCRATCH_NAME}/thesis.txt": b"mine"}


@pytest.mark.parametrize("name", [*TABLES, "thesis.txt"])
def test_a_folder_with_other_files_is_refused_and_stays(source: Path, model: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("mine")
    for options in (BLIND, ANEW):
        with pytest.raises(LanitError, match="holds other files and is no folder of translations"):
            translate(source, folder, model, HAT, options)
    assert files(folder) == {name: b"mine"}


def test_a_table_of_the_user_in_a_folder_where_a_run_was_interrupted_stays(
    source: Path, model: Path, tmp_path: Path
) -> None:
    interrupt(source, tmp_path / "out", model, after=1)
    (tmp_path / "out" / "labels.csv").write_text("mine")
    with pytest.raises(LanitError, match=r"holds labels\.csv, which lanit did not write there"):
        translate(source, tmp_path / "out", model, HAT, BLIND)
    assert (tmp_path / "out" / "labels.csv").read_text() == "mine"


def test_a_run_killed_before_anything_was_made_is_begun_anew(source: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / SCRATCH_NAME).mkdir(parents=True)
    (out / ".lock").touch()
    assert translate(source, out, model, HAT, BLIND).ok == 7
    write_json(out / "page.json", {})
    assert sorted(files(out)) == sorted([*pictures(out), *TABLES])
