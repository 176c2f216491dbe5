"""The rows of the table to be: what an embedding run found against what the store already knows."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.files import storable
from pipeline.inputs.catalogue import MISSING, Catalogue, InOrder, maybe, numbers, scratch_errors
from pipeline.inputs.places import image_id

KNOWN_COLUMNS = ["source", "path", "offset", "modified_ns", "bytes", "sha256", "status"]

_TABLES = """
ALTER TABLE found ADD COLUMN kept INTEGER DEFAULT 0;
ALTER TABLE known ADD COLUMN ok INTEGER;
ALTER TABLE known ADD COLUMN sha256 TEXT;
ALTER TABLE known ADD COLUMN committed INTEGER;
CREATE TABLE content (sha256 TEXT PRIMARY KEY, file INTEGER, row INTEGER) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class KnownRow:
    """A row that some part already holds. file: as in :attr:`Catalogue.files`; row: its number there."""

    file: int
    row: int
    ok: bool
    sha256: str | None


@dataclass(slots=True)
class ImageRow:
    """A row of the images table in the making. path: as the input has it.

    known: the earlier row whose embedding it takes over, or, before its image is read, of the same place; as_is:
    whether it takes over all of it, since nothing tells that the image is another by now. kept: as the store has it, of
    an input that this run does not read or of what cannot be listed now. to_do: whether the image is to be read.
    """

    image_id: str
    path: str
    source: str
    offset: int | None = None
    modified_ns: int | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    status: str = "failed"
    error_message: str | None = None
    embedding: np.ndarray | None = None
    known: KnownRow | None = None
    as_is: bool = False
    kept: bool = False
    to_do: bool = False

    def fail(self, reason: str) -> None:
        self.status, self.error_message = "failed", reason[:500]


class RowCatalogue(Catalogue):
    """The list of an embedding run, beside the parts."""

    def __init__(self, path: Path) -> None:
        """See :class:`Catalogue`."""
        super().__init__(path, _TABLES)
        self._lookups = self._connect()  # for the threads that read images
        self._lock = threading.Lock()

    @scratch_errors()
    def learn(self, file: str, table: pa.Table, *, committed: bool) -> None:
        """Make the rows of a part known. table: its :data:`KNOWN_COLUMNS`.

        What an unfinished run wrote is known by its place only, what the store holds also by its content: then a
        resumed run takes over just what it would have embedded itself.
        """
        number = self.file(file)
        columns = table.to_pydict()
        rows = [
            (self.source(source), path, *numbers(offset, size, modified), number, row,
             status == "ok", sha256, committed)
            for row, (source, path, offset, modified, size, sha256, status)
            in enumerate(zip(*(columns[name] for name in KNOWN_COLUMNS), strict=True))
        ]  # fmt: skip
        self.database.executemany(
            "INSERT INTO known VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET offset=excluded.offset,"
            " bytes=excluded.bytes, modified=excluded.modified, file=excluded.file, row=excluded.row,"
            " ok=excluded.ok, sha256=excluded.sha256",
            rows,
        )
        if committed:
            contents = [(row[8], number, row[6]) for row in rows if row[7] and row[8]]
            self.database.executemany("INSERT OR IGNORE INTO content VALUES (?,?,?)", contents)

    @scratch_errors()
    def hold(self, source: str, beginnings: Sequence[str]) -> int:
        """Keep the rows of an input that were not found and whose paths begin with one of ``beginnings``: what cannot
        be listed is not gone. Returns how many there are.

        beginnings: of folders, ending in a slash, or empty for all.
        """
        insert = (
            "INSERT OR IGNORE INTO found SELECT source, path, offset, bytes, modified, 0, 1 FROM known"
            " WHERE source = ?1 AND committed"
        )
        held, number = 0, self.source(source)
        for start in map(storable, beginnings):
            if start:  # as a range, which the index of the table finds; "0" follows the slash
                values = (number, start, f"{start[:-1]}0")
                held += self.database.execute(f"{insert} AND path >= ?2 AND path < ?3", values).rowcount
            else:
                held += self.database.execute(insert, (number,)).rowcount
        return held

    def known(self, source: str) -> int:
        """Rows that the store has of an input."""
        return self.one("SELECT count(*) FROM known WHERE source = ? AND committed", self.source(source))

    def count(self, kept: list[str]) -> int:
        """Rows that :meth:`table` will yield."""
        return self.one("SELECT count(*) FROM found") + sum(map(self.known, kept))

    @scratch_errors()
    def dropped(self, kept: list[str]) -> int:
        """Rows of the store that are in no input any more."""
        gone = "SELECT source FROM known WHERE committed AND (source, path) NOT IN (SELECT source, path FROM found)"
        stays = {self.source(source) for source in kept}
        counts = self.database.execute(f"SELECT source, count(*) FROM ({gone}) GROUP BY source")
        return sum(int(count) for source, count in counts if source not in stays)

    def table(self, kept: list[str], retry_failed: bool = False) -> TableToBe:
        """Every row of the table to be."""
        return TableToBe(self.path, dict(self.sources), frozenset(kept), retry_failed)

    @scratch_errors()
    def by_content(self, sha256: str) -> KnownRow | None:
        """An embedding of the same content in the store. Safe in threads."""
        with self._lock:
            found = self._lookups.execute("SELECT file, row FROM content WHERE sha256 = ?", (sha256,)).fetchone()
        return KnownRow(int(found[0]), int(found[1]), True, sha256) if found else None

    @scratch_errors()
    def digests(self) -> np.ndarray:
        """The contents whose embeddings the store holds: the first 16 bytes of their SHA-256, ``S16`` (n), rising."""
        rows = self.database.execute("SELECT sha256 FROM content ORDER BY 1")
        count = self.one("SELECT count(*) FROM content")
        return np.fromiter((bytes.fromhex(sha256[:32]) for (sha256,) in rows), "S16", count)


@dataclass(frozen=True)
class TableToBe(InOrder[ImageRow]):
    """Every row of the table to be, settled where nothing needs to be read: as it is, or with an error message.

    kept: inputs that this run does not read. retry_failed: read again what failed before and has not changed since.
    """

    kept: frozenset[str]
    retry_failed: bool

    def _of_source(self, database: sqlite3.Connection, source: str) -> Iterator[ImageRow]:
        return (self._kept if source in self.kept else self._found)(database, source)

    def _kept(self, database: sqlite3.Connection, source: str) -> Iterator[ImageRow]:
        rows = database.execute(
            "SELECT path, offset, modified, bytes, file, row, ok, sha256 FROM known"
            " WHERE source = ? AND committed ORDER BY offset, path",
            (self.sources[source],),
        )
        for path, offset, modified, size, file, number, ok, sha256 in rows:
            row = ImageRow(image_id(source, path), path, source, maybe(offset), maybe(modified), maybe(size))
            row.known, row.as_is, row.kept = KnownRow(file, number, bool(ok), sha256), True, True
            yield row

    def _found(self, database: sqlite3.Connection, source: str) -> Iterator[ImageRow]:
        rows = database.execute(
            "SELECT f.path, f.offset, f.modified, f.bytes, f.badly_named, f.kept, k.offset, k.modified, k.bytes,"
            " k.file, k.row, k.ok, k.sha256"
            " FROM found f LEFT JOIN known k ON k.source = f.source AND k.path = f.path"
            " WHERE f.source = ? ORDER BY f.offset, f.path",
            (self.sources[source],),
        )
        for path, offset, modified, size, badly_named, kept, *stated, file, number, ok, sha256 in rows:
            row = ImageRow(image_id(source, path), path, source, maybe(offset), maybe(modified), maybe(size))
            row.kept = bool(kept)
            if badly_named:
                row.fail("its name is not valid UTF-8")
            elif file is not None:
                row.known = KnownRow(file, number, bool(ok), sha256)
                # a row of a table has no size before it is read: that the table is unchanged is enough
                same = modified != MISSING and [offset, modified] == stated[:2] and size in (MISSING, stated[2])
                row.as_is = row.kept or (same and (row.known.ok or not self.retry_failed))
            row.to_do = not row.as_is and not badly_named
            yield row
