"""The folders that the images of a store lie in, as classes: also where class folders were given one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from pipeline.store.store import Store

Folders = tuple[str, ...]
"""POSIX paths of the folders of one image, of those of its copies too; empty for one that lies in none."""


@dataclass(frozen=True)
class ImageFolders:
    """image_ids: of n images, in store order. kinds: what there is of folders; codes: int32 (n), which of them each
    image has. shared: images whose copies lie in other folders."""

    image_ids: pa.ChunkedArray
    kinds: tuple[Folders, ...]
    codes: pa.Array
    shared: int = 0


def image_folders(store: Store) -> ImageFolders:
    """Of every embedded image of a store.

    An image that lies right in an input is in no folder, unless several folders were given: then it is in the one that
    was given, ``cats`` of ``lanit embed cats dogs``. Copies of one picture, the same bytes, share their folders: a
    picture of two classes lies in both.
    """
    from pipeline.inputs.storage import file_name  # with Pillow, which reports do without

    table = pa.concat_tables(store.ok_parts(["image_id", "path", "source", "sha256"]))
    folders = folders_of(table["path"])
    given = [entry.source for entry in store.manifest.sources if _is_folder(entry.source)]
    if len(given) > 1:
        at = pc.index_in(table["source"], value_set=pa.array(given, table["source"].type))
        own = pa.array([file_name(source) for source in given], folders.type).take(at.combine_chunks())
        folders = pc.if_else(pc.and_(pc.equal(folders, ""), pc.is_valid(at)), own, folders)
    encoded = folders.combine_chunks().dictionary_encode()
    kinds = {(name,) if name else (): code for code, name in enumerate(encoded.dictionary.to_pylist())}
    codes = encoded.indices.to_numpy().copy()
    shared = 0
    for rows in _copies(table["sha256"]):
        names = [encoded.dictionary[int(code)].as_py() for code in codes[rows]]
        union = tuple(sorted(set(filter(None, names))))
        if len(set(names)) > 1:
            shared += len(rows)
            codes[rows] = kinds.setdefault(union, len(kinds))
    return ImageFolders(table["image_id"], tuple(kinds), pa.array(codes, pa.int32()), shared)


def folders_of_paths(image_ids: pa.ChunkedArray, paths: pa.ChunkedArray) -> ImageFolders:
    """The same by paths alone, where no store is at hand."""
    encoded = folders_of(paths).combine_chunks().dictionary_encode()
    kinds = tuple((name,) if name else () for name in encoded.dictionary.to_pylist())
    return ImageFolders(image_ids, kinds, encoded.indices)


def folders_of(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """The folder of each path, empty where there is none; without the ``./`` that a store of an earlier lanit has."""
    paths = pc.replace_substring_regex(paths, pattern=r"^(\./+)+", replacement="")
    return pc.replace_substring_regex(paths, pattern=r"/?[^/]*$", replacement="", max_replacements=1)


def _is_folder(source: str) -> bool:
    from pipeline.inputs.formats import format_of

    return source.endswith("/") or format_of(source) is None


def _copies(sha256: pa.ChunkedArray) -> Iterable[list[int]]:
    """The rows of each content that comes more than once."""
    counts = pc.value_counts(sha256.combine_chunks())
    several = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
    if not len(several):
        return ()
    at = pc.index_in(sha256, value_set=several).combine_chunks()
    rows: dict[int, list[int]] = {}
    for row in pc.indices_nonzero(pc.is_valid(at)).to_pylist():
        rows.setdefault(at[row].as_py(), []).append(row)
    return rows.values()
