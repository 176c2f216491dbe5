"""What an embedding run found and what the store already knows, on disk while the run lasts: memory stays flat."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lanit.errors import LanitError
from pipeline.files import storable
from pipeline.inputs.places import Input, Place

_NONE = -1  # stands for a missing number, so that equal means equal
KNOWN_COLUMNS = ["source", "path", "offset", "modified_ns", "bytes", "sha256", "status"]


@dataclass(frozen=True, slots=True)
class KnownRow:
    """A row that some part already holds. file: as in :attr:`Catalogue.files`; row: its number there."""

    file: int
    row: int
    ok: bool
    sha256: str | None


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """One row of the table to be. known: an earlier row of the same place; unchanged: nothing tells that the image is
    another by now. kept: as the store has it, of an input that this run does not read or of what cannot be listed now.
    badly_named: its name is not UTF-8, and the place has it as a table can hold it."""

    place: Place
    known: KnownRow | None
    unchanged: bool
    kept: bool = False
    badly_named: bool = False


@contextlib.contextmanager
def scratch_errors() -> Iterator[None]:
    """What SQLite raises, such as for a full disk, as a LanitError."""
    try:
        yield
    except sqlite3.Error as error:
        hint = "Free some space and run the same command again."
        raise LanitError(f"cannot keep the list of images on disk ({error})", hint) from error


@scratch_errors()
def connect_scratch(path: Path, cache_kib: int = 8192) -> sqlite3.Connection:
    """A scratch database: flushed never, locked by nobody but whoever holds its folder."""
    uri = f"{path.resolve().as_uri()}?nolock=1"  # some file systems have no locks
    database = sqlite3.connect(uri, uri=True, check_same_thread=False)
    with contextlib.closing(database.cursor()) as cursor:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{cache_kib}"):
            cursor.execute(f"PRAGMA {pragma}")
    return database


class Catalogue:
    """A scratch database beside the parts, thrown away at the end of the run."""

    def __init__(self, path: Path) -> None:
        """path: of the scratch file, in an existing folder. Raises LanitError where the disk refuses, as all here."""
        self._path = path
        path.unlink(missing_ok=True)
        self.files: list[str] = []
        self._sources: dict[str, int] = {}
        self._db, self._lookups = connect_scratch(path), connect_scratch(path)  # these for the threads that read images
        self._lock = threading.Lock()
        try:
            self._create()
        except LanitError:
            self.close()
            raise

    @scratch_errors()
    def _create(self) -> None:
        self._db.executescript(
            "CREATE TABLE found (source INTEGER, path TEXT, offset INTEGER, bytes INTEGER, modified INTEGER,"
            " badly_named INTEGER, kept INTEGER, PRIMARY KEY (source, path)) WITHOUT ROWID;"
            "CREATE TABLE known (source INTEGER, path TEXT, offset INTEGER, bytes INTEGER, modified INTEGER,"
            " file INTEGER, row INTEGER, ok INTEGER, sha256 TEXT, committed INTEGER,"
            " PRIMARY KEY (source, path)) WITHOUT ROWID;"
            "CREATE TABLE content (sha256 TEXT PRIMARY KEY, file INTEGER, row INTEGER) WITHOUT ROWID;"
        )

    def close(self) -> None:
        self._db.close()
        self._lookups.close()
        self._path.unlink(missing_ok=True)

    @scratch_errors()
    def learn(self, file: str, table: pa.Table, *, committed: bool) -> None:
        """Make the rows of a part known. table: its :data:`KNOWN_COLUMNS`.

        What an unfinished run wrote is known by its place only, what the store holds also by its content: then a
        resumed run takes over just what it would have embedded itself.
        """
        number = len(self.files)
        self.files.append(file)
        columns = table.to_pydict()
        rows = [
            (self._source(source), path, _number(offset), _number(size), _number(modified), number, row,
             status == "ok", sha256, committed)
            for row, (source, path, offset, modified, size, sha256, status)
            in enumerate(zip(*(columns[name] for name in KNOWN_COLUMNS), strict=True))
        ]  # fmt: skip
        self._db.executemany(
            "INSERT INTO known VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET offset=excluded.offset,"
            " bytes=excluded.bytes, modified=excluded.modified, file=excluded.file, row=excluded.row,"
            " ok=excluded.ok, sha256=excluded.sha256",
            rows,
        )
        if committed:
            contents = [(row[8], number, row[6]) for row in rows if row[7] and row[8]]
            self._db.executemany("INSERT OR IGNORE INTO content VALUES (?,?,?)", contents)

    @scratch_errors()
    def find(self, origin: Input) -> tuple[int, int]:
        """List an input. Returns how many images it has, and how many names came twice.

        A file listed twice is one image. A tar or a table may hold two images of one name: the later one then goes by
        its name and its offset.
        """
        source, found, repeated = self._source(origin.source), 0, 0
        insert = "INSERT OR IGNORE INTO found VALUES (?,?,?,?,?,?,0)"
        for place in origin.places():
            path = storable(place.path)
            values = (_number(place.offset), _number(place.bytes), _number(place.modified_ns), path != place.path)
            if self._db.execute(insert, (source, path, *values)).rowcount:
                found += 1
            elif place.offset is not None:
                found += self._db.execute(insert, (source, f"{path}#{place.offset}", *values)).rowcount
                repeated += 1
            else:
                repeated += 1
        return found, repeated

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
        held, number = 0, self._source(source)
        for start in map(storable, beginnings):
            if start:  # as a range, which the index of the table finds; "0" follows the slash
                values = (number, start, f"{start[:-1]}0")
                held += self._db.execute(f"{insert} AND path >= ?2 AND path < ?3", values).rowcount
            else:
                held += self._db.execute(insert, (number,)).rowcount
        return held

    def known(self, source: str) -> int:
        """Rows that the store has of an input."""
        return self._one("SELECT count(*) FROM known WHERE source = ? AND committed", self._source(source))

    @scratch_errors()
    def ready(self) -> None:
        """Everything is listed and learnt; lookups may begin."""
        self._db.commit()

    def count(self, kept: list[str]) -> int:
        """Rows that :meth:`plan` will yield."""
        return self._one("SELECT count(*) FROM found") + sum(map(self.known, kept))

    @scratch_errors()
    def dropped(self, kept: list[str]) -> int:
        """Rows of the store that are in no input any more."""
        gone = "SELECT source FROM known WHERE committed AND (source, path) NOT IN (SELECT source, path FROM found)"
        stays = {self._source(source) for source in kept}
        counts = self._db.execute(f"SELECT source, count(*) FROM ({gone}) GROUP BY source")
        return sum(int(count) for source, count in counts if source not in stays)

    def plan(self, kept: list[str]) -> Plan:
        """Every row of the table to be. kept: inputs that this run does not read."""
        return Plan(self._path, dict(self._sources), frozenset(kept))

    @scratch_errors()
    def by_content(self, sha256: str) -> KnownRow | None:
        """An embedding of the same content in the store. Safe in threads."""
        with self._lock:
            found = self._lookups.execute("SELECT file, row FROM content WHERE sha256 = ?", (sha256,)).fetchone()
        return KnownRow(int(found[0]), int(found[1]), True, sha256) if found else None

    @scratch_errors()
    def _one(self, query: str, *values: object) -> int:
        return int(self._db.execute(query, values).fetchone()[0])

    def _source(self, source: str) -> int:
        return self._sources.setdefault(source, len(self._sources))


@dataclass(frozen=True)
class Plan:
    """Every row of the table to be, by source, then offset, then path.

    It can be gone through several times, and in other processes of this machine too: it reads the catalogue's file.
    sources: their numbers there. kept: inputs that this run does not read.
    """

    path: Path
    sources: Mapping[str, int]
    kept: frozenset[str]

    def __iter__(self) -> Iterator[PlannedRow]:
        # rows are read in their order: few pages do
        with scratch_errors(), contextlib.closing(connect_scratch(self.path, 2048)) as database:
            for source in sorted(self.sources):
                yield from (self._kept if source in self.kept else self._found)(database, source)

    @scratch_errors()
    def contents(self) -> np.ndarray:
        """The contents whose embeddings the store holds: the first 16 bytes of their SHA-256, ``S16`` (n), rising."""
        with contextlib.closing(connect_scratch(self.path)) as database:
            count = int(database.execute("SELECT count(*) FROM content").fetchone()[0])
            digests = (bytes.fromhex(sha[:32]) for (sha,) in database.execute("SELECT sha256 FROM content ORDER BY 1"))
            return np.fromiter(digests, "S16", count)

    def _kept(self, database: sqlite3.Connection, source: str) -> Iterator[PlannedRow]:
        rows = database.execute(
            "SELECT path, offset, bytes, modified, file, row, ok, sha256 FROM known"
            " WHERE source = ? AND committed ORDER BY offset, path",
            (self.sources[source],),
        )
        for path, offset, size, modified, file, row, ok, sha256 in rows:
            place = Place(source, path, _maybe(offset), _maybe(size), _maybe(modified))
            yield PlannedRow(place, KnownRow(file, row, bool(ok), sha256), unchanged=True, kept=True)

    def _found(self, database: sqlite3.Connection, source: str) -> Iterator[PlannedRow]:
        rows = database.execute(
            "SELECT f.path, f.offset, f.bytes, f.modified, f.badly_named, f.kept, k.offset, k.bytes, k.modified,"
            " k.file, k.row, k.ok, k.sha256"
            " FROM found f LEFT JOIN known k ON k.source = f.source AND k.path = f.path"
            " WHERE f.source = ? ORDER BY f.offset, f.path",
            (self.sources[source],),
        )
        for path, offset, size, modified, badly_named, kept, *stated, file, row, ok, sha256 in rows:
            place = Place(source, path, _maybe(offset), _maybe(size), _maybe(modified))
            known = KnownRow(file, row, bool(ok), sha256) if file is not None else None
            same = known is not None and modified != _NONE and [offset, modified] == [stated[0], stated[2]]
            # a row of a table has no size before it is read: that the table is unchanged is enough
            unchanged = bool(kept) or (same and size in (_NONE, stated[1]))
            yield PlannedRow(place, known, unchanged, bool(kept), bool(badly_named))


def _number(value: int | None) -> int:
    return _NONE if value is None else value


def _maybe(value: int) -> int | None:
    return None if value == _NONE else value
