"""What an evaluation has finished, kept in the store's cache: an interrupted one goes on, a repeated one is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.evaluation.figures import PROTOCOL, DomainFigures
from pipeline.evaluation.measures import MEASURES
from pipeline.files import sealed, sha256_bytes, unsealed
from pipeline.store.store import Store


class Finished:
    """Domains of one model that are done, by (guide, domain).

    depends_on: everything that the figures depend on; another value is another file. A line is sealed and says what it
    depends on: one that was torn, changed, or brought from elsewhere counts for nothing, and is measured again. Two
    evaluations may add to one file at once. tell: takes a remark where nothing can be kept, once.
    """

    def __init__(self, store: Store, depends_on: dict[str, Any], tell: Callable[[str], None]) -> None:
        known = {"protocol": PROTOCOL, "figures": [measure.name for measure in MEASURES]}
        text = json.dumps(known | {"parts": store.parts_array().tobytes().decode()} | depends_on)
        self._of, self._tell = sha256_bytes(text.encode()), tell
        self.path: Path = store.root / "cache" / f"evaluation-{self._of[:16]}.jsonl"
        self.unrelated: float | None = None
        self._figures: dict[tuple[str, str], DomainFigures] = {}
        for line in self._lines():
            if "unrelated" in line:
                self.unrelated = line["unrelated"]
            else:
                self._figures[line["guide"], line["figures"]["domain"]] = DomainFigures.from_stored(line["figures"])

    def get(self, guide: str, domain: str) -> DomainFigures | None:
        return self._figures.get((guide, domain))

    def add(self, guide: str, figures: DomainFigures) -> None:
        self._figures[guide, figures.domain] = figures
        self._write({"guide": guide, "figures": figures.to_stored()})

    def set_unrelated(self, distance: float) -> None:
        """The mean distance between two different sources."""
        self.unrelated = distance
        self._write({"unrelated": distance})

    def _write(self, line: dict[str, Any]) -> None:
        """Append a line in one piece; where that cannot be done, say so and go on without."""
        data = json.dumps(sealed({"of": self._of} | line)).encode() + b"\n"
        try:
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("ab+", buffering=0) as file:
                if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":  # a torn line
                    data = b"\n" + data
                file.write(data)
                os.fsync(file.fileno())
        except OSError as error:
            self._tell(f"figures are not kept in {self.path.parent}: {error.strerror or error}")
            self._tell = lambda _: None

    def _lines(self) -> list[dict[str, Any]]:
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                value = json.loads(line)
                content = unsealed(value)
            except (ValueError, AttributeError, RecursionError):  # torn, or changed
                continue
            if len(content) < len(value) and content.pop("of", None) == self._of:
                found.append(content)
        return found
