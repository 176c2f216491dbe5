"""What annotation tools say of whole images: COCO, Label Studio and CVAT, as rows of a file name and its labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pyarrow as pa

from lanit.errors import LanitError
from pipeline.tables.cells import Cells, Troubles, file_text, text_array

LABEL_STUDIO = "Label Studio"
NAME_COLUMN, LABELS_COLUMN = "file_name", "labels"
_UPLOADED = re.compile(r"/data/upload/(?:\d+/)?(?:[0-9a-f]{8}-)?(?P<name>[^/]+)")
_OF_PERSONS = frozenset({"annotation_id", "annotator", "lead_time", "created_at", "updated_at", "id", "agreement"})
"""What Label Studio's short JSON (JSON-MIN) and its CSV say of the annotation beside the data and the choice."""

Annotated = list[tuple[str, list[str] | None]]
"""Images by name, each with its labels; none where nobody said anything, which no label at all is not."""


class AnnotationTable:
    """A :class:`pipeline.tables.cells.OpenTable` with the columns ``file_name`` and ``labels``, lists of texts."""

    def __init__(self, layout: str, images: Annotated) -> None:
        self.layout = layout
        self._images = images
        self.schema = pa.schema([(NAME_COLUMN, pa.string()), (LABELS_COLUMN, pa.list_(pa.string()))])

    def texts(self, column: str, troubles: Troubles) -> Iterator[str | None]:
        return (file_text(name) or None for name, _ in self._images)

    def cells(self, wanted: Callable[[pa.Field], bool]) -> Cells:
        labels = pa.array([labels for _, labels in self._images], pa.list_(pa.string()))
        arrays = (text_array([name for name, _ in self._images]), labels)
        columns = zip(self.schema, arrays, strict=True)
        return [(field.name, pa.chunked_array([array])) for field, array in columns if wanted(field)]


def is_coco(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("images"), list) and "categories" in document


def of_coco(document: dict[str, Any], name: str) -> AnnotationTable:
    """The categories of an image's annotations, boxes and outlines included. An image without any may have been looked
    at or not, and says nothing."""
    try:
        categories = {entry["id"]: entry["name"] for entry in document["categories"]}
        found: dict[Any, dict[str, None]] = {}
        for entry in document.get("annotations") or []:
            found.setdefault(entry["image_id"], {})[categories[entry["category_id"]]] = None
        images = [(str(entry["file_name"]), found.get(entry["id"])) for entry in document["images"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise _broken(name, "COCO", error) from error
    return AnnotationTable("COCO", [(image, None if labels is None else [*labels]) for image, labels in images])


def is_label_studio(entry: dict[str, Any] | None) -> bool:
    """Whether the first entry of a list is a task of Label Studio's JSON, with all that was said of it."""
    return entry is not None and isinstance(entry.get("data"), dict) and isinstance(entry.get("annotations"), list)


def of_label_studio(tasks: Iterator[tuple[int, Any]], name: str) -> AnnotationTable:
    """The choices of the newest annotation of each task, in a project without any the labels of its regions. One
    without a choice says that there is none; a task without annotations, or with cancelled ones alone, says nothing."""
    said_of: dict[bool, Annotated] = {True: [], False: []}
    for number, task in tasks:
        try:
            said = [each for each in task["annotations"] if not each.get("was_cancelled")]
            newest = max(reversed(said), key=lambda each: str(each.get("updated_at") or ""), default=None)
            image, results = _image_of(task["data"]), None if newest is None else newest["result"]
            for whole, images in said_of.items():
                images.append((image, None if results is None else _labels_of(results, whole=whole)))
        except (KeyError, TypeError, AttributeError, StopIteration) as error:
            raise _broken(f"{name}, task {number}", "Label Studio's", error) from error
    return AnnotationTable(LABEL_STUDIO, said_of[any(labels for _, labels in said_of[True])])


def is_label_studio_min(columns: Collection[str] | None) -> bool:
    """Whether a table of these columns is Label Studio's short JSON, or its CSV."""
    return columns is not None and "annotation_id" in columns and "annotator" in columns


def is_of_persons(column: str) -> bool:
    """Whether a column of Label Studio's short JSON or CSV says something of the annotation alone."""
    return column in _OF_PERSONS


def without_persons(entry: dict[str, Any] | None) -> dict[str, Any] | None:
    """A row of Label Studio's short JSON without what it says of the annotation."""
    return None if entry is None else {key: cell for key, cell in entry.items() if not is_of_persons(key)}


def of_cvat(file: BinaryIO, name: str) -> AnnotationTable:
    """The tags of each image of "CVAT for images 1.1", in a file without any the labels of its boxes and other shapes.
    An image without any may have been looked at or not, and says nothing."""
    said_of: dict[str, Annotated] = {"tag": [], "*[@label]": []}
    try:
        for _, element in ElementTree.iterparse(file):
            if element.tag != "image":
                continue
            for what, images in said_of.items():
                labels = {str(each.get("label")): None for each in element.iterfind(what)}
                images.append((element.attrib["name"], [*labels] or None))
            element.clear()
    except (ElementTree.ParseError, KeyError) as error:
        raise _broken(name, "CVAT", error) from error
    images = said_of["tag" if any(labels for _, labels in said_of["tag"]) else "*[@label]"]
    if not images:
        message = f"{name} is XML without an image, and so not of CVAT for images 1.1"
        raise LanitError(message, 'Export it anew as "CVAT for images 1.1".')
    return AnnotationTable("CVAT", images)


def uploaded_name(path: str) -> str:
    """The name of an image as Label Studio serves it: of a file of the disk behind ``d=``, of one that was uploaded
    without the digits before it. Other names stay."""
    if path.startswith("/data/local-files/"):
        return (parse_qs(urlsplit(path).query).get("d") or [path])[0]
    found = _UPLOADED.fullmatch(path)
    return found["name"] if found else path


def _image_of(data: dict[str, Any]) -> str:
    """The image of a task: the text called ``image``, or else the first."""
    texts = {key: text for key, text in data.items() if isinstance(text, str)}
    return texts["image"] if "image" in texts else next(iter(texts.values()))


def _labels_of(results: list[dict[str, Any]], *, whole: bool) -> list[str]:
    """The choices, or the labels of regions, unless ``whole`` images alone are asked about."""
    values = [result.get("value", {}) for result in results]
    if whole:
        return [*dict.fromkeys(label for value in values for label in map(str, value.get("choices", [])))]
    return [*dict.fromkeys(label for value in values for label in labels_in(value))]


def labels_in(value: dict[str, Any]) -> list[str]:
    """What Label Studio keeps of a choice or a region: its choices, or its labels, as of ``rectanglelabels``."""
    lists = (cell for key, cell in value.items() if key == "choices" or key.endswith("labels"))
    return [str(label) for cell in lists if isinstance(cell, list) for label in cell]


def _broken(name: str, kind: str, error: Exception) -> LanitError:
    lacks = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split()) or "an entry is none"
    return LanitError(f"{name} is not {kind} as it should be: {lacks}", "Export it again.")
