"""How a request is turned away."""

from __future__ import annotations


class Refusal(Exception):
    """A request that is answered by an HTTP status and one sentence, and goes no further."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
