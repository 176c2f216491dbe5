"""Which embedding is of which image: by the names that both have."""

from __future__ import annotations

import posixpath
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np

from lanit.errors import LanitError
from pipeline.embedding.image_rows import ImageRow, RowCatalogue
from pipeline.files import storable, temporary_name
from pipeline.importing.vectors import Vectors
from pipeline.inputs.catalogue import connect_scratch, scratch_errors
from pipeline.inputs.storage import is_url, parent_of
from pipeline.path_names import with_slashes

_TRIED = 1000  # names, over all inputs, from which the folder is found that they once lay in
_AMBIGUOUS = -1


class Pairing:
    """The embeddings of a source by the names of their images, in scratch files beside the store's while it is open.

    rows: n, embeddings in all. A name that comes twice names nothing. Names in a folder fit where they are relative to
    it, or all lay below one folder, which may have been another place; in a tar also as WebDataset's keys, a name up to
    its first dot.
    """

    @scratch_errors()
    def __init__(self, vectors: Vectors, folder: Path) -> None:
        """folder: for scratch files. Raises LanitError where there are no embeddings, or the disk refuses."""
        self._vectors = vectors
        self._array_path = temporary_name(folder / "vectors.npy")
        self._names_path = temporary_name(folder / "names.sqlite")
        self._prefixes: dict[str, tuple[str, ...]] = {}
        self._names = connect_scratch(self._names_path)
        try:
            self.rows = self._learn()
            if not self.rows:
                raise LanitError(f"{vectors.name} holds no embeddings", "Give another file.")
            shape = (self.rows, vectors.dim)
            self._array: np.ndarray = np.memmap(self._array_path, np.float32, "r", shape=shape)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._names.close()
        for path in (self._names_path, self._array_path):
            path.unlink(missing_ok=True)

    def _learn(self) -> int:
        """Returns the number of embeddings, which lie in the scratch file, of unit norm, or NaN where they are none."""
        self._names.execute("CREATE TABLE names (name TEXT PRIMARY KEY, row INTEGER) WITHOUT ROWID")
        insert = f"INSERT INTO names VALUES (?,?) ON CONFLICT DO UPDATE SET row={_AMBIGUOUS}"
        keys = enumerate(self._vectors.names())
        self._names.executemany(insert, ((_plain(key), row) for row, key in keys if key))
        self._names.commit()
        count = 0
        with self._array_path.open("wb") as file:
            for block in self._vectors.arrays():
                file.write(np.ascontiguousarray(unit(block)).tobytes())
                count += len(block)
        return count

    def find_folders(self, catalogue: RowCatalogue) -> None:
        """Find, for each input, what stands before the names of its images in the source's names."""
        tried = max(_TRIED // max(len(catalogue.sources), 1), 20)
        names = [name for (name,) in self._names.execute("SELECT name FROM names LIMIT ?", (tried,))]
        for source, number in catalogue.sources.items():
            counts: Counter[str] = Counter()
            for name in names:
                for start in _starts(name):
                    query = "SELECT count(*) FROM found WHERE source = ? AND path = ?"
                    if catalogue.one(query, number, name[start:]):
                        counts[name[:start]] += 1
                        break
            usual = [prefix for prefix, _ in counts.most_common(1)]
            self._prefixes[source] = tuple(dict.fromkeys([*usual, "", f"{source.rstrip('/')}/"]))

    @scratch_errors()
    def row_of(self, image: ImageRow) -> int | None:
        """The row of an image's embedding, if there is one."""
        if image.offset is not None and image.source == self._vectors.row_table:
            return self._whole(image.offset)
        path = image.path
        names = [prefix + path for prefix in self._prefixes.get(image.source, ("",))]
        if image.offset is not None:
            folder, name = posixpath.split(path)
            names += [prefix + posixpath.join(folder, name.partition(".")[0]) for prefix in ("", f"{image.source}/")]
        elif not path.startswith("/") and not is_url(path):
            names.append(f"{parent_of(image.source).rstrip('/')}/{path}")
        for name in names:
            found = self._names.execute("SELECT row FROM names WHERE name = ?", (_plain(name),)).fetchone()
            if found is not None:
                return self._whole(int(found[0]))
        return None

    def _whole(self, row: int) -> int | None:
        return row if 0 <= row < self.rows and np.isfinite(self._array[row, 0]) else None

    def vectors(self, rows: list[int]) -> np.ndarray:
        """Embeddings of unit norm, float32 (b×k)."""
        return np.array(self._array[rows])

    def first_names(self, count: int = 3) -> str:
        """For a message."""
        return ", ".join(islice(filter(None, self._vectors.names()), count)) or "none"


def unit(block: np.ndarray) -> np.ndarray:
    """Embeddings (b×k) of unit norm, float32; those that are so already stay to the bit, others without a direction
    become NaN."""
    values = block.astype(np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        scaled = np.where(np.abs(norms - 1) <= 1e-6, values, values / np.where(norms > 0, norms, np.nan))
    scaled[~np.isfinite(scaled).all(axis=1)] = np.nan
    return scaled.astype(np.float32)


def _plain(name: str) -> str:
    """As names of images are written in a store."""
    return with_slashes(storable(name))


def _starts(name: str) -> list[int]:
    """Where a name may go on as a path below a folder, longest first."""
    return [0, *(index + 1 for index, letter in enumerate(name) if letter == "/")]
