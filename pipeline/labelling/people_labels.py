"""Labels by people on the images and the phrases of a revision, and tables of labels as answers of people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.labelling.known_labels import Truth
from pipeline.labelling.label_columns import plain
from pipeline.labelling.people import People, codes
from pipeline.store.schemas import people_schema

if TYPE_CHECKING:
    from pipeline.store.store import Store

_KEY_ROWS = 1 << 18  # images compared with the answers at once
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PeopleCounts:
    """Labels that people gave, on or off. kept: beside the revisions, in all. applied: to images and phrases of this
    revision. waiting: for images that the store does not hold. other_phrases: for phrases that this revision lacks.
    changed: of those applied, given to an image whose content is another now. not_in_revision: of those that apply,
    that the revision does not show, as it was made before them or without them."""

    kept: int = 0
    applied: int = 0
    waiting: int = 0
    other_phrases: int = 0
    changed: int = 0
    not_in_revision: int = 0


@dataclass(frozen=True)
class AppliedLabels:
    """What people say of the images of a store in N phrases. rows: of the store, int64 (a), rising; columns: phrases,
    int64 (a); on: bool (a). counts: see :class:`PeopleCounts`; ``not_in_revision`` is 0."""

    rows: Ints
    columns: Ints
    on: NDArray[np.bool_]
    counts: PeopleCounts

    def values(self, start: int, rows: int, domains: int) -> NDArray[np.int8]:
        """Of ``rows`` rows from ``start`` on: int8 (rows×domains), 1 on, 0 off, −1 where nobody says anything."""
        out = np.full((rows, domains), -1, np.int8)
        first, last = np.searchsorted(self.rows, (start, start + rows))
        out[self.rows[first:last] - start, self.columns[first:last]] = self.on[first:last]
        return out


def apply_people(people: People, store: Store, domains: Sequence[str]) -> AppliedLabels:
    """What ``people`` say of the embedded images of ``store`` in ``domains``, which go by their phrase in any case.

    An answer goes to the image of its image_id; where the store has none, to those of the same content, so that a
    folder or file that was renamed keeps its labels; one that was given by a path alone to the image of that path, if
    it is the only one. Of several answers on an image and a phrase the newest counts.
    """
    if not len(people.table):
        nothing = np.empty(0, np.int64)
        return AppliedLabels(nothing, nothing, np.empty(0, bool), PeopleCounts())
    images = _find_images(people.table, store)
    labels = people.table["label"].cast(pa.int8()).fill_null(-1).to_numpy()
    phrases, texts = codes(people.table["phrase"])
    column_of: dict[str, list[int]] = {}
    for n, domain in enumerate(domains):
        column_of.setdefault(plain(domain), []).append(n)
    wanted = [column_of.get(plain(text), []) for text in texts]
    pairs = [(code, column) for code, columns in enumerate(wanted) for column in columns]
    # an answer for every image that is meant, then for every column of its phrase
    answers = np.repeat(np.arange(len(labels)), images.counts)
    found = [np.flatnonzero(phrases[answers] == code) for code, _ in pairs]
    columns = np.repeat(np.array([column for _, column in pairs], np.int64), [len(each) for each in found])
    at = np.concatenate(found) if found else np.empty(0, np.int64)
    rows, answers = images.rows[at], answers[at]
    newest = np.lexsort((answers, columns, rows))
    rows, columns, answers = rows[newest], columns[newest], answers[newest]
    last = np.ones(len(rows), bool)
    last[:-1] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    last &= labels[answers] >= 0
    rows, columns, answers = rows[last], columns[last], answers[last]
    said, has = labels >= 0, images.counts > 0
    counts = PeopleCounts(
        kept=int(said.sum()),
        applied=len(rows),
        waiting=int((said & ~has).sum()),
        other_phrases=int((said & has & ~np.isin(phrases, [code for code, _ in pairs])).sum()),
        changed=int(images.changed[answers].sum()),
    )
    return AppliedLabels(rows, columns, labels[answers] == 1, counts)


@dataclass(frozen=True)
class _Images:
    """Rows of the store that each of m answers means: counts, int64 (m), and rows, int64, those of one after those of
    the other. changed: bool (m), whether an image found by its image_id has another content."""

    counts: Ints
    rows: Ints
    changed: NDArray[np.bool_]


def _find_images(table: pa.Table, store: Store) -> _Images:
    (ids, id_texts), (data, data_texts), (paths, path_texts) = (codes(table[n]) for n in ("image_id", "sha256", "path"))
    row_of = np.full(len(id_texts) + 1, -1, np.int64)  # by the number of an image_id; −1 for none
    data_of = np.full(len(id_texts) + 1, -1, np.int64)  # its content now
    places: dict[str, list[tuple[Ints, Ints]]] = {"sha256": [], "path": []}
    values = {"image_id": pa.array(id_texts, pa.string()), "sha256": pa.array(data_texts, pa.string()),
              "path": pa.array(path_texts, pa.string())}  # fmt: skip
    start = 0
    for keys in _blocks(store):
        found = {name: _index(keys[name], value) for name, value in values.items()}
        known = np.flatnonzero(found["image_id"] >= 0)
        row_of[found["image_id"][known]] = start + known
        data_of[found["image_id"][known]] = found["sha256"][known]
        for name, each in places.items():
            here = np.flatnonzero(found[name] >= 0)
            each.append((found[name][here], start + here))
        start += len(keys)
    content, path = (_Places.of(places[name], len(values[name])) for name in ("sha256", "path"))
    held = row_of[ids] >= 0
    missing = ~held & (ids >= 0) & (data >= 0)
    alone = (ids < 0) & (path.counts[paths] == 1)
    counts = np.select([held, missing, alone], [1, content.counts[data], 1], 0)
    rows = np.concatenate([row_of, content.rows, path.rows])
    firsts = [ids, len(row_of) + content.firsts[data], len(row_of) + len(content.rows) + path.firsts[paths]]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    meant = rows[np.repeat(np.select([held, missing, alone], firsts, 0), counts) + within]
    return _Images(counts, meant, held & (data >= 0) & (data_of[ids] != data))


@dataclass(frozen=True)
class _Places:
    """Rows of the store by the number of a text: ``rows[firsts[t] : firsts[t] + counts[t]]``. The last is for none."""

    rows: Ints
    firsts: Ints
    counts: Ints

    @classmethod
    def of(cls, found: Sequence[tuple[Ints, Ints]], texts: int) -> _Places:
        """found: numbers of texts, and the rows that have them."""
        numbers, rows = (np.concatenate([np.empty(0, np.int64), *side]) for side in zip(*found, strict=True))
        order = np.argsort(numbers, kind="stable")
        counts = np.append(np.bincount(numbers, minlength=texts), 0)
        return cls(rows[order], np.cumsum(counts) - counts, counts)


def _blocks(store: Store) -> Iterator[pa.Table]:
    """image_id, path and sha256 of the embedded images, many at once: looking texts up costs a table of them."""
    waiting: list[pa.Table] = []
    for part in store.ok_parts(["image_id", "path", "sha256"]):
        waiting.append(part)
        if sum(map(len, waiting)) >= _KEY_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _index(column: pa.ChunkedArray, texts: pa.Array) -> Ints:
    """Where each text of ``column`` stands among ``texts``, int64; −1 where it does not."""
    found: Ints = pc.fill_null(pc.index_in(column, value_set=texts, skip_nulls=True), -1).to_numpy().astype(np.int64)
    return found


def answers_of(truth: Truth, store: Store, domains: Sequence[str]) -> tuple[pa.Table, int]:
    """A table of labels, or folders, as answers in ``domains``; and how many of its rows name no image of ``store``.

    Those wait for their image, but folders. Raises LanitError where no row names an image, or one names two.
    """
    keys = pa.concat_tables(store.ok_parts(["image_id", "path", "sha256"]))
    rows = truth.align(keys["image_id"], keys["path"])
    images = np.flatnonzero(rows >= 0)
    found = _answers(truth, rows[images], keys.take(images), domains)
    if truth.key == "folder":
        return found, 0
    left = np.setdiff1d(np.arange(len(truth.keys)), rows[images])
    names = pa.table({truth.key: pa.array(truth.keys, pa.string()).take(left)})
    return pa.concat_tables([found, _answers(truth, left, names, domains)]), len(left)


def _answers(truth: Truth, rows: Ints, images: pa.Table, domains: Sequence[str]) -> pa.Table:
    """What the ``rows`` of ``truth`` say, image by image. images: what is known of the image of each row."""
    values, taken_back = truth.values(rows, domains), truth.taken_back(rows, domains)
    at, columns = np.nonzero((values >= 0) | taken_back)
    said: dict[str, Any] = {name: images[name].take(at) for name in images.column_names}
    labels = pa.array(values[at, columns] == 1, mask=taken_back[at, columns])
    said |= {"phrase": pa.array(domains, pa.string()).take(columns), "label": labels}
    schema = people_schema()
    missing = [name for name in schema.names if name not in said]
    said |= {name: pa.nulls(len(at), pa.string()) for name in missing}
    return pa.table({name: said[name] for name in schema.names}).cast(schema)
