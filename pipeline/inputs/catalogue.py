"""What the inputs of a run hold, and which of it is known from earlier, on disk while it lasts: memory stays flat."""

from __future__ import annotations

import contextlib
import sqlite3
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from lanit.errors import LanitError
from pipeline.files import storable
from pipeline.inputs.places import Input

Row = TypeVar("Row")

MISSING = -1
"""Stands for a number that is not known, so that equal means equal."""

_TABLES = """
CREATE TABLE found (source INTEGER, path TEXT, offset INTEGER, bytes INTEGER, modified INTEGER, badly_named INTEGER,
 PRIMARY KEY (source, path)) WITHOUT ROWID;
CREATE TABLE known (source INTEGER, path TEXT, offset INTEGER, bytes INTEGER, modified INTEGER, file INTEGER,
 row INTEGER, PRIMARY KEY (source, path)) WITHOUT ROWID;
"""
"""found: every image of the inputs. known: where an earlier table, by number, has the rows of a place. A place without
offset, bytes or time has MISSING there."""


@contextlib.contextmanager
def scratch_errors() -> Iterator[None]:
    """What SQLite raises, such as for a full disk, as a LanitError."""
    try:
        yield
    except sqlite3.Error as error:
        hint = "Free some space and run the same command again: it goes on."
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
    """A scratch database of one run, thrown away at its end. What a stage keeps there besides, its subclass adds.

    files: of the earlier tables, by number.
    """

    def __init__(self, path: Path, more_tables: str) -> None:
        """path: of the scratch file, in an existing folder. more_tables: SQL that adds what the stage needs.

        Raises LanitError where the disk refuses, as all here.
        """
        self.path = path
        path.unlink(missing_ok=True)
        self.files: list[str] = []
        self.sources: dict[str, int] = {}
        self._connections: list[sqlite3.Connection] = []
        self.database = self._connect()
        try:
            with scratch_errors():
                self.database.executescript(_TABLES + more_tables)
        except LanitError:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        """One more connection, closed with the others; where the disk refuses, all are, and the file goes."""
        try:
            self._connections.append(connect_scratch(self.path))
        except LanitError:
            self.close()
            raise
        return self._connections[-1]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self.path.unlink(missing_ok=True)

    def source(self, name: str) -> int:
        """The number of an input."""
        return self.sources.setdefault(name, len(self.sources))

    def file(self, name: str) -> int:
        """The number of one more earlier table."""
        self.files.append(name)
        return len(self.files) - 1

    @scratch_errors()
    def find(self, origin: Input) -> tuple[int, int]:
        """List an input. Returns how many images it has, and how many names came twice.

        A file listed twice is one image, and of two members of a tar or zip the later one counts. A table may hold two
        images of one name: the later one then goes by its name and its offset.
        """
        source, found, repeated = self.source(origin.source), 0, 0
        insert = "INSERT OR IGNORE INTO found (source, path, offset, bytes, modified, badly_named) VALUES (?,?,?,?,?,?)"
        for place in origin.places():
            path = storable(place.path)
            values = (*numbers(place.offset, place.bytes, place.modified_ns), path != place.path)
            if self.database.execute(insert, (source, path, *values)).rowcount:
                found += 1
            elif origin.later_counts:
                update = "UPDATE found SET offset=?, bytes=?, modified=?, badly_named=? WHERE source=? AND path=?"
                self.database.execute(update, (*values, source, path))
                repeated += 1
            elif place.offset is not None:
                found += self.database.execute(insert, (source, f"{path}#{place.offset}", *values)).rowcount
                repeated += 1
            else:
                repeated += 1
        return found, repeated

    @scratch_errors()
    def ready(self) -> None:
        """Everything is listed and learnt; it may be gone through."""
        self.database.commit()

    @scratch_errors()
    def one(self, query: str, *values: object) -> int:
        """The number that a query gives."""
        return int(self.database.execute(query, values).fetchone()[0])


@dataclass(frozen=True)
class InOrder(Generic[Row]):
    """What a catalogue has, a row for each image, by source, then offset, then path.

    It can be gone through several times, and in other processes of this machine too: it reads the catalogue's file.
    sources: their numbers there.
    """

    path: Path
    sources: Mapping[str, int]

    def __iter__(self) -> Iterator[Row]:
        # rows are read in their order: few pages do
        with scratch_errors(), contextlib.closing(connect_scratch(self.path, 2048)) as database:
            for source in sorted(self.sources):
                yield from self._of_source(database, source)

    @abstractmethod
    def _of_source(self, database: sqlite3.Connection, source: str) -> Iterator[Row]: ...


def some_names(origins: Sequence[Input]) -> str:
    """The first inputs, for a message."""
    return " and ".join(origin.source for origin in origins[:3])


def of_repeated(names: int) -> list[str]:
    """What a person should know of names that came twice: nothing where none did."""
    rule = "a file counts once, of members of a tar or zip the last, of a table each row"
    return [f"{names} names came twice: {rule}"] if names else []


def numbers(*values: int | None) -> tuple[int, ...]:
    """As the scratch database has them."""
    return tuple(MISSING if value is None else value for value in values)


def maybe(value: int) -> int | None:
    """What :func:`numbers` made of a number, back again."""
    return None if value == MISSING else value
