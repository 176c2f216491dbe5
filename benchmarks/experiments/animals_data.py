"""Small photographs of animals, with their classes: which rows of the given tables serve what.

Two Parquet files, ``*-train.parquet`` and ``*-test.parquet``, with the columns ``path``, ``jpeg`` (bytes), ``class``,
and where animals have boxes ``x0``, ``y0``, ``x1``, ``y1``: the first and the last of its pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lanit.errors import LanitError
from pipeline.files import atomic_path

KNOWN_ROWS = 10_000
"""Training rows whose classes CLIP and the judge see; the generator trains on the others, unlabelled."""

_COLUMNS = ("path", "jpeg", "class")
_BOX = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class AnimalTable:
    """Rows of a table. names: classes by the alphabet. classes: int64 (n), numbers in ``names``."""

    table: pa.Table
    names: tuple[str, ...]
    classes: np.ndarray

    def pictures(self) -> np.ndarray:
        """Uint8 RGB (n×S×S×3); all images of one size."""
        cells = self.table["jpeg"].to_pylist()
        return np.stack([np.asarray(Image.open(io.BytesIO(cell)).convert("RGB")) for cell in cells])

    def truth(self) -> np.ndarray:
        """One-hot classes, bool (n×N)."""
        return self.classes[:, None] == np.arange(len(self.names))

    def write(self, folder: Path) -> tuple[Path, Path]:
        """``images.parquet``, to be embedded, and ``truth.csv`` (path and a column for each class) in ``folder``."""
        return write_table(folder, self.table, self.names, self.truth())


def write_table(folder: Path, table: pa.Table, names: Sequence[str], truth: np.ndarray) -> tuple[Path, Path]:
    """``images.parquet`` and ``truth.csv`` in ``folder``. table: with the columns path and jpeg. truth: bool (n×N).

    What is there already stays: a newer file would be embedded anew, under the feet of an experiment beside this one.
    """
    images, known = folder / "images.parquet", folder / "truth.csv"
    table, there = table.select(["path", "jpeg"]), pq.read_table(images) if images.is_file() else None
    if there is None or not there.equals(table):
        with atomic_path(images) as temporary:
            pq.write_table(table, temporary)
    rows = zip(table["path"].to_pylist(), truth.astype(int), strict=True)
    lines = [",".join(("path", *names)), *(",".join((path, *map(str, row))) for path, row in rows)]
    with atomic_path(known) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return images, known


def read_animals(
    data: Path, known_rows: int = KNOWN_ROWS, name: str = "*"
) -> tuple[AnimalTable, AnimalTable, AnimalTable]:
    """Rows whose classes may be known, the other training rows, held-out rows. Each image is in one of them.

    data: the folder of the two files; name: what stands before "-train" and "-test". Raises LanitError where there is
    not exactly one of each, or one has other columns.
    """
    train, test = (_read(data, f"{name}-{part}.parquet") for part in ("train", "test"))
    if train.num_rows <= known_rows:
        raise LanitError(f"the training table in {data} has {train.num_rows} rows; more than {known_rows} are needed")
    names = tuple(sorted(set(train["class"].to_pylist())))
    order = np.random.default_rng(0).permutation(train.num_rows)
    known, unlabelled = train.take(order[:known_rows]), train.take(order[known_rows:])
    return _table(known, names), _table(unlabelled, names), _table(test, names)


def read_large_animals(data: Path, name: str, side: int, share: float) -> tuple[AnimalTable, AnimalTable, AnimalTable]:
    """As :func:`read_animals`, of photographs of ``side`` pixels whose animals have boxes: half of those of which the
    box covers ``share`` at least are to train on, unlabelled; all others, of whatever box, may be known; of held-out
    rows only those with a large box are taken."""
    train, test = (_read(data, f"{name}-{part}.parquet", (*_COLUMNS, *_BOX)) for part in ("train", "test"))
    names = tuple(sorted(set(train["class"].to_pylist())))
    order = np.random.default_rng(0).permutation(train.num_rows)
    large = order[_box_share(train, side)[order] >= share]
    unlabelled = large[len(large) // 2 :]
    known = order[~np.isin(order, unlabelled)]
    held_out = np.flatnonzero(_box_share(test, side) >= share)
    return _table(train.take(known), names), _table(train.take(unlabelled), names), _table(test.take(held_out), names)


def _box_share(table: pa.Table, side: int) -> np.ndarray:
    """The share of a picture of ``side`` pixels that the box covers: float64 (n)."""
    x0, y0, x1, y1 = (table[name].to_numpy().astype(np.float64) for name in _BOX)
    covered: np.ndarray = (x1 - x0 + 1) * (y1 - y0 + 1) / side**2
    return covered


def _read(data: Path, pattern: str, columns: tuple[str, ...] = _COLUMNS) -> pa.Table:
    found = sorted(data.glob(pattern))
    if len(found) != 1:
        raise LanitError(f"{len(found)} files in {data} are named {pattern}; one is needed")
    table = pq.read_table(found[0])
    if not set(columns) <= set(table.column_names):
        raise LanitError(f"{found[0]} lacks one of the columns {', '.join(columns)}")
    return table.select(list(columns)).set_column(2, "class", table["class"].cast(pa.string()))


def _table(table: pa.Table, names: tuple[str, ...]) -> AnimalTable:
    classes = np.array([names.index(name) for name in table["class"].to_pylist()])
    return AnimalTable(table.select(["path", "jpeg"]), names, classes)
