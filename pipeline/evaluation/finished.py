"""What an evaluation has finished, kept in the store's cache: an interrupted one goes on, a repeated one is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pipeline.evaluation.figures import PROTOCOL, DomainFigures
from pipeline.files import sha256_bytes
from pipeline.store.store import Store


class Finished:
    """Domains of one model that are done, by (guide, domain).

    depends_on: everything that the figures depend on; another value is another file. A line is written whole or counts
    for nothing.
    """

    def __init__(self, store: Store, depends_on: dict[str, Any]) -> None:
        text = json.dumps({"protocol": PROTOCOL, "parts": store.parts_array().tobytes().decode()} | depends_on)
        self.path: Path = store.root / "cache" / f"evaluation-{sha256_bytes(text.encode())[:16]}.jsonl"
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
        self.path.parent.mkdir(exist_ok=True)
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _lines(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:  # the process ended while it wrote this
                continue
        return found
