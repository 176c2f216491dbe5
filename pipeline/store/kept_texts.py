"""Text vectors kept in a store, so that labelling and searching by known words load no CLIP."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lanit.errors import LanitError
from pipeline.files import sweep_beside
from pipeline.store.caches import content_of, keep_array, read_array

if TYPE_CHECKING:
    from pipeline.clip.fingerprint import Fingerprint

MOST_TEXTS = 8192
"""Vectors that are kept; the oldest give way."""

_FILE = re.compile(r"texts-[0-9a-f]{16}\.npy")


class StoreTexts:
    """A file in ``cache/`` of a store: :class:`pipeline.clip.kept_texts.KeptTexts`, and what else texts need to know of
    their CLIP."""

    def __init__(self, root: Path, fingerprint: Fingerprint, *, writes: bool = True) -> None:
        """fingerprint: of the CLIP; its precision, which the text tower does not share, does not matter. writes:
        whether what is read now is kept in the store too."""
        self._writes = writes
        model = json.dumps(replace(fingerprint, precision="").to_json(), sort_keys=True)
        self._path = root / "cache" / f"texts-{hashlib.sha256(model.encode()).hexdigest()[:16]}.npy"
        self._dim = fingerprint.embedding_dim
        self._known: dict[str, np.ndarray] = {}
        self.logit_scale: float | None = None
        self.context_length: int | None = None
        record = read_array(self._path)
        if record is not None and record.shape == () and record.dtype == self._dtype(len(record["texts"])):
            self.logit_scale, self.context_length = float(record["logit_scale"]), int(record["context_length"])
            texts = record["texts"]
            self._known = dict(zip((key.decode() for key in texts["key"]), texts["vector"], strict=True))

    def read(self) -> Mapping[str, np.ndarray]:
        return self._known

    def keep(self, made: Mapping[str, np.ndarray], logit_scale: float, context_length: int) -> None:
        self.logit_scale, self.context_length = logit_scale, context_length
        self._known = dict(list({**self._known, **made}.items())[-MOST_TEXTS:])
        if not self._writes:
            return
        record = np.zeros((), self._dtype(len(self._known)))
        record["logit_scale"], record["context_length"] = logit_scale, context_length
        record["texts"]["key"] = [key.encode() for key in self._known]
        record["texts"]["vector"] = list(self._known.values())
        if keep_array(self._path, record):
            with contextlib.suppress(LanitError, OSError):
                self._forget_other_models()

    def _dtype(self, count: int) -> np.dtype[np.void]:
        text = np.dtype([("key", "S64"), ("vector", "<f4", (self._dim,))])
        return np.dtype([("logit_scale", "<f8"), ("context_length", "<i4"), ("texts", text, (count,))])

    def _forget_other_models(self) -> None:
        sweep_beside(self._path)
        for other in self._path.parent.iterdir():
            if _FILE.fullmatch(other.name) and other != self._path and content_of(other) is not None:
                other.unlink()
