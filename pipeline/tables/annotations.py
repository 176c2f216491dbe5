"""What annotation tools say of whole images: COCO, Label Studio and CVAT, as rows of a file name and its labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pyarrow as pa

from lanit.errors import LanitError
from pipeline.tables.cells import Cells, Troubles, file_text, text_array

NAME_COLUMN, LABELS_COLUMN = "file_name", "labels"
_UPLOADED = re.compile(r"/data/upload/(?:\d+/)?(?:[0-9a-f]{8}-)?(?P<name>[^/]+)")
_OF_PERSONS = frozenset({"annotation_id", "annotator", "lead_time", "created_at", "updated_at", "id", "agreement"})
"""What Label Studio's short JSON (JSON-MIN) says of the annotation beside the data and the choice."""

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
    """The choices of the newest annotation of each task. One without a choice says that there is none; a task without
    annotations, or with cancelled ones alone, says nothing."""
    images: Annotated = []
    for number, task in tasks:
        try:
            said = [each for each in task["annotations"] if not each.get("was_cancelled")]
            newest = max(reversed(said), key=lambda each: str(each.get("updated_at") or ""), default=None)
            images.append((_image_of(task["data"]), None if newest is None else _choices_of(newest["result"])))
        except (KeyError, TypeError, AttributeError, StopIteration) as error:
            raise _broken(f"{name}, task {number}", "Label Studio's", error) from error
    return AnnotationTable("Label Studio", images)


def is_label_studio_min(entry: dict[str, Any] | None) -> bool:
    return entry is not None and {"annotation_id", "annotator"} <= entry.keys()


def without_persons(entry: dict[str, Any] | None) -> dict[str, Any] | None:
    """A row of Label Studio's short JSON without what it says of the annotation."""
    return None if entry is None else {key: cell for key, cell in entry.items() if key not in _OF_PERSONS}


def of_cvat(file: BinaryIO, name: str) -> AnnotationTable:
    """The tags of each image of "CVAT for images 1.1". An image without any may have been looked at or not, and says
    nothing."""
    images: Annotated = []
    try:
        for _, element in ElementTree.iterparse(file):
            if element.tag != "image":
                continue
            tags = {str(tag.get("label")): None for tag in element.iterfind("tag")}
            images.append((element.attrib["name"], [*tags] or None))
            element.clear()
    except (ElementTree.ParseError, KeyError) as error:
        raise _broken(name, "CVAT", error) from error
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


def _choices_of(results: list[dict[str, Any]]) -> list[str]:
    found: dict[str, None] = {}
    for result in results:
        found.update(dict.fromkeys(map(str, result.get("value", {}).get("choices", []))))
    return [*found]


def _broken(name: str, kind: str, error: Exception) -> LanitError:
    lacks = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split()) or "an entry is none"
    return LanitError(f"{name} is not {kind} as it should be: {lacks}", "Export it again.")
