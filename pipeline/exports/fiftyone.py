"""FiftyOne: images, and a document of their labels, which it reads as several classifications of an image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pipeline.exports.image_files import ImageFiles, placed_images
from pipeline.exports.inventory import Writes, Written
from pipeline.exports.json_files import as_json, write_pieces
from pipeline.exports.layouts import ExportRequest
from pipeline.exports.naming import FileNames
from pipeline.exports.selection import Advance, Chunk, Record, Selection
from pipeline.exports.webdataset import shortest

LABELS_NAME = "labels.json"
DATA_FOLDER = "data"


class FiftyOne:
    """``data/NAME.jpg`` and ``labels.json``, a FiftyOneImageClassificationDataset.

    ``labels.json`` has the domains as classes, and for each image, by its name without the suffix, a list: the number
    of the class, and the margin, which becomes an attribute of the classification. Without a label, it is empty.
    """

    READ_BY: ClassVar[str] = (
        'fiftyone.Dataset.from_dir("{out}", dataset_type=fiftyone.types.FiftyOneImageClassificationDataset)'
    )
    TAKES: ClassVar[frozenset[str]] = frozenset({"files"})
    NEEDS_LABELS: ClassVar[bool] = True

    def __init__(self, selection: Selection, request: ExportRequest, advance: Advance) -> None:
        self._selection = selection
        names = FileNames(selection.paths(), by_stem=True)
        self._files = ImageFiles(selection, request.files, names, advance, [DATA_FOLDER])

    @property
    def writes(self) -> Writes:
        return Writes(self._files.patterns | {"": [LABELS_NAME]}, self._files.links)

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        return self._files.chunks(folder, start)

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> tuple[Written, ...]:
        return (write_pieces(folder, LABELS_NAME, self._document(folder)),)

    def _document(self, folder: Path) -> Iterator[str]:
        yield f'{{"classes": {as_json(self._selection.domains)},\n"labels": {{'
        for number, (record, name) in enumerate(placed_images(self._selection, folder)):
            key = as_json(PurePosixPath(name).stem)
            yield f"{',' if number else ''}\n{key}: {as_json(_classifications(record))}"
        yield "\n}}\n"


def _classifications(record: Record) -> list[dict[str, Any]]:
    margins = record.margins
    return [
        {"label": label} | ({} if margins is None else {"attributes": {"margin": shortest(margins[label])}})
        for label in record.labels
    ]
