"""Text vectors of a CLIP that were made before, so that texts which are known load no CLIP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Protocol

import numpy as np


class KeptTexts(Protocol):
    """Unit-norm text vectors, float32 (k), of one CLIP, by :func:`text_key`."""

    def read(self) -> Mapping[str, np.ndarray]:
        """All that are known."""

    def keep(self, made: Mapping[str, np.ndarray], logit_scale: float, context_length: int) -> None:
        """Add vectors that this CLIP made on a CPU. Where nothing can be written, nothing is kept.

        logit_scale, context_length: of the CLIP.
        """


def text_key(*content: object) -> str:
    """SHA-256 (hex) of what decides a vector beside the CLIP."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
