"""One image to translate, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class ResultRow:
    """One result, or an image that gave none. output: its name below the folder of results.

    style: which of several results, from 1. before, after: labels that CLIP sees in the source and in the result,
    none where no CLIP looked; requested: labels asked for. target: bool (N), the domains of ``requested``.
    before_margins, margins: float32 (N), f_n − f_base of source and result. width, height: of the source, upright.
    """

    style: int | None = None
    output: str | None = None
    output_bytes: int | None = None
    status: str = "failed"
    error_message: str | None = None
    width: int | None = None
    height: int | None = None
    before: str | None = None
    requested: str | None = None
    after: str | None = None
    target: np.ndarray | None = None
    before_margins: np.ndarray | None = None
    margins: np.ndarray | None = None

    def fail(self, reason: str) -> None:
        self.status, self.error_message, self.output = "failed", reason[:500], None


@dataclass(slots=True)
class SourceImage:
    """One image. source, path, offset, bytes, modified_ns: see :class:`pipeline.inputs.places.Place`.

    output: name of its result below the folder of results, without what tells several results of one image apart.
    done: where its rows already are, as (file, first row, rows). badly_named: its name is not UTF-8, and ``path`` is as
    a table can hold it. rows: what became of it in this run, one for each result.
    """

    source: str
    path: str
    offset: int | None
    bytes: int | None
    modified_ns: int | None
    output: str
    done: tuple[int, int, int] | None = None
    badly_named: bool = False
    rows: list[ResultRow] = field(default_factory=list)

    @property
    def to_do(self) -> bool:
        return self.done is None and not self.badly_named

    def fail(self, reason: str) -> None:
        """It gives no result."""
        row = ResultRow()
        row.fail(reason)
        self.rows = [row]
