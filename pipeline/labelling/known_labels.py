"""Labels that people know: from a table or from the folders that images lie in, joined to images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lanit.errors import LanitError, excerpt, listed
from pipeline.labelling.image_names import Key, Names, check_names, find_names
from pipeline.labelling.label_columns import TAKEN_BACK, UNKNOWN, find_labels, plain
from pipeline.tables.annotations import LABEL_STUDIO

if TYPE_CHECKING:
    from pipeline.labelling.image_folders import ImageFolders
    from pipeline.store.store import Store

Bools = NDArray[np.bool_]

FOLDERS = "folders"
"""Said in the place of a file: the folder that an image lies in names its domain."""


@dataclass(frozen=True)
class Truth:
    """Known labels. key: what names an image; folder: what says them is the folders it lies in. keys: path of each of
    the m rows, else image_id.

    labels: bool (m×D). domains: D phrases. known: bool (m×D), which labels say something; none where all do.
    withdrawn: bool (m×D), where an earlier label by people is taken back; none where none is. others: other names of
    the images, from further columns. understood: what a table was taken for, in one line.
    """

    key: Key
    keys: tuple[str, ...]
    domains: tuple[str, ...]
    labels: Bools
    known: Bools | None = None
    withdrawn: Bools | None = None
    others: tuple[Names, ...] = ()
    understood: str = ""

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
    """Read a table of known labels, of any kind that :mod:`pipeline.tables` reads, or a WebDataset tar; a pattern such
    as ``{00..09}.tar`` stands for several.

    It names the image of each row in a column such as ``path``, ``file_name`` or ``image_id``, and has a column of 0
    or -1 and 1 (false and true, no and yes) for each domain, or the classes of each image in one. Case, and "_" for a
    space, make no difference; other columns are left alone. domains: none for all that are labels. blanks: whether a
    label may be left out, or be "?", which takes an earlier one back. Raises LanitError.
    """
    from pipeline.labelling.label_tables import merge_rows, read_cells  # Pillow, which reports on labels do without

    read = read_cells(path, domains)
    annotated = read.layout.startswith(LABEL_STUDIO)
    found = find_labels(read.labels, read.rows, domains, path, blanks=blanks, annotated=annotated)
    name, (key, keys) = read.names[0]
    check_names(name, keys, path, may_repeat=found.by_class)
    codes, others = found.codes, tuple(names for _, names in read.names[1:])
    if found.by_class:
        said = (codes != UNKNOWN).any(axis=1)
        keys, codes = tuple(np.array(keys, object)[said].tolist()), codes[said]
        others = tuple((kind, tuple(np.array(some, object)[said].tolist())) for kind, some in others)
        if len(set(keys)) < len(keys):
            (keys, codes), others = merge_rows(keys, codes), ()
    known, withdrawn = codes >= 0, codes == TAKEN_BACK
    return Truth(
        key, keys, found.domains, codes == 1, None if known.all() else known, withdrawn if withdrawn.any() else None,
        others, f"{path.name}: {read.layout}, {key} in {name}, {found.words}",
    )  # fmt: skip


def fitted(truth: Truth, store: Store | None, ids: pa.ChunkedArray, paths: pa.ChunkedArray) -> Truth:
    """``truth`` with the names of images as the store has them: of its names those that name any of the n images, in
    whatever spelling; else the ends of full names, where each is of one image alone.

    store: knows the full names; none where it is away. ids, paths: of the images.
    """
    if truth.key == "folder":
        return truth
    names = [(truth.key, truth.keys), *truth.others]
    number, (key, keys), by_end = find_names(names, ids, paths, lambda: full_names(store, ids, paths))
    if len(set(keys)) < len(keys):  # two spellings of one image, or a second column that repeats itself
        number, (key, keys), by_end = 0, names[0], False
    how = f"; the images go by {key}" if number else "; the images go by the end of their paths" if by_end else ""
    return dataclasses.replace(truth, key=key, keys=keys, others=(), understood=truth.understood + how)


def full_names(store: Store | None, ids: pa.ChunkedArray, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Source and path of each of n images as one path; of those that the store has no more the path alone."""
    if store is None:
        return paths
    table = pa.concat_tables(store.ok_parts(["image_id", "source"]))
    sources = table["source"].take(pc.index_in(ids, value_set=table["image_id"].combine_chunks()))
    return pc.binary_join_element_wise(sources, paths, "/", null_handling="skip")


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
            "Say what they show in a table with a column 'path' instead.",
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
