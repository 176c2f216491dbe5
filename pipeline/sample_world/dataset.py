"""A folder of drawn faces with their truth, to try every command on."""

from __future__ import annotations

import csv
from pathlib import Path

from PIL import Image

from lanit.errors import LanitError, UsageError
from pipeline.files import atomic_path
from pipeline.sample_world.faces import ATTRIBUTES, draw_face, sample_face

TRUTH_NAME = "truth.csv"


def write_faces(out: Path, count: int, seed: int = 0, size: int = 64) -> Path:
    """Draw faces 0 … ``count`` − 1 of world ``seed`` into ``out`` and return the path of their truth.

    Pictures are ``face-00000.png`` and on, RGB, ``size`` × ``size``. The truth is a CSV file with one row for each:
    ``path`` (relative to ``out``), then a 0 or 1 for each of :data:`ATTRIBUTES`. It is written last, so a folder that
    has it is complete. Same arguments, same bytes.

    Raises UsageError for a count below 1 or a size outside 16 … 1024, LanitError where ``out`` holds anything already.
    """
    if count < 1:
        raise UsageError(f"cannot draw {count} faces", "Try --count 2000.")
    if not 16 <= size <= 1024:
        raise UsageError(f"a face is drawn at 16 to 1024 pixels, not {size}", "Try --size 64.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LanitError(f"{out} exists and is not an empty folder", "Give the name of a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        face = sample_face(seed, index)
        name = f"face-{index:05d}.png"
        Image.fromarray(draw_face(face, size)).save(out / name)
        rows.append([name, *map(int, face.truth)])
    with atomic_path(out / TRUTH_NAME) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", *ATTRIBUTES])
        writer.writerows(rows)
    return out / TRUTH_NAME
