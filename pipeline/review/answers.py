"""What people say of the images of a store in the phrases of a revision: read, and added to, one press at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.labelling.label_columns import plain
from pipeline.labelling.people import Answer, AnswerBook
from pipeline.labelling.people_labels import apply_people
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages

UNSAID, TAKEN_BACK = -1, -2


@dataclass(frozen=True)
class Change:
    """An answer that was added while the page is served. label: none where it takes an earlier one back."""

    row: int
    domain: int
    label: bool | None


class Answers:
    """Answers on the n images of ``store`` in ``domains``. Safe in threads; other processes may answer too.

    image_ids: of the n images, strings."""

    def __init__(self, store: Store, images: StoreImages, image_ids: pa.ChunkedArray, domains: Sequence[str]) -> None:
        self._store, self._images, self._domains, self.image_ids = store, images, domains, image_ids
        self._book, self._lock = AnswerBook(store), threading.RLock()
        self._changes: list[Change] = []
        self._read()

    def values(self, domain: int) -> np.ndarray:
        """int8 (n): 1 on, 0 off, ``UNSAID``, or ``TAKEN_BACK`` where an answer was, in the time of this page."""
        with self._lock:
            found = self._values.get(domain)
            return np.full(self._store.ok, UNSAID, np.int8) if found is None else found.copy()

    def of_row(self, row: int) -> list[int]:
        """The same for one image in every phrase."""
        with self._lock:
            return [int(self._values[n][row]) if n in self._values else UNSAID for n in range(len(self._domains))]

    def count(self, domain: int) -> int:
        with self._lock:
            return int((self._values[domain] >= 0).sum()) if domain in self._values else 0

    def add(self, rows: Sequence[int], domain: int, label: bool | None) -> list[bool | None]:
        """Say ``label`` of every one of ``rows``, none to take back; on the disk on return. Returns what was said
        before of each.

        Raises LanitError where another command keeps the store or the disk refuses; nothing is said then.
        """
        with self._lock:
            before = self._column(domain)[np.asarray(rows, np.int64)].tolist()
            told = [None if value < 0 else bool(value) for value in before]
            changed = [row for row, was in zip(rows, told, strict=True) if was is not label]
            if changed:
                alone = self._book.add([self._answer(row, domain, label) for row in changed])
                self._note(changed, domain, label)
                if not alone:
                    self._read_again()
            return told

    def since(self, number: int) -> tuple[int, list[Change]]:
        """Changes from number ``number`` on, and the number to ask with the next time; what other processes answered
        is among them."""
        with self._lock:
            if not self._book.is_current:
                self._read_again()
            return len(self._changes), self._changes[max(number, 0) :]

    def _answer(self, row: int, domain: int, label: bool | None) -> Answer:
        path = self._images.place(row)[1]
        return Answer(self._domains[domain], label, self.image_ids[row].as_py(), path, self._images.sha256(row))

    def _column(self, domain: int) -> np.ndarray:
        return self._values.setdefault(domain, np.full(self._store.ok, UNSAID, np.int8))

    def _note(self, rows: Sequence[int], domain: int, label: bool | None) -> None:
        same = [n for n, other in enumerate(self._domains) if plain(other) == plain(self._domains[domain])]
        for n in same:
            self._column(n)[np.asarray(rows, np.int64)] = TAKEN_BACK if label is None else int(label)
            self._changes.extend(Change(row, n, label) for row in rows)

    def _read(self) -> None:
        applied = apply_people(self._book.read(), self._store, self._domains)
        self._values: dict[int, np.ndarray] = {}
        for domain in np.unique(applied.columns).tolist():
            here = applied.columns == domain
            self._column(domain)[applied.rows[here]] = applied.on[here]

    def _read_again(self) -> None:
        """What other processes answered meanwhile is a change like one's own."""
        before = self._values
        self._read()
        for domain in {*before, *self._values}:
            old, new = before.get(domain), self._column(domain)
            was = np.full(len(new), UNSAID, np.int8) if old is None else old
            new[(new < 0) & (was != UNSAID)] = TAKEN_BACK
            for row in np.flatnonzero(was != new).tolist():
                self._changes.append(Change(row, domain, bool(new[row]) if new[row] >= 0 else None))
