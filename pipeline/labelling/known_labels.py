"""Labels that people know: from a CSV or Parquet table or from the folders that images lie in, joined to images."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lanit.errors import LanitError, excerpt, listed

if TYPE_CHECKING:
    from pipeline.labelling.image_folders import ImageFolders
    from pipeline.store.store import Store

Bools = NDArray[np.bool_]
Key = Literal["image_id", "path", "folder"]

FOLDERS = "folders"
"""Said in the place of a file: the folder that an image lies in names its domain."""

_KEYS: tuple[Key, ...] = ("image_id", "path")
_ON, _OFF, _BACK = ("1", "1.0", "true"), ("0", "0.0", "-1", "-1.0", "false"), ("?",)
_UNKNOWN, _TAKEN_BACK, _WRONG = -1, -2, -3


@dataclass(frozen=True)
class Truth:
    """Known labels. key: what names an image; folder: what says them is the folders it lies in. keys: path of each of
    the m rows, else image_id.

    labels: bool (m×D). domains: D phrases. known: bool (m×D), which labels say something; none where all do.
    withdrawn: bool (m×D), where an earlier label by people is taken back; none where none is.
    """

    key: Key
    keys: tuple[str, ...]
    domains: tuple[str, ...]
    labels: Bools
    known: Bools | None = None
    withdrawn: Bools | None = None

    def align(self, image_ids: pa.ChunkedArray, paths: pa.ChunkedArray) -> NDArray[np.int64]:
        """For each of n images its row of this table, −1 where it has none: int64 (n).

        Raises LanitError where no image has one, or where one row names two images.
        """
        names = paths if self.key == "path" else image_ids
        found = pc.index_in(names, value_set=pa.array(self.keys, names.type))
        rows = pc.fill_null(found, -1).to_numpy().astype(np.int64)
        if not (rows >= 0).any():
            example = (
                f", such as '{excerpt(self.keys[0])}' against '{excerpt(names[0].as_py())}'"
                if len(names) and self.keys
                else ""
            )
            raise LanitError(
                f"no {self.key} of the known labels is an image of the store{example}",
                "Write paths relative to the embedded folder.",
            )
        if np.bincount(rows[rows >= 0]).max() > 1:
            raise LanitError("two sources of this store hold images of the same path", "Give the labels by image_id.")
        return rows

    def values(self, rows: NDArray[np.int64], domains: Sequence[str]) -> NDArray[np.int8]:
        """1, 0, or −1 where nothing is known, int8 (b×N), of the table's ``rows`` (−1 for none) in ``domains``."""
        out = np.full((len(rows), len(domains)), -1, np.int8)
        has = rows >= 0
        for n, domain in enumerate(domains):
            if domain in self.domains:
                column = self.domains.index(domain)
                known = self.labels[:, column].astype(np.int8)
                if self.known is not None:
                    known[~self.known[:, column]] = -1
                out[has, n] = known[rows[has]]
        return out

    def taken_back(self, rows: NDArray[np.int64], domains: Sequence[str]) -> Bools:
        """Where earlier labels are taken back, bool (b×N), of the table's ``rows`` (−1 for none) in ``domains``."""
        out = np.zeros((len(rows), len(domains)), bool)
        for n, domain in enumerate(domains):
            if self.withdrawn is not None and domain in self.domains:
                out[:, n] = (rows >= 0) & self.withdrawn[rows, self.domains.index(domain)]
        return out


def read_truth(path: Path, domains: Sequence[str] | None, *, blanks: bool = False) -> Truth:
    """Read a CSV or Parquet file of known labels.

    It has a column ``image_id`` or ``path`` (relative to the embedded folder) and a column of 0 or -1 and 1 (or false
    and true) for each domain; case, and "_" for a space, make no difference in column names; other columns are left
    alone. domains: none for every column but the keys. blanks: whether a label may be left out, or be "?", which takes
    an earlier one back.
    """
    table = _open_table(path)
    key = next((name for name in _KEYS if name in table.names), None)
    if key is None:
        raise LanitError(f"{path} has no column 'path' or 'image_id'", "Name the image of each row in one.")
    columns: dict[str, list[str]] = {}
    for name in table.names:
        if name not in _KEYS:
            columns.setdefault(plain(name), []).append(name)
    if domains is None:
        found = tuple(" ".join(names[0].replace("_", " ").split()) for names in columns.values())
    else:
        found = tuple(domain for domain in domains if plain(domain) in columns)
    if not found:
        missing = f"for any of: {listed(domains)}" if domains else "of labels"
        raise LanitError(f"{path} has no column {missing}", "Name its columns as the prompts.")
    columns[key] = [name for name in table.names if name == key]
    for alike in (columns[name] for name in (key, *map(plain, found))):
        if len(alike) > 1:
            raise LanitError(f"{path} has {len(alike)} columns '{excerpt(alike[-1])}'", "Keep one of them.")
    keys = _key_texts(table.column(key), key, path)
    chosen = [columns[plain(domain)][0] for domain in found]
    values = np.stack([_binary(table.column(name), path, name, blanks) for name in chosen], axis=1)
    known, withdrawn = values >= 0, values == _TAKEN_BACK
    return Truth(key, keys, found, values == 1, None if known.all() else known, withdrawn if withdrawn.any() else None)


def folder_truth(folders: ImageFolders, domains: Sequence[str]) -> Truth:
    """Each image carries the domains that its folder, or a folder above it, is named after, and no other.

    Images in no such folder are not known, and neither are domains that no folder is named after.
    Case, and "_" for a space, make no difference. Raises LanitError where no folder is.
    """
    wanted = [plain(domain) for domain in domains]
    parts = [{plain(part) for folder in kind for part in folder.split("/")} for kind in folders.kinds]
    rows = np.array([[name in kind for name in wanted] for kind in parts], bool).reshape(len(parts), len(wanted))
    if not rows.any():
        raise LanitError(
            f"no folder of the images is named after any of: {listed(domains)}",
            "Give a CSV or Parquet file with a column 'path' instead.",
        )
    codes = folders.codes.to_numpy()
    known = np.flatnonzero(np.asarray(rows.any(axis=1))[codes])
    named = np.flatnonzero(rows.any(axis=0))
    keys = tuple(folders.image_ids.take(pa.array(known)).to_pylist())
    return Truth("folder", keys, tuple(domains[int(n)] for n in named), rows[codes[known]][:, named])


def folder_names(folders: ImageFolders) -> tuple[str, ...]:
    """Names of the folders that images lie in directly, as phrases, by the alphabet. Raises LanitError without any."""
    paths = sorted({path for kind in folders.kinds for path in kind})
    last = [path.rpartition("/")[2].replace("_", " ") for path in paths]
    names = {plain(name): name for name in reversed(last) if name}
    if not names:
        raise LanitError("the images of this store lie in no folders", "Put those of a kind in a folder of its name.")
    return tuple(names[name] for name in sorted(names))


def image_keys(store: Store) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """image_id and path of every embedded image, in store order."""
    table = pa.concat_tables(store.ok_parts(["image_id", "path"]))
    return table["image_id"], table["path"]


def plain(name: str) -> str:
    """A name in the form in which names are compared: lower case, single spaces, "_" as a space."""
    return " ".join(name.replace("_", " ").casefold().split())


@dataclass(frozen=True)
class _Table:
    """A table of which the names are known, and of which columns can be read."""

    path: Path
    names: list[str]
    texts: pa.Table | None = None

    def column(self, name: str) -> pa.ChunkedArray:
        if self.texts is not None:
            return self.texts.column(self.names.index(name))
        with _reading(self.path), pq.ParquetFile(self.path) as file:
            return file.read([name]).column(0) if file.metadata.num_rows else pa.chunked_array([], pa.string())


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, pa.ArrowException) as error:  # pandas' parse errors are ValueErrors
        raise LanitError(f"cannot read {path}: {error}", "Give a CSV or Parquet file with a column 'path'.") from error


def _open_table(path: Path) -> _Table:
    import pandas as pd  # takes half a second, and most commands read no table

    if not path.is_file():
        raise LanitError(f"there is no file of labels '{path}'", "Give a CSV or Parquet file with a column 'path'.")
    with _reading(path):
        if path.suffix.lower() in (".parquet", ".pq"):
            return _Table(path, pq.read_schema(path).names)
        cells = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, na_values=[], encoding="utf-8-sig",
                            skipinitialspace=True)  # fmt: skip
        names = [str(name) for name in cells.iloc[0]]
        rows = cells.iloc[1:]
        return _Table(path, names, pa.table([pa.array(rows[n], pa.string()) for n in rows], [str(n) for n in rows]))


def _key_texts(column: pa.ChunkedArray, key: str, path: Path) -> tuple[str, ...]:
    """What names the image of each row, each once."""
    if not len(column):
        raise LanitError(f"{path} has no rows", "Give one row for each image.")
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise LanitError(f"{path}: column '{key}' holds {kind}, no texts", "Name the image of each row in it.")
    keys = column.cast(pa.string()).to_pylist()
    if None in keys or "" in keys:
        row = next(row for row, text in enumerate(keys, 1) if not text)
        raise LanitError(f"{path}: row {row} has no {key}", "Name the image of each row in it.")
    texts = tuple(text.replace("\\", "/") for text in keys)
    repeated, count = Counter(texts).most_common(1)[0]
    if count > 1:
        raise LanitError(f"{path} has {count} rows for '{excerpt(repeated)}'", "Keep one row for each image.")
    return texts


def _binary(column: pa.ChunkedArray, path: Path, name: str, blanks: bool) -> NDArray[np.int8]:
    """1, 0, −1 for a blank and −2 for what is taken back, int8 (m)."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string()).fill_null("")))
        out = np.full(len(column), _WRONG, np.int8)
        for value, spellings in ((1, _ON), (0, _OFF), (_UNKNOWN, ("",)), (_TAKEN_BACK, _BACK)):
            out[pc.is_in(texts, value_set=pa.array(spellings)).to_numpy()] = value
    elif (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    ):
        numbers = column.cast(pa.float64()).fill_null(np.nan).to_numpy()
        out = np.select([np.isnan(numbers), numbers == 1, (numbers == 0) | (numbers == -1)], [_UNKNOWN, 1, 0], _WRONG)
        out = out.astype(np.int8)
    else:
        raise LanitError(f"{path}: column '{excerpt(name)}' holds {kind}, no labels", "Write 0 or 1, or leave it out.")
    wrong = (out == _WRONG) | ((out < 0) & (not blanks))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        found = "" if out[row] == _UNKNOWN else excerpt(str(column[row].as_py()))
        hint = "Write 0 or 1, or leave it empty." if blanks else "Write 0 or 1 everywhere."
        raise LanitError(f"{path}: column '{excerpt(name)}' has '{found}' in row {row + 1}", hint)
    return out
