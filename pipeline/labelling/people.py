"""Labels by people, kept beside the revisions: a table, and a journal of what was answered since it was written.

Described in manifests/README.md. Answers are numbered from 1 in the order in which they were given; of those on one
image and phrase the newest counts. Readers take no lock: they read the journal, then the table, and leave out lines
that the table has already.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lanit.errors import LanitError, cannot_write
from pipeline.clip.fingerprint import Fingerprint
from pipeline.commands import store_option
from pipeline.files import sealed, sync_folder, temporary_beside, unsealed
from pipeline.labelling.label_columns import plain
from pipeline.parquet_seals import close_sealed
from pipeline.store.label_ledger import check_entered, publish_entered
from pipeline.store.label_revisions import RevisionFile
from pipeline.store.schemas import SCHEMA_VERSION, metadata_of, people_schema, with_metadata
from pipeline.store.store_folder import LABELS_FOLDER, lock_store

if TYPE_CHECKING:
    from pipeline.store.store import Store

TABLE_NAME = f"{LABELS_FOLDER}/people.parquet"
JOURNAL_NAME = f"{LABELS_FOLDER}/people.jsonl"
MOST_LINES = 1024
"""Lines of the journal at most; beyond, all answers go into the table. One answer costs one line, flushed to disk."""

_SLICE = 1 << 20  # rows of a row group of the table
_WAIT_SECONDS = 30.0
_TEXTS = ("image_id", "path", "sha256", "phrase")


@dataclass(frozen=True)
class Answer:
    """What a person says of one image. label: whether it has the phrase; none takes an earlier answer back.

    image_id, path: which image; either may be unknown, not both. sha256: of its data, which finds it under other names.
    """

    phrase: str
    label: bool | None
    image_id: str | None = None
    path: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class People:
    """The answers that count. table: of ``people_schema``, oldest first, one row for each image and phrase, in which a
    label of null was taken back. given: number of the newest answer that was ever given. lines: of the journal.
    stored: whether the files say so, or only older revisions."""

    table: pa.Table
    given: int = 0
    lines: int = 0
    stored: bool = False

    @property
    def kept(self) -> int:
        """Labels on or off."""
        return len(self.table) - self.table["label"].null_count

    def plus(self, answers: pa.Table) -> People:
        """With later answers, of ``people_schema``, oldest first; the same object where they are the newest already."""
        both = pa.concat_tables([self.table, answers]).unify_dictionaries().combine_chunks()
        keys, first = _keys(both), len(self.table)
        new = first + _last_of_each(keys[first:])
        tail = np.arange(first - len(new), first)
        if len(new) <= first and _same(both, keys, tail, new):
            return self
        kept = np.flatnonzero(~np.isin(keys[:first], keys[new]))
        return replace(self, table=both.take(np.concatenate([kept, new])), given=self.given + len(new))


def answers_table(answers: Iterable[Answer]) -> pa.Table:
    """Answers as a table of ``people_schema``, in their order."""
    rows = [asdict(answer) for answer in answers]
    return pa.Table.from_pylist(rows, people_schema())


def read_people(store: Store) -> People:
    """Every answer that counts, with those that only older revisions hold. Takes no lock and writes nothing.

    Raises LanitError where the files are damaged.
    """
    people = _read(store)
    return people if people is not None else _adopted(store)


def add_answers(store: Store, answers: pa.Table | Iterable[Answer]) -> People:
    """Keep ``answers``; they are on the disk on return. Safe among processes; returns every answer that counts.

    answers: of ``people_schema``, oldest first. The first call takes over what revisions made by earlier versions of
    lanit hold. Raises LanitError where another command keeps the store, where the disk refuses, and where the files are
    damaged; the answers are then as they were.
    """
    table = answers if isinstance(answers, pa.Table) else answers_table(answers)
    with lock_store(store.root, _WAIT_SECONDS):
        return _add(store, table)


def _add(store: Store, table: pa.Table) -> People:
    """Under the lock."""
    before = _read(store)
    start = before if before is not None else _adopted(store)
    people = start.plus(table)
    fresh = people.given - start.given
    if before is None and not people.given:
        return people  # nothing was ever said, so there is no file
    if before is not None and not fresh:
        return before
    if before is None or before.lines + fresh > MOST_LINES:
        _write_table(store.root, people)
        return replace(people, lines=0, stored=True)
    _append(store.root, people.table.slice(len(people.table) - fresh), before.given)
    return replace(people, lines=before.lines + fresh)


class AnswerBook:
    """For who gives answers one after another: what was read and written before is not read again while nobody else
    writes, so that an answer costs one flushed line, however many were given before. For one thread at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._given = self._lines = 0
        self._stored = False
        self._seen: tuple[Stamp, ...] | None = None

    @property
    def is_current(self) -> bool:
        """Whether nobody else wrote since this book last read or wrote."""
        return self._seen == _stamps(self._store.root)

    def read(self) -> People:
        """Every answer that counts, as :func:`read_people` says it."""
        seen = _stamps(self._store.root)
        people = read_people(self._store)
        self._given, self._lines, self._stored, self._seen = people.given, people.lines, people.stored, seen
        return people

    def add(self, answers: list[Answer]) -> bool:
        """Keep ``answers``, oldest first; they are on the disk on return. Returns whether nobody else wrote since this
        book last read or wrote; else what others said is to be read.

        Raises LanitError as :func:`add_answers`.
        """
        with lock_store(self._store.root, _WAIT_SECONDS):
            alone = self.is_current
            if alone and self._stored and self._lines + len(answers) <= MOST_LINES:
                _append(self._store.root, answers_table(answers), self._given)
                self._given, self._lines = self._given + len(answers), self._lines + len(answers)
            else:
                people = _add(self._store, answers_table(answers))
                self._given, self._lines, self._stored = people.given, people.lines, people.stored
            self._seen = _stamps(self._store.root)
            return alone


Stamp = tuple[int, int, int] | None
"""Of a file: which it is, when it was written and how long it is; none where there is none."""


def _stamps(root: Path) -> tuple[Stamp, ...]:
    found: list[Stamp] = []
    for name in (TABLE_NAME, JOURNAL_NAME):
        try:
            status = (root / name).stat()
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except FileNotFoundError:
            found.append(None)
    return tuple(found)


def forget_answers(store: Store) -> int | None:
    """Forget every answer, and return how many labels on or off there were; none where the files could not be read.

    What older revisions hold is not taken over again. Nothing is written where nothing was ever said.
    """
    with lock_store(store.root, _WAIT_SECONDS):
        try:
            people = read_people(store)
            count: int | None = people.kept
            if not people.given:
                return 0
        except LanitError:
            count = None
        (store.root / JOURNAL_NAME).unlink(missing_ok=True)
        _write_table(store.root, People(people_schema().empty_table()))
    return count


def codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """int64 (m), −1 for null, and the texts that they number, of a dictionary-encoded column."""
    whole = column.unify_dictionaries().combine_chunks()
    whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) and whole.num_chunks else whole
    if not len(whole):
        return np.empty(0, np.int64), []
    return whole.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), whole.dictionary.to_pylist()


def _keys(table: pa.Table) -> np.ndarray:
    """A number for each image and phrase, int64 (m): an image goes by its image_id, and by its path where that is not
    known; a phrase in any case, "_" for a space."""
    (ids, id_texts), (paths, _), (phrases, texts) = (codes(table[n]) for n in ("image_id", "path", "phrase"))
    number: dict[str, int] = {}
    same = np.array([number.setdefault(plain(text), len(number)) for text in texts] or [0], np.int64)
    images = np.where(ids >= 0, ids, len(id_texts) + paths)
    keys: np.ndarray = images * max(len(number), 1) + (same[phrases] if len(phrases) else phrases)
    return keys


def _labels(table: pa.Table) -> np.ndarray:
    """1, 0, and −1 for what was taken back, int8 (m)."""
    labels: np.ndarray = table["label"].cast(pa.int8()).fill_null(-1).to_numpy()
    return labels


def _same(table: pa.Table, keys: np.ndarray, rows: np.ndarray, others: np.ndarray) -> bool:
    """Whether two lists of rows say the same: of the same images and phrases, by labels and content."""
    columns = (keys, _labels(table), codes(table["sha256"])[0])
    return all(np.array_equal(column[rows], column[others]) for column in columns)


def _last_of_each(keys: np.ndarray) -> np.ndarray:
    """Where each key stands last, rising."""
    return np.sort(len(keys) - 1 - np.unique(keys[::-1], return_index=True)[1])


def _read(store: Store) -> People | None:
    """What the two files say; none where there are none."""
    root = store.root
    lines = _read_journal(root)
    table = _read_table(root)
    if table is None and not lines:
        return None
    people = table or People(people_schema().empty_table())
    later = [line for line in lines if line["n"] > people.given]
    if [line["n"] for line in later] != list(range(people.given + 1, people.given + 1 + len(later))):
        raise _damaged(root, root / JOURNAL_NAME, f"answers after number {people.given} are missing")
    answers = [Answer(**{name: value for name, value in line.items() if name != "n"}) for line in later]
    return replace(people.plus(answers_table(answers)), given=people.given + len(later), lines=len(lines), stored=True)


def _read_journal(root: Path) -> list[dict[str, Any]]:
    """Its lines; what a killed writer left unfinished at its end never counted."""
    path = root / JOURNAL_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _damaged(root, path, str(error.strerror or error)) from error
    lines = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            value = unsealed(json.loads(line))
            if not isinstance(value["n"], int) or set(value) != {"n", *people_schema().names}:
                raise ValueError("it is no answer")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _damaged(root, path, f"line {number}: {error}") from error
        lines.append(value)
    return lines


def _read_table(root: Path) -> People | None:
    path = root / TABLE_NAME
    try:
        check_entered(path)
        with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=list(_TEXTS)) as file:
            metadata = unsealed(metadata_of(file.schema_arrow))
            fits = metadata.get("kind") == "people" and metadata.get("schema_version") == SCHEMA_VERSION
            if not fits or file.schema_arrow.names != people_schema().names:
                raise ValueError("it is no table of labels by people")
            table = file.read().cast(people_schema())
            if metadata["rows"] != len(table):
                raise ValueError("rows are missing")
    except FileNotFoundError:
        return None
    except LanitError as error:
        raise _damaged(root, path, error.message) from error
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise _damaged(root, path, str(error)) from error
    return People(table, metadata["answers"])


def _damaged(root: Path, path: Path, why: str) -> LanitError:
    return LanitError(
        f"{path} is damaged ({why})",
        "Put a copy of it back; or leave labels by people out with --without-people; or begin without any: "
        f"lanit label --forget-people{store_option(root)}",
    )


def _write_table(root: Path, people: People) -> None:
    """Replace the table by every answer that counts, and remove the journal, which it contains."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "people",
        "answers": people.given,
        "rows": len(people.table),
    }
    schema = people_schema(dictionary=False)
    settings = {"compression": "zstd", "write_statistics": False, "write_page_checksum": True}
    described = with_metadata(schema, sealed(document))
    with temporary_beside(root / TABLE_NAME) as temporary:
        with pq.ParquetWriter(temporary, described, **settings) as file:
            for start in range(0, len(people.table), _SLICE):  # as texts, so that the file names only what it holds
                file.write_table(people.table.slice(start, _SLICE).cast(schema).replace_schema_metadata())
            close_sealed(file, temporary)
        publish_entered(temporary, root / TABLE_NAME)
    (root / JOURNAL_NAME).unlink(missing_ok=True)


def _append(root: Path, answers: pa.Table, given: int) -> None:
    """Append lines to the journal and flush them; where the disk refuses, it is as it was."""
    path = root / JOURNAL_NAME
    rows = enumerate(answers.to_pylist(), given + 1)
    lines = [json.dumps(sealed({"n": n} | row), ensure_ascii=False, separators=(",", ":")) for n, row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new, whole = not path.exists(), 0
    try:
        with path.open("ab+") as file:
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            try:
                file.write("".join(line + "\n" for line in lines).encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, whole)
                raise
    except OSError as error:
        raise cannot_write(path, error) from error
    if is_new:
        sync_folder(path.parent)


def _adopted(store: Store) -> People:
    """What people said in revisions made before answers were kept: the newest on each image and phrase.

    Those of the rule ``given``, or filled in, may be from a table or from folders, and are left where they are; so is
    what cannot be read.
    """
    people, content = People(people_schema().empty_table()), None
    for number in store.revisions():
        path = store.root / LABELS_FOLDER / f"r{number:04d}.parquet"
        with contextlib.suppress(LanitError, OSError, pa.ArrowException, ValueError):
            made_by = Fingerprint.from_json(metadata_of(pq.read_schema(path))["fingerprint"])  # whichever it is
            revision = RevisionFile.open(path, number, made_by)
            if revision.has_human and revision.rule.kind != "given" and not revision.of_training and not revision.fill:
                content = content or pa.concat_tables(store.ok_parts(["image_id", "sha256"]))
                people = people.plus(pa.concat_tables(_answers_in(revision, content)))
    return people


def _answers_in(revision: RevisionFile, content: pa.Table) -> Iterator[pa.Table]:
    """What people said in a revision, block by block. content: image_id and sha256 of the images of the store."""
    yield people_schema().empty_table()
    for block in revision.blocks(active=True, human=True, keys=True):
        rows, columns = np.nonzero(block.human)
        ids = block.image_ids.take(rows)
        found = pc.index_in(ids, value_set=content["image_id"].combine_chunks())
        texts = [ids, block.paths.take(rows), content["sha256"].take(found), pa.array(revision.domains).take(columns)]
        columns_of = dict(zip(_TEXTS, texts, strict=True)) | {"label": pa.array(block.active[rows, columns])}
        yield pa.table(columns_of).cast(people_schema())
