"""CSV: one row for each image, a column of 0 and 1 for each label."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from pipeline.exports.destination import flush_to_disk
from pipeline.exports.selection import Advance, Chunk, Record, Selection
from pipeline.exports.webdataset import shortest
from pipeline.store.schemas import MARGIN_PREFIX

IMAGES_NAME = "images.csv"
FAILED_NAME = "failed.csv"
_COLUMNS = ("image_id", "path", "source", "width", "height", "status")
_FAILED_COLUMNS = ["image_id", "path", "source", "status", "error_message"]
_REPORT_EVERY = 1000


class Tables:
    """``images.csv``, which pandas, spreadsheets and ``lanit inspect-labels --truth`` read, and ``failed.csv`` with
    the images that could not be embedded: they have no label, which a 0 would hide."""

    def __init__(self, selection: Selection, *, margins: bool, advance: Advance) -> None:
        self._selection, self._margins, self._advance = selection, margins, advance

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        """All in one: without images to read, there is little to continue."""
        with (folder / IMAGES_NAME).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(column_names(self._selection.domains, self._margins))
            for record in self._selection.records():
                writer.writerow(self._row(record))
                if record.position % _REPORT_EVERY == 0:
                    self._advance(record.position + 1)
        flush_to_disk(folder / IMAGES_NAME)
        self._advance(len(self._selection))
        yield Chunk(len(self._selection), 1 + self._write_failed(folder))

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> None:
        """Nothing stands beside the tables."""

    def _row(self, record: Record) -> list[Any]:
        row = [record.image_id, record.path, record.source, record.width, record.height, "ok"]
        if record.margins is not None:
            has = set(record.labels)
            row += [int(number in has) for number in range(len(record.margins))]
            row += [shortest(margin) for margin in record.margins] if self._margins else []
        return row

    def _write_failed(self, folder: Path) -> int:
        """Returns the number of files: none where nothing failed."""
        store = self._selection.store
        if store.ok == store.rows:
            return 0
        table = store.images(_FAILED_COLUMNS)
        with (folder / FAILED_NAME).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_FAILED_COLUMNS)
            for batch in table.filter(pc.not_equal(table["status"], "ok")).to_batches(_REPORT_EVERY):
                writer.writerows(row.values() for row in batch.to_pylist())
        flush_to_disk(folder / FAILED_NAME)
        return 1


def column_names(domains: tuple[str, ...], margins: bool) -> list[str]:
    """The header of ``images.csv``. Readers find a domain by its name, so a column of ours that is called the same, but
    for case and "_" for a space, gives way."""
    taken = {" ".join(domain.replace("_", " ").casefold().split()) for domain in domains}
    ours = [f"lanit_{name}" if name.replace("_", " ") in taken else name for name in _COLUMNS]
    return [*ours, *domains, *((MARGIN_PREFIX + domain for domain in domains) if margins else ())]
