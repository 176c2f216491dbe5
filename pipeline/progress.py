"""How long work says how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with (done, total), both counted from the start of the work, and a remark on how it goes."""

    def __call__(self, done: int, total: int, detail: str = "", /) -> None: ...
