"""CSV: one row for each image, a column of 0 and 1 for each label."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.compute as pc

from pipeline.column_names import own_columns
from pipeline.exports.destination import flush_to_disk
from pipeline.exports.inventory import Writes, Written
from pipeline.exports.layouts import ExportRequest
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

    READ_BY: ClassVar[str] = 'pandas.read_csv("{out}/images.csv")'
    TAKES: ClassVar[frozenset[str]] = frozenset({"margins"})
    NEEDS_LABELS: ClassVar[bool] = False
    writes = Writes({"": [IMAGES_NAME, FAILED_NAME]})

    def __init__(self, selection: Selection, request: ExportRequest, advance: Advance) -> None:
        self._selection, self._margins, self._advance = selection, request.margins, advance

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        """All in one: without images to read, there is little to continue. Files that are listed are written."""
        if files:
            return
        with (folder / IMAGES_NAME).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(column_names(self._selection.domains, self._margins))
            for record in self._selection.records():
                writer.writerow(self._row(record))
                if record.position % _REPORT_EVERY == 0:
                    self._advance(record.position + 1)
        flush_to_disk(folder / IMAGES_NAME)
        self._advance(len(self._selection))
        names = [IMAGES_NAME, *self._write_failed(folder)]
        yield Chunk(len(self._selection), tuple(Written.of(folder, name) for name in names))

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> tuple[Written, ...]:
        """Nothing stands beside the tables."""
        return ()

    def _row(self, record: Record) -> list[Any]:
        row = [record.image_id, record.path, record.source, record.width, record.height, "ok"]
        if record.margins is not None:
            has = set(record.labels)
            row += [int(number in has) for number in range(len(record.margins))]
            row += [shortest(margin) for margin in record.margins] if self._margins else []
        return row

    def _write_failed(self, folder: Path) -> list[str]:
        """Returns the names of the files: none where nothing failed."""
        store = self._selection.store
        if store.ok == store.rows:
            return []
        table = store.images(_FAILED_COLUMNS)
        with (folder / FAILED_NAME).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_FAILED_COLUMNS)
            for batch in table.filter(pc.not_equal(table["status"], "ok")).to_batches(_REPORT_EVERY):
                writer.writerows(row.values() for row in batch.to_pylist())
        flush_to_disk(folder / FAILED_NAME)
        return [FAILED_NAME]


def column_names(domains: tuple[str, ...], margins: bool) -> list[str]:
    """The header of ``images.csv``; columns of ours, those of margins too, give way to a domain of the same name."""
    more = [MARGIN_PREFIX + domain for domain in domains] if margins else []
    ours = own_columns([*_COLUMNS, *more], domains)
    return [*ours[: len(_COLUMNS)], *domains, *ours[len(_COLUMNS) :]]
