"""Every image to translate and the name of its result, in one order, on disk while the run lasts: memory stays flat."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.decoding.images import IMAGE_SUFFIXES
from pipeline.files import storable
from pipeline.folders import plain_file
from pipeline.inputs.catalogue import Catalogue, connect_scratch, scratch_errors
from pipeline.inputs.places import Input
from pipeline.inputs.storage import is_url

SCRATCH_NAME = ".lanit-translate"
"""Of the folder, in that of the results, that holds what a run needs until it is finished."""

_CHUNK = 1000  # images that are named between two looks at the list
_NONE = -1  # stands for a missing number, so that equal means equal
_KNOWN_COLUMNS = ("source", "path", "offset", "bytes", "modified_ns", "status", "output", "output_bytes")


@dataclass(frozen=True, slots=True)
class Item:
    """One image. source, path, offset, bytes, modified_ns: see :class:`pipeline.inputs.places.Place`.

    output: name of its result below the folder of results, without what tells several results of one image apart.
    done: where its rows already are, as (file, first row, rows). badly_named: its name is not UTF-8, and ``path`` is as
    a table can hold it.
    """

    source: str
    path: str
    offset: int | None
    bytes: int | None
    modified_ns: int | None
    output: str
    done: tuple[int, int, int] | None = None
    badly_named: bool = False

    @property
    def to_do(self) -> bool:
        return self.done is None and not self.badly_named


@dataclass(frozen=True)
class Naming:
    """How results are named.

    kept: suffixes, in small letters, that a result keeps; other images get ``suffix``. tags: what tells the results of
    one image apart, put before the suffix; one of them is empty where there is one result. prefixes: folders for the
    results of each input.
    """

    kept: frozenset[str]
    suffix: str
    tags: tuple[str, ...] = ("",)
    prefixes: Mapping[str, str] | None = None

    def keeps(self, path: str) -> bool:
        return PurePosixPath(path).suffix.lower() in self.kept

    def base(self, source: str, path: str) -> str:
        """The image's own path, safe to use below a folder, whoever wrote it: no ``..``, no root, no scheme."""
        if is_url(path):
            address = urlsplit(path)
            path = f"{address.netloc}/{address.path}"
        parts = [part for part in path.split("/") if part not in ("", ".", "..")] or ["image"]
        if parts[0].casefold() == SCRATCH_NAME:
            parts[0] = f"_{parts[0]}"
        prefix = (self.prefixes or {}).get(source, "")
        return "/".join([prefix, *parts] if prefix else parts)

    def candidates(self, base: str) -> Iterator[str]:
        """Names for a result, the best first, without end."""
        path = PurePosixPath(base)
        if self.keeps(base):
            yield base
            stem, suffix = str(path.with_suffix("")), path.suffix
        else:
            stem = str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else base
            suffix = self.suffix
            yield stem + suffix
            yield base + suffix
        number = 2
        while True:
            yield f"{stem}~{number}{suffix}"
            number += 1


def tagged(output: str, tag: str) -> str:
    """``a/b.png`` with the tag ``-style2`` as ``a/b-style2.png``."""
    path = PurePosixPath(output)
    return str(path.with_name(f"{path.stem}{tag}{path.suffix}")) if tag else output


class Worklist:
    """A scratch database, thrown away at the end of the run."""

    def __init__(self, folder: Path) -> None:
        """folder: for scratch files, on a local or shared disk; made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "worklist.sqlite"
        self._path.unlink(missing_ok=True)
        self._catalogue = Catalogue(folder / "catalogue.sqlite")
        self._sources: dict[str, int] = {}
        self.files: list[Path] = []
        self._db = connect_scratch(self._path)
        try:
            self._create()
        except LanitError:
            self.close()
            raise

    @scratch_errors()
    def _create(self) -> None:
        self._db.executescript(
            "CREATE TABLE item (number INTEGER PRIMARY KEY, source INTEGER, path TEXT, offset INTEGER, bytes INTEGER,"
            " modified INTEGER, badly_named INTEGER, output TEXT, file INTEGER, row INTEGER, rows INTEGER);"
            "CREATE TABLE known (source INTEGER, path TEXT, offset INTEGER, bytes INTEGER, modified INTEGER,"
            " file INTEGER, row INTEGER, rows INTEGER, PRIMARY KEY (source, path)) WITHOUT ROWID;"
            "CREATE TABLE taken (output TEXT PRIMARY KEY) WITHOUT ROWID;"
            "CREATE TABLE owned (output TEXT PRIMARY KEY) WITHOUT ROWID;"
        )

    def close(self) -> None:
        self._catalogue.close()
        self._db.close()
        self._path.unlink(missing_ok=True)

    def find(self, origin: Input) -> tuple[int, int]:
        """List an input. Returns how many images it has, and how many names came twice."""
        return self._catalogue.find(origin)

    @scratch_errors()
    def name(self, naming: Naming) -> int:
        """Give every image found a number and its result a name. No two are the same; images that keep their names
        come first, then those before others in order. Returns the number of images."""
        self._catalogue.ready()
        count = 0
        for number, planned in enumerate(self._catalogue.plan([])):
            place = planned.place
            output = None
            if not planned.badly_named:
                base = naming.base(place.source, place.path)
                output = base if naming.keeps(base) and self._take(base, naming.tags) else None
            values = (self._source(place.source), place.path, _number(place.offset), _number(place.bytes),
                      _number(place.modified_ns))  # fmt: skip
            self._db.execute(
                "INSERT INTO item VALUES (?,?,?,?,?,?,?,?,NULL,NULL,NULL)",
                (number, *values, planned.badly_named, output),
            )
            count = number + 1
        self._name_others(naming)
        return count

    @scratch_errors()
    def _name_others(self, naming: Naming) -> None:
        names, last = list(self._sources), -1
        some = "SELECT number, source, path FROM item WHERE output IS NULL AND NOT badly_named AND number > ?"
        while rows := self._db.execute(f"{some} ORDER BY number LIMIT {_CHUNK}", (last,)).fetchall():
            for last, source, path in rows:
                base = naming.base(names[source], path)
                chosen = next(name for name in naming.candidates(base) if self._take(name, naming.tags))
                self._db.execute("UPDATE item SET output = ? WHERE number = ?", (chosen, last))

    @scratch_errors()
    def learn(self, table: Path, out: Path) -> None:
        """Make known which images an earlier run has done: rows of ``table`` whose results are there, whole.

        A failed image counts as done; one that has another size or time since then does not.
        """
        number = len(self.files)
        self.files.append(table)
        columns = pq.read_table(table, columns=list(_KNOWN_COLUMNS), partitioning=None).to_pydict()
        rows = list(zip(*(columns[name] for name in _KNOWN_COLUMNS), strict=True))
        start = 0
        for row in range(1, len(rows) + 1):
            if row < len(rows) and rows[row][:2] == rows[start][:2]:
                continue
            source, path, offset, size, modified, *_ = rows[start]
            if all(_is_whole(out, *rows[n][5:]) for n in range(start, row)):
                values = (self._source(source), path, _number(offset), _number(size), _number(modified))
                self._db.execute(
                    "INSERT OR REPLACE INTO known VALUES (?,?,?,?,?,?,?,?)", (*values, number, start, row - start)
                )
            start = row

    @scratch_errors()
    def own(self, outputs: Iterable[str]) -> None:
        """Make known that files of these names, below the folder of results, are lanit's."""
        self._db.executemany("INSERT OR IGNORE INTO owned VALUES (?)", ((output,) for output in outputs))

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
        found = self._db.execute(f"SELECT 1 FROM {table} WHERE output = ?", (storable(output),))
        return found.fetchone() is not None

    def _is_passed(self, folder: str) -> bool:
        """Whether the name of a result lies below ``folder``: "0" is what follows "/"."""
        some = "SELECT 1 FROM taken WHERE output > ?1 || '/' AND output < ?1 || '0' LIMIT 1"
        return self._db.execute(some, (storable(folder),)).fetchone() is not None

    @scratch_errors()
    def ready(self) -> Plan:
        """Everything is listed, named and learnt."""
        self._db.execute(
            "UPDATE item SET (file, row, rows) = (SELECT file, row, rows FROM known WHERE known.source = item.source"
            " AND known.path = item.path AND known.offset = item.offset AND known.bytes = item.bytes"
            " AND known.modified = item.modified)"
        )
        self._db.commit()
        names = sorted(self._sources, key=self._sources.__getitem__)
        return Plan(self._path, tuple(names))

    def _take(self, output: str, tags: Sequence[str]) -> bool:
        names = [tagged(output, tag) for tag in tags]
        if any(self._db.execute("SELECT 1 FROM taken WHERE output = ?", (name,)).fetchone() for name in names):
            return False
        self._db.executemany("INSERT INTO taken VALUES (?)", [(name,) for name in names])
        return True

    def _source(self, source: str) -> int:
        return self._sources.setdefault(source, len(self._sources))


@dataclass(frozen=True)
class Plan:
    """The images in their order, a part at a time; as often as wanted, also in other processes of this machine.

    path: of the work list. sources: inputs by number. part_rows: images of a part. A part is what becomes of it when
    the run is killed: all or nothing. announce: called with the images of a task before it is handed out.
    """

    path: Path
    sources: tuple[str, ...]
    part_rows: int = 1
    announce: Callable[[Sequence[Item]], None] | None = None

    def __iter__(self) -> Iterator[list[Item]]:
        items = self.items()
        while part := list(islice(items, self.part_rows)):
            yield part

    def tasks(self) -> Iterator[list[Item]]:
        """The images of each part that are to be done; parts without any are left out."""
        for part in self:
            todo = [item for item in part if item.to_do]
            if todo and self.announce is not None:
                self.announce(todo)
            if todo:
                yield todo

    def items(self) -> Iterator[Item]:
        with scratch_errors(), contextlib.closing(connect_scratch(self.path)) as database:
            rows = database.execute(
                "SELECT source, path, offset, bytes, modified, badly_named, output, file, row, rows FROM item"
                " ORDER BY number"
            )
            for source, path, offset, size, modified, badly_named, output, *done in rows:
                yield Item(
                    self.sources[source], path, _maybe(offset), _maybe(size), _maybe(modified), output or "",
                    None if done[0] is None else (done[0], done[1], done[2]), bool(badly_named),
                )  # fmt: skip

    @scratch_errors()
    def counts(self) -> tuple[int, int]:
        """Images in all, and those that an earlier run has done."""
        with contextlib.closing(connect_scratch(self.path)) as database:
            found, done = database.execute("SELECT count(*), count(file) FROM item").fetchone()
        return int(found), int(done)


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


def _number(value: int | None) -> int:
    return _NONE if value is None else value


def _maybe(value: int) -> int | None:
    return None if value == _NONE else value
