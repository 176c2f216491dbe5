"""``lanit pair``: images that are to become others, by two folders of equal names or by a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from lanit.errors import LanitError, UsageError, listed
from pipeline.inputs.formats import folder_of
from pipeline.inputs.storage import Troubles, located
from pipeline.inputs.table_cells import opened_table
from pipeline.labelling.image_folders import image_folders
from pipeline.path_names import one_spelling, with_slashes
from pipeline.store.pairs import write_pairs
from pipeline.store.store_folder import lock_store

if TYPE_CHECKING:
    from pipeline.store.store import Store

IMAGE, TARGET = "image_path", "target_path"
"""Columns of a table of pairs."""


@dataclass(frozen=True)
class PairReport:
    """pairs: images that have a partner now. alone: images of the first folder, or rows of the table, without."""

    store: str
    pairs: int
    alone: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def pair(store: Store, given: Sequence[str]) -> PairReport:
    """Note which images are to become which, for paired training; earlier pairs are replaced.

    given: two folders of the store by their names, whose files of equal names, suffixes apart, are pairs of the first
    to the second; or one table with columns ``image_path`` and ``target_path``, relative to the table or absolute.
    Raises UsageError for anything else, LanitError where there are no such folders, columns, or pairs.
    """
    if len(given) not in (1, 2):
        raise UsageError(f"pairs are of two folders or in one table, not {len(given)}", "Try: lanit pair FROM TO")
    found, alone = _by_folders(store, *given) if len(given) == 2 else _by_table(store, given[0])
    if not found:
        raise LanitError(
            f"no images of {' and '.join(given)} are pairs", "Equal names make pairs, or the two columns of a table."
        )
    with lock_store(store.root):
        write_pairs(store, *np.array(list(found.items()), np.int64).T)
    return PairReport(str(store.root), len(found), alone)


def _by_folders(store: Store, first: str, second: str) -> tuple[dict[int, int], int]:
    """Row to row of files of equal names, and how many of the first folder have none."""
    folders = image_folders(store)
    names = [kind[0] if len(kind) == 1 else "" for kind in folders.kinds]
    codes = folders.codes.to_numpy()
    rows = []
    for name in (first, second):
        wanted = [code for code, known in enumerate(names) if known == name.strip("/")]
        if not wanted:
            there_are = listed(sorted(filter(None, names)), 6) or "none"
            raise LanitError(f"no images lie in a folder {name}", f"Folders: {there_are}.")
        rows.append(np.flatnonzero(np.isin(codes, wanted)))
    paths = store.ok_images()["path"]
    stems = [[PurePosixPath(path).stem for path in paths.take(each).to_pylist()] for each in rows]
    there = dict(zip(stems[1], rows[1].tolist(), strict=True))
    found = {row: there[stem] for row, stem in zip(rows[0].tolist(), stems[0], strict=True) if stem in there}
    return found, len(rows[0]) - len(found)


def _by_table(store: Store, path: str) -> tuple[dict[int, int], int]:
    """Row to row as the table names them, and how many of its rows name no two images of the store."""
    with opened_table(path) as table:
        missing = {IMAGE, TARGET} - set(table.schema.names)
        if missing:
            raise LanitError(f"{path} has no column '{min(missing)}'", f"Pairs are in two: {IMAGE} and {TARGET}.")
        cells = [list(table.texts(name, Troubles())) for name in (IMAGE, TARGET)]
    images = store.images(["source", "path", "status"])
    images = images.filter(pc.equal(images["status"], "ok"))
    full = [
        located(folder_of(source), name)
        for source, name in zip(images["source"].to_pylist(), images["path"].to_pylist(), strict=True)
    ]
    known = {name: row for row, name in enumerate(full)}
    folder = PurePosixPath(Path(path).resolve().parent.as_posix())
    found, pairs = {}, list(zip(*cells, strict=True))
    for image, target in pairs:
        rows = [_row_of(cell, folder, known) for cell in (image, target)]
        if rows[0] is not None and rows[1] is not None:
            found[rows[0]] = rows[1]
    return found, len(pairs) - len(found)


def _row_of(cell: str | None, folder: PurePosixPath, known: dict[str, int]) -> int | None:
    """The row of the image that a cell names; none where there is none."""
    if not cell:
        return None
    name = with_slashes(one_spelling(cell.strip()))
    return known.get(str(folder / name), known.get(name))
