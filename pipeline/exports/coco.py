"""COCO: images in a folder beside a document of annotations, each of a whole image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pipeline.exports.image_files import IMAGES_FOLDER, ImageFiles, placed_images
from pipeline.exports.inventory import Writes, Written
from pipeline.exports.json_files import as_array, as_json, write_pieces
from pipeline.exports.layouts import ExportRequest
from pipeline.exports.naming import FileNames
from pipeline.exports.selection import Advance, Chunk, Record, Selection
from pipeline.exports.webdataset import shortest

ANNOTATIONS_NAME = "annotations.json"


class Coco:
    """``images/NAME.jpg``, and ``annotations.json``, whose file_name is relative to ``images/``.

    COCO has no labels of images: an annotation is a box, here that of the whole image. Categories are the domains.
    Beside COCO's own keys an image has image_id and path, an annotation the margin. An image without a label has no
    annotation.
    """

    READ_BY: ClassVar[str] = 'torchvision.datasets.CocoDetection("{out}/images", "{out}/annotations.json")'
    TAKES: ClassVar[frozenset[str]] = frozenset({"files"})
    NEEDS_LABELS: ClassVar[bool] = True

    def __init__(self, selection: Selection, request: ExportRequest, advance: Advance) -> None:
        self._selection = selection
        self._files = ImageFiles(selection, request.files, FileNames(selection.paths()), advance)

    @property
    def writes(self) -> Writes:
        return Writes(self._files.patterns | {"": [ANNOTATIONS_NAME]}, self._files.links)

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        return self._files.chunks(folder, start)

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> tuple[Written, ...]:
        return (write_pieces(folder, ANNOTATIONS_NAME, self._document(folder)),)

    def _document(self, folder: Path) -> Iterator[str]:
        domains = self._selection.domains
        labels = self._selection.labels
        about = f"labels: {self._selection.store.fingerprint.describe()}; {labels.rule.describe() if labels else ''}"
        yield f'{{"info": {as_json({"description": about, "contributor": "lanit"})},\n"licenses": [],\n"categories": '
        yield from as_array({"id": number, "name": name, "supercategory": ""} for number, name in enumerate(domains, 1))
        yield ',\n"images": '
        yield from as_array(_image(n, *placed) for n, placed in enumerate(placed_images(self._selection, folder), 1))
        yield ',\n"annotations": '
        yield from as_array(self._annotations(folder))
        yield "}\n"

    def _annotations(self, folder: Path) -> Iterator[dict[str, Any]]:
        count = 0
        for number, (record, _) in enumerate(placed_images(self._selection, folder), 1):
            for label in record.labels:
                count += 1
                yield {
                    "id": count,
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": [0, 0, record.width, record.height],
                    "area": record.width * record.height,
                    "iscrowd": 0,
                    "segmentation": [],
                } | ({} if record.margins is None else {"margin": shortest(record.margins[label])})


def _image(number: int, record: Record, name: str) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": name.removeprefix(f"{IMAGES_FOLDER}/"),
        "width": record.width,
        "height": record.height,
        "image_id": record.image_id,
        "path": record.path,
    }
