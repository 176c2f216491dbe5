"""A folder of drawn faces: complete, repeatable, and never mixed with what was there before."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lanit.errors import LanitError, UsageError
from pipeline.sample_world import dataset
from pipeline.sample_world.dataset import write_faces
from pipeline.sample_world.faces import ATTRIBUTES, draw_faces


def read_truth(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_row_of_the_truth_is_a_picture_and_what_was_drawn_in_it(tmp_path: Path) -> None:
    rows = read_truth(write_faces(tmp_path / "faces", 7, seed=3, size=40))
    pictures, truths = draw_faces(3, range(7), 40)
    assert [row["path"] for row in rows] == sorted(path.name for path in (tmp_path / "faces").glob("*.png"))
    assert list(rows[0]) == ["path", *ATTRIBUTES]
    for row, picture, truth in zip(rows, pictures, truths, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "faces" / row["path"])), picture)
        assert [row[name] for name in ATTRIBUTES] == [str(int(value)) for value in truth]


def test_same_arguments_same_bytes_and_another_seed_other_faces(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_faces(tmp_path / name, 5, seed=seed, size=32)
    folders = {name: [path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "abc"}
    assert folders["a"] == folders["b"]
    assert folders["a"] != folders["c"]


def test_a_larger_set_begins_with_the_smaller_one(tmp_path: Path) -> None:
    small, large = (read_truth(write_faces(tmp_path / str(n), n, size=16)) for n in (3, 6))
    assert large[:3] == small


@pytest.mark.parametrize(("count", "size"), [(0, 64), (-1, 64), (5, 8), (5, 4096)])
def test_impossible_requests_write_nothing(tmp_path: Path, count: int, size: int) -> None:
    with pytest.raises(UsageError):
        write_faces(tmp_path / "faces", count, size=size)
    assert not (tmp_path / "faces").exists()


@pytest.mark.parametrize("name", ["holiday.jpg", "face-00000.png", "truth.csv"])
def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(LanitError, match="holds other files and is no folder of faces"):
        write_faces(tmp_path, 3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"mine"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("after", [0, 1, 5, 6])
def test_the_same_call_completes_what_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """At the first face, amid them, and at the truth."""
    write_faces(tmp_path / "whole", 6, size=16)
    put, steps = dataset._put, list[str]()

    def killed(path: Path, data: bytes) -> None:
        if len(steps) == after:
            raise KeyboardInterrupt
        steps.append(path.name)
        put(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "_put", killed)
        with pytest.raises(KeyboardInterrupt):
            write_faces(tmp_path / "faces", 6, size=16)
    (tmp_path / "faces" / ".face-00003.png.99999999.tmp").write_bytes(b"half")
    if after > 1:
        (tmp_path / "faces" / "face-00000.png").write_bytes((tmp_path / "whole" / "face-00000.png").read_bytes()[:50])
    write_faces(tmp_path / "faces", 6, size=16)
    assert contents(tmp_path / "faces") == contents(tmp_path / "whole")


def test_a_finished_folder_says_so_and_its_missing_faces_are_drawn_again(tmp_path: Path) -> None:
    told: list[str] = []
    write_faces(tmp_path, 4, size=16, tell=told.append)
    assert told == []
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    expected = contents(tmp_path)
    write_faces(tmp_path, 4, size=16, tell=told.append)
    assert told == [f"{tmp_path} already has these faces: nothing drawn"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    (tmp_path / "face-00002.png").unlink()
    write_faces(tmp_path, 4, size=16, tell=told.append)
    assert contents(tmp_path) == expected
    assert len(told) == 1


@pytest.mark.parametrize("arguments", [{"count": 5}, {"seed": 1}, {"size": 17}])
def test_faces_of_other_arguments_are_named_and_stay(tmp_path: Path, arguments: dict[str, int]) -> None:
    write_faces(tmp_path, 4, seed=0, size=16)
    before = contents(tmp_path)
    with pytest.raises(LanitError, match="--count 4 --seed 0 --size 16"):
        write_faces(tmp_path, arguments.get("count", 4), arguments.get("seed", 0), arguments.get("size", 16))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["face-00001.png", "truth.csv", ".lanit-faces.json"])
def test_a_face_or_a_truth_that_was_changed_stays(tmp_path: Path, name: str) -> None:
    write_faces(tmp_path / "faces", 4, size=16)
    path = tmp_path / "faces" / name
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(LanitError, match=f"{name}.* (is not as it was drawn|is damaged|is not valid JSON)"):
        write_faces(tmp_path / "faces", 4, size=16)
    assert path.read_bytes() == changed


def test_no_face_is_drawn_through_a_link(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 3, size=16)
    (tmp_path / "faces" / "face-00001.png").unlink()
    (tmp_path / "faces" / "face-00001.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(LanitError, match=r"face-00001\.png is not as it was drawn"):
        write_faces(tmp_path / "faces", 3, size=16)
    assert not (tmp_path / "outside.png").exists()
