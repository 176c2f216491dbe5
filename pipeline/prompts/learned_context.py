"""What training made of a prompt set's templates, as a value: compared, hashed, kept as JSON (METHOD 12)."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lanit.errors import LanitError

_ANEW = "Label the store again: lanit label --prompts FILE, with its --store."


@dataclass(frozen=True)
class LearnedContext:
    """Token embeddings, float32 (M×L×w), that stand for the words of M templates before ``{}``.

    shape: (M, L, w); L is that of the longest template. data: the numbers, little-endian, in C order.
    """

    shape: tuple[int, int, int]
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, values: np.ndarray) -> LearnedContext:
        """From (M×L×w) of any real type; LanitError where it has another form or values that are not finite."""
        if values.ndim != 3 or not np.isfinite(values).all():
            raise LanitError(f"learned prompts of {values.shape} are not finite numbers M×L×w", "Train again.")
        templates, slots, width = values.shape
        return cls((templates, slots, width), np.ascontiguousarray(values, "<f4").tobytes())

    def array(self) -> np.ndarray:
        """float32 (M×L×w), read-only."""
        return np.ndarray(self.shape, "<f4", self.data)

    def first_template(self) -> LearnedContext:
        return LearnedContext.of(self.array()[:1])

    def digest(self) -> str:
        """SHA-256 (hex) of shape and numbers."""
        return hashlib.sha256(repr(self.shape).encode() + self.data).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "float32": base64.b64encode(self.data).decode()}

    @classmethod
    def from_json(cls, value: Any) -> LearnedContext:
        """What ``to_json`` wrote; LanitError where ``value`` is anything else."""
        try:
            data = base64.b64decode(value["float32"], validate=True)
            return cls.of(np.frombuffer(data, "<f4").reshape([int(size) for size in value["shape"]]))
        except (KeyError, TypeError, ValueError) as error:
            raise LanitError("the stored learned prompts are damaged", _ANEW) from error
