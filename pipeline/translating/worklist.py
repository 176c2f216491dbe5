"""Every image to translate and the name of its result, in one order, on disk while the run lasts: memory stays flat."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.files import storable
from pipeline.folders import plain_file
from pipeline.inputs.catalogue import Catalogue, InOrder, maybe, numbers, scratch_errors
from pipeline.translating.naming import SCRATCH_NAME, Naming, tagged
from pipeline.translating.source_images import SourceImage

_KNOWN_COLUMNS = ("source", "path", "offset", "bytes", "modified_ns", "status", "output", "output_bytes")
_TABLES = """
ALTER TABLE found ADD COLUMN output TEXT;
ALTER TABLE known ADD COLUMN rows INTEGER;
CREATE TABLE taken (output TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE owned (output TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_SAME = (
    "k.source = f.source AND k.path = f.path AND k.offset = f.offset AND k.bytes = f.bytes AND k.modified = f.modified"
)


class Worklist(Catalogue):
    """The list of a run that translates."""

    def __init__(self, folder: Path) -> None:
        """folder: for scratch files, on a local or shared disk; made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "worklist.sqlite", _TABLES)

    @scratch_errors()
    def name(self, naming: Naming) -> int:
        """Give the result of every image found a name. No two are the same; images that keep their names come first,
        then those before others in order. Returns the number of images."""
        for source, path in self._unnamed():
            base = naming.base(source, path)
            if naming.keeps(base) and self._take(base, naming.tags):
                self._name(source, path, base)
        for source, path in self._unnamed():
            candidates = naming.candidates(naming.base(source, path))
            self._name(source, path, next(name for name in candidates if self._take(name, naming.tags)))
        return self.one("SELECT count(*) FROM found")

    def _unnamed(self) -> Iterator[tuple[str, str]]:
        """Source and path of the images without a name, in order."""
        for source in sorted(self.sources):
            # no index has the offsets: all are sorted before the first one comes, and may be named meanwhile
            rows = self.database.execute(
                "SELECT path FROM found WHERE source = ? AND output IS NULL AND NOT badly_named ORDER BY offset, path",
                (self.source(source),),
            )
            yield from ((source, path) for (path,) in rows)

    def _name(self, source: str, path: str, output: str) -> None:
        update = "UPDATE found SET output = ? WHERE source = ? AND path = ?"
        self.database.execute(update, (output, self.source(source), path))

    def _take(self, output: str, tags: Sequence[str]) -> bool:
        names = [tagged(output, tag) for tag in tags]
        if any(self._is_there("taken", name) for name in names):
            return False
        self.database.executemany("INSERT INTO taken VALUES (?)", [(name,) for name in names])
        return True

    @scratch_errors()
    def learn(self, table: Path, out: Path) -> None:
        """Make known which images an earlier run has done: rows of ``table`` whose results are there, whole.

        A failed image counts as done; one that has another size or time since then does not.
        """
        number = self.file(str(table))
        columns = pq.read_table(table, columns=list(_KNOWN_COLUMNS), partitioning=None).to_pydict()
        rows = list(zip(*(columns[name] for name in _KNOWN_COLUMNS), strict=True))
        start = 0
        for row in range(1, len(rows) + 1):
            if row < len(rows) and rows[row][:2] == rows[start][:2]:
                continue
            source, path, offset, size, modified, *_ = rows[start]
            if all(_is_whole(out, *rows[n][5:]) for n in range(start, row)):
                values = (self.source(source), path, *numbers(offset, size, modified), number, start, row - start)
                self.database.execute("INSERT OR REPLACE INTO known VALUES (?,?,?,?,?,?,?,?)", values)
            start = row

    @scratch_errors()
    def own(self, outputs: Iterable[str]) -> None:
        """Make known that files of these names, below the folder of results, are lanit's."""
        self.database.executemany("INSERT OR IGNORE INTO owned VALUES (?)", ((output,) for output in outputs))

    @scratch_errors()
    def foreign(self, out: Path, also: Collection[str]) -> str | None:
        """The first file in ``out`` that has the name of a result, or one of ``also``, and is not owned; or the first
        link there that such a name is or passes."""
        for path, is_link in _entries(out):
            wanted = path in also or self._is_there("taken", path)
            if is_link and (wanted or self._is_passed(path)):
                return path
            if wanted and not self._is_there("owned", path):
                return path
        return None

    def _is_there(self, table: str, output: str) -> bool:
        found = self.database.execute(f"SELECT 1 FROM {table} WHERE output = ?", (storable(output),))
        return found.fetchone() is not None

    def _is_passed(self, folder: str) -> bool:
        """Whether the name of a result lies below ``folder``: "0" is what follows "/"."""
        some = "SELECT 1 FROM taken WHERE output > ?1 || '/' AND output < ?1 || '0' LIMIT 1"
        return self.database.execute(some, (storable(folder),)).fetchone() is not None

    def counts(self) -> tuple[int, int]:
        """Images in all, and those that an earlier run has done."""
        return self.one("SELECT count(*) FROM found"), self.one(f"SELECT count(*) FROM found f JOIN known k ON {_SAME}")

    def images(self) -> ImagesInOrder:
        """Every image, once all are listed, named and learnt."""
        return ImagesInOrder(self.path, dict(self.sources))


@dataclass(frozen=True)
class ImagesInOrder(InOrder[SourceImage]):
    """Every image of a work list."""

    def _of_source(self, database: sqlite3.Connection, source: str) -> Iterator[SourceImage]:
        rows = database.execute(
            "SELECT f.path, f.offset, f.bytes, f.modified, f.badly_named, f.output, k.file, k.row, k.rows"
            f" FROM found f LEFT JOIN known k ON {_SAME} WHERE f.source = ? ORDER BY f.offset, f.path",
            (self.sources[source],),
        )
        for path, offset, size, modified, badly_named, output, file, row, count in rows:
            done = None if file is None else (file, row, count)
            place = (maybe(offset), maybe(size), maybe(modified))
            image = SourceImage(source, path, *place, output or "", done, bool(badly_named))
            if image.badly_named and done is None:
                image.fail("its name is not valid UTF-8")
            yield image


def _entries(folder: Path, below: str = "") -> Iterator[tuple[str, bool]]:
    """Files and links below ``folder``, POSIX relative, and whether they are links; the scratch folder is left out."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = f"{below}{entry.name}"
        if entry.is_symlink() or not entry.is_dir():
            yield path, entry.is_symlink()
        elif path != SCRATCH_NAME:
            yield from _entries(folder / entry.name, f"{path}/")


def _is_whole(out: Path, status: str, output: str | None, size: int | None) -> bool:
    if status != "ok" or output is None:
        return True
    found = plain_file(out, output)
    return found is not None and found.st_size == size
