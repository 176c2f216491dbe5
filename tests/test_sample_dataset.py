"""A folder of drawn faces: complete, repeatable, and never mixed with what was there before."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lanit.errors import LanitError, UsageError
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


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(LanitError, match="not an empty folder"):
        write_faces(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
