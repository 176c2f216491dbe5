"""Label Studio: tasks with the labels as predictions, the labelling interface for them, and the images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pipeline.exports.image_files import ImageFiles, placed_images
from pipeline.exports.inventory import Writes, Written
from pipeline.exports.json_files import as_array, write_pieces
from pipeline.exports.layouts import ExportRequest
from pipeline.exports.naming import FileNames
from pipeline.exports.selection import Advance, Chunk, Record, Selection

TASKS_NAME = "tasks.json"
CONFIG_NAME = "label_config.xml"
_LOCAL = "/data/local-files/?d="
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class LabelStudio:
    """``tasks.json``, which Label Studio imports, ``label_config.xml``, the labelling interface, and ``images/``.

    Labels are predictions, which a person accepts or corrects; one without a choice says that CLIP gave the image none.
    Images are served by Label Studio itself, with this folder as its document root, so tasks name them relative to it.
    """

    READ_BY: ClassVar[str] = (
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=$(realpath {shell}) "
        "label-studio start; paste label_config.xml, add images/ as local storage, import {shell}/tasks.json"
    )
    TAKES: ClassVar[frozenset[str]] = frozenset({"files"})
    NEEDS_LABELS: ClassVar[bool] = True

    def __init__(self, selection: Selection, request: ExportRequest, advance: Advance) -> None:
        self._selection = selection
        self._choices = choices_of(selection.domains)
        self._files = ImageFiles(selection, request.files, FileNames(selection.paths()), advance)

    @property
    def writes(self) -> Writes:
        return Writes(self._files.patterns | {"": [TASKS_NAME, CONFIG_NAME]}, self._files.links)

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        return self._files.chunks(folder, start)

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> tuple[Written, ...]:
        tasks = (self._task(record, name) for record, name in placed_images(self._selection, folder))
        return (
            write_pieces(folder, CONFIG_NAME, self._config()),
            write_pieces(folder, TASKS_NAME, as_array(tasks)),
        )

    def _task(self, record: Record, name: str) -> dict[str, Any]:
        chosen = [self._choices[number] for number in record.labels]
        region = {"id": "labels", "from_name": "labels", "to_name": "image", "type": "choices"}
        revision = self._selection.labels.number if self._selection.labels is not None else 0
        return {
            "data": {"image": _LOCAL + quote(name), "image_id": record.image_id, "path": record.path},
            "predictions": [
                {
                    "model_version": f"lanit r{revision:04d}",
                    "result": [region | {"value": {"choices": chosen}}] if chosen else [],
                }
            ],
        }

    def _config(self) -> Iterator[str]:
        yield '<View>\n  <Image name="image" value="$image"/>\n'
        yield '  <Choices name="labels" toName="image" choice="multiple">\n'
        for choice in self._choices:
            yield f"    <Choice value={quoteattr(choice)}/>\n"
        yield "  </Choices>\n</View>\n"


def choices_of(domains: Sequence[str]) -> tuple[str, ...]:
    """A choice for each domain: itself, but for characters that no XML can hold."""
    choices = [" ".join(_NO_XML.sub("\ufffd", domain).split()) for domain in domains]
    counts = Counter(choices)
    return tuple(choice if counts[choice] == 1 else f"{choice} ({number})" for number, choice in enumerate(choices, 1))
