"""Which images the rows of a table are of: its columns of names, and images of a store by what people call them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types
from numpy.typing import NDArray

from lanit.errors import LanitError, excerpt
from pipeline.files import storable
from pipeline.inputs.columns import KEY_COLUMNS, NAME_COLUMNS, PATH_COLUMNS, ImageColumn
from pipeline.inputs.storage import Troubles
from pipeline.path_names import one_spelling, with_slashes
from pipeline.tables.annotations import uploaded_name
from pipeline.tables.cells import Cells, OpenTable, is_text
from pipeline.tables.parquet import texts

Key = Literal["image_id", "path", "folder"]
Names = tuple[Key, tuple[str, ...]]
"""What names the images of the rows, and the name of each."""

_IMAGE_ID = re.compile("[0-9a-f]{16}")
_ODD = r"\./|//|\\|[^\x00-\x7F]|^\s|\s$"  # what a path has that may be spelled otherwise
_OWN = "lanit_"  # before a column of ours that gave way to a phrase: see column_names.py


def name_columns(names: Sequence[str]) -> list[str]:
    """Those of ``names`` that may name images, the likeliest first; where one is there twice, both."""
    order = dict.fromkeys(("image_id", *PATH_COLUMNS, *KEY_COLUMNS, *NAME_COLUMNS))
    found = []
    for name in order:
        own = [each for each in names if each.lower() == f"{_OWN}{name}"]
        found += own or [each for each in names if each.lower() == name]
    return found


def names_of(cells: Cells, path: Path) -> list[tuple[str, Names]]:
    """For each of ``cells``, columns of :func:`name_columns`, its name and the images that it names; the first is the
    likeliest. Raises LanitError where no column names them."""
    found: list[tuple[str, Names]] = []
    wrong: LanitError | None = None
    for name, column in cells:
        kind = column.type.value_type if types.is_dictionary(column.type) else column.type
        if not (is_text(kind) or types.is_integer(kind) or types.is_null(kind)):
            hint = "Name the image of each row in it."
            wrong = wrong or LanitError(f"{path}: column '{excerpt(name)}' holds {kind}, no texts", hint)
        elif name.lower().removeprefix(_OWN) != "image_id":
            found.append((name, ("path", _texts(column))))
        elif _holds_ids(column):
            found.insert(0, (name, ("image_id", _texts(column))))
        else:
            found.append((name, ("path", _texts(column))))
    if not found:
        raise wrong or LanitError(f"{path} has no column 'path' or 'image_id'", "Name the image of each row in one.")
    alike = [name for name, _ in found if name.lower() == found[0][0].lower()]
    if len(alike) > 1:
        raise LanitError(f"{path} has {len(alike)} columns '{excerpt(alike[-1])}'", "Keep one of them.")
    return found


def names_of_held(table: OpenTable, image: ImageColumn, rows: int) -> tuple[str, Names]:
    """The names of images that the table itself holds, as :class:`pipeline.inputs.tables.Table` gives them."""
    given = [[*table.texts(field, Troubles())] for field in (image.key, image.path) if field is not None]
    found, seen = [], set[str]()
    for row in range(rows):
        named = next((each[row] for each in given if each[row]), None) or f"row-{row:09d}"
        name = storable(one_spelling(named))
        found.append(f"{name}#{row}" if name in seen else name)
        seen.add(name)
    return image.key or image.path or "its rows", ("path", tuple(found))


def check_names(name: str, keys: Sequence[str], path: Path, *, may_repeat: bool) -> None:
    """Raise LanitError where a row names no image, or two name the same and may not."""
    if not keys:
        raise LanitError(f"{path} has no rows", "Give one row for each image.")
    if "" in keys:
        row = keys.index("") + 1
        raise LanitError(f"{path}: row {row} has no {excerpt(name)}", "Name the image of each row in it.")
    repeated, count = Counter(keys).most_common(1)[0]
    if count > 1 and not may_repeat:
        raise LanitError(f"{path} has {count} rows for '{excerpt(repeated)}'", "Keep one row for each image.")


def find_names(
    candidates: Sequence[Names], ids: pa.ChunkedArray, paths: pa.ChunkedArray, full_names: Callable[[], pa.ChunkedArray]
) -> tuple[int, Names, bool]:
    """Which of the ``candidates`` names images, by its number, with names as the store has them; and whether only by
    the end of their full names. Where none does, the first as it is.

    ids, paths: of n images. full_names: gives the source and path of each as one path; asked where nothing else fits.
    A name that leads nowhere stays, in the one spelling.
    """
    for number, (key, names) in enumerate(candidates):
        known = ids if key == "image_id" else paths
        named = _are_in(names, known)
        if key == "path" and not named.all():
            names = _respelled(names, named, paths)
            named = _are_in(names, known)
        if named.any():
            return number, (key, names), False
    for number, (key, names) in enumerate(candidates):
        if key == "path":
            plain = tuple(map(with_slashes, names))
            by_end = _by_end(plain, full_names(), paths)
            if by_end:
                return number, (key, tuple(by_end.get(name, name) for name in plain)), True
    key, names = candidates[0]
    return 0, (key, tuple(map(with_slashes, names)) if key == "path" else names), False


def _are_in(names: Sequence[str], known: pa.ChunkedArray) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(pa.array(names, known.type), value_set=known.combine_chunks()).to_numpy(False)
    return found


def _respelled(names: Sequence[str], named: NDArray[np.bool_], paths: pa.ChunkedArray) -> tuple[str, ...]:
    """``names`` that name nothing as they stand, as the path that differs in its spelling only: slashes, ``./``,
    composed letters, white space around it."""
    odd = paths.filter(pc.match_substring_regex(paths, _ODD)).to_pylist()
    of_spelling = {_spelling(path): path for path in reversed(odd)}
    spelled = [_spelling(name) for name in names]
    spelled = [of_spelling.get(name, name) for name in spelled]
    found = _are_in(spelled, paths)
    return tuple(
        name if done else other if leads else with_slashes(name)
        for name, done, other, leads in zip(names, named.tolist(), spelled, found.tolist(), strict=True)
    )


def _spelling(name: str) -> str:
    return unicodedata.normalize("NFC", with_slashes(name.strip()))


def _by_end(names: Sequence[str], full: pa.ChunkedArray, paths: pa.ChunkedArray) -> dict[str, str]:
    """The path of the only image whose full name ends with a name, whole folders compared; empty where a name is the
    end of several."""
    found: dict[str, str] = {}
    bare = {name.strip("/"): name for name in names}
    for slashes in {name.count("/") for name in bare}:
        pattern = rf"(?s)^.*?((?:[^/]*/){{{slashes}}}[^/]*)$"
        ends = pc.replace_substring_regex(pc.utf8_ltrim(full, "/"), pattern=pattern, replacement=r"\1")
        meant = pc.is_in(ends, value_set=pa.array([name for name in bare if name.count("/") == slashes], ends.type))
        for end, path in zip(ends.filter(meant).to_pylist(), paths.filter(meant).to_pylist(), strict=True):
            if bare[end] in found:
                return {}
            found[bare[end]] = path
    return found


def _texts(column: pa.ChunkedArray) -> tuple[str, ...]:
    chunks = column.chunks if is_text(column.type) else column.cast(pa.string()).chunks
    found = (text or "" for chunk in chunks for text in texts(chunk))
    return tuple(storable(one_spelling(uploaded_name(text))) for text in found)


def _holds_ids(column: pa.ChunkedArray) -> bool:
    """Whether it has ids of lanit's, and not the names of files as CelebA's ``image_id``."""
    return any(_IMAGE_ID.fullmatch(text) for text in _texts(column.slice(0, 8)))
