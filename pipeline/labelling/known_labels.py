"""Labels that people know: from a CSV or Parquet table or from the folders that images lie in, joined to images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lanit.errors import LanitError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.store.store import Store

Bools = NDArray[np.bool_]
Key = Literal["image_id", "path", "folder"]

FOLDERS = "folders"
"""Said in the place of a file: the folder that an image lies in names its domain."""

_KEYS: tuple[Key, ...] = ("image_id", "path")
_ON, _OFF = ("1", "1.0", "true"), ("0", "0.0", "-1", "-1.0", "false")


@dataclass(frozen=True)
class Truth:
    """Known labels. key: what names an image. keys: image_id, path, or the folder itself, of each of the m rows.

    labels: bool (m×D). domains: D phrases. known: bool (m×D), which labels say something; none where all do.
    """

    key: Key
    keys: tuple[str, ...]
    domains: tuple[str, ...]
    labels: Bools
    known: Bools | None = None

    def align(self, image_ids: pa.ChunkedArray, paths: pa.ChunkedArray) -> NDArray[np.int64]:
        """For each of n images its row of this table, −1 where it has none: int64 (n).

        Raises LanitError where no image has one, or where one row names two images.
        """
        names = image_ids if self.key == "image_id" else paths if self.key == "path" else _folders(paths)
        found = pc.index_in(names, value_set=pa.array(self.keys, names.type))
        rows = pc.fill_null(found, -1).to_numpy().astype(np.int64)
        if not (rows >= 0).any():
            example = f", such as '{self.keys[0]}' against '{names[0]}'" if len(names) and self.keys else ""
            raise LanitError(
                f"no {self.key} of the known labels is an image of the store{example}",
                "Write paths relative to the embedded folder.",
            )
        if self.key != "folder" and np.bincount(rows[rows >= 0]).max() > 1:
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


def read_truth(path: Path, domains: Sequence[str] | None, *, blanks: bool = False) -> Truth:
    """Read a CSV or Parquet file of known labels.

    It has a column ``image_id`` or ``path`` (relative to the embedded folder) and a column of 0 or -1 and 1 (or false
    and true) for each domain; case, and "_" for a space, make no difference in column names; other columns are left
    alone. domains: none for every column but the keys. blanks: whether a label may be left out.
    """
    table = _read_table(path)
    key = next((name for name in _KEYS if name in table.columns), None)
    if key is None:
        raise LanitError(f"{path} has no column 'path' or 'image_id'", "Name the image of each row in one.")
    column_of = {plain(str(name)): name for name in table.columns if name not in _KEYS}
    if domains is None:
        found = tuple(" ".join(str(name).replace("_", " ").split()) for name in column_of.values())
    else:
        found = tuple(domain for domain in domains if plain(domain) in column_of)
    if not found:
        names = f"for any of: {', '.join(domains)}" if domains else "of labels"
        raise LanitError(f"{path} has no column {names}", "Name its columns as the prompts.")
    keys = tuple(str(value).replace("\\", "/") for value in table[key])
    if not keys:
        raise LanitError(f"{path} has no rows", "Give one row for each image.")
    repeated, count = Counter(keys).most_common(1)[0]
    if count > 1:
        raise LanitError(f"{path} has {count} rows for '{repeated}'", "Keep one row for each image.")
    columns = [_binary(table[column_of[plain(domain)]], path, blanks) for domain in found]
    known = np.stack([column >= 0 for column in columns], axis=1)
    labels = np.stack([column == 1 for column in columns], axis=1)
    return Truth(key, keys, found, labels, None if known.all() else known)


def folder_truth(paths: pa.ChunkedArray, domains: Sequence[str]) -> Truth:
    """Each image carries the domains that its folder, or a folder above it, is named after, and no other.

    Images in no such folder are not known, and neither are domains that no folder is named after.
    Case, and "_" for a space, make no difference. Raises LanitError where no folder is.
    """
    wanted = [plain(domain) for domain in domains]
    folders = [folder for folder in pc.unique(_folders(paths)).to_pylist() if folder]
    rows = {folder: [name in {plain(part) for part in folder.split("/")} for name in wanted] for folder in folders}
    kept = {folder: row for folder, row in rows.items() if any(row)}
    if not kept:
        raise LanitError(
            f"no folder of the images is named after any of: {', '.join(domains)}",
            "Give a CSV or Parquet file with a column 'path' instead.",
        )
    labels = np.array(list(kept.values()), bool)
    named = np.flatnonzero(labels.any(axis=0))
    return Truth("folder", tuple(kept), tuple(domains[int(n)] for n in named), labels[:, named])


def folder_names(paths: pa.ChunkedArray) -> tuple[str, ...]:
    """Names of the folders that images lie in directly, as phrases, by the alphabet. Raises LanitError without any."""
    last = [folder.rpartition("/")[2].replace("_", " ") for folder in sorted(pc.unique(_folders(paths)).to_pylist())]
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


def _folders(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.replace_substring_regex(paths, pattern=r"/?[^/]*$", replacement="", max_replacements=1)


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise LanitError(f"there is no file of labels '{path}'", "Give a CSV or Parquet file with a column 'path'.")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (ValueError, OSError) as error:  # pandas' and Arrow's parse errors are ValueErrors
        raise LanitError(f"cannot read {path}: {error}", "Give a CSV or Parquet file with a column 'path'.") from error


def _binary(column: pd.Series, path: Path, blanks: bool) -> NDArray[np.int8]:
    """1, 0, and −1 for a blank, int8 (m)."""
    texts = column.astype(str).str.strip().str.lower().to_numpy().astype(str)
    empty = np.asarray(column.isna(), bool) | (texts == "")
    out = np.where(np.isin(texts, _ON), 1, np.where(np.isin(texts, _OFF), 0, -1)).astype(np.int8)
    wrong = (out < 0) & ~(empty if blanks else np.zeros_like(empty))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        value: Any = column.iloc[row]
        hint = "Write 0 or 1, or leave it empty." if blanks else "Write 0 or 1 everywhere."
        raise LanitError(f"{path}: column '{column.name}' has '{value}' in row {row + 1}", hint)
    return out
