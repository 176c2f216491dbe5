"""The map of a store: two dimensions of its embeddings, made once, kept in its cache, and what can be asked of it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lanit.errors import LanitError, UsageError
from pipeline.review.layout import lay_out
from pipeline.review.queues import Phrase
from pipeline.review.workplace import Workplace
from pipeline.store.caches import keep_array, read_array

_SOURCES = 9  # told apart by colour; the others share one


class MapMaker:
    """The map of ``place``, made in a thread of its own when somebody asks for it."""

    def __init__(self, place: Workplace) -> None:
        self._place, self._lock = place, threading.Lock()
        self._thread: threading.Thread | None = None
        self._points: np.ndarray | None = None
        self._progress: tuple[str, int, int] = ("", 0, 0)
        self._error = ""

    @property
    def path(self) -> Path:
        return self._place.store.root / "cache" / f"map-{self._place.key}.npy"

    def state(self) -> dict[str, Any]:
        """state: none, making, ready or failed; with what it does, how far it is, and why it failed."""
        with self._lock:
            if self._points is None and self._thread is None:
                kept = read_array(self.path)
                if kept is not None and kept.shape == (self._place.store.ok, 2):
                    self._points = kept
            what, done, total = self._progress
            idle = "failed" if self._error else "none"
            busy = "making" if self._is_busy() else idle
            name = busy if self._points is None else "ready"
            return {"state": name, "what": what, "done": done, "total": total, "error": self._error}

    def begin(self) -> None:
        """Begin to make it, unless it is there or being made."""
        if self.state()["state"] in ("none", "failed"):
            with self._lock:
                if not self._is_busy():
                    self._error = ""
                    self._thread = threading.Thread(target=self._make, name="map", daemon=True)
                    self._thread.start()

    def points(self) -> np.ndarray:
        """float32 (n×2), each from -1 to 1. Raises LanitError where it is not made."""
        self.state()
        if self._points is None:
            raise LanitError("the map is not made yet", "Press Make the map.")
        return self._points

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _make(self) -> None:
        try:
            points = lay_out(self._place.store, self._tell)
        except LanitError as error:
            self._error = f"{error.message}. {error.hint}"
            return
        except Exception as error:  # a thread has nobody to tell
            self._error = f"the map could not be made ({error})"
            return
        keep_array(self.path, points)
        self._points = points

    def _tell(self, what: str, done: int, total: int) -> None:
        self._progress = (what, done, total)


def colours(phrase: Phrase, by: str) -> np.ndarray:
    """float32 (n). phrase: 1 where an image has it now, else 0; margin: from 0 to 1, half at the threshold; people: 0
    where nobody said anything, 1 yes, 2 no; source: the number of its source."""
    if by == "phrase":
        return phrase.labelling.labels(phrase.domain).astype(np.float32)
    if by == "margin":
        away = phrase.margins - np.float32(phrase.offset)
        reach = max(float(np.quantile(np.abs(away), 0.99)), 1e-9) if len(away) else 1.0
        return np.clip(away / reach, -1, 1) / 2 + 0.5
    if by == "people":
        said = phrase.said
        return np.select([said == 1, said == 0], [1.0, 2.0], 0.0).astype(np.float32)
    if by == "source":
        return _sources(phrase.place)
    raise UsageError(f"nothing is coloured by '{by}'", "Choose phrase, margin, people or source.")


def _sources(place: Workplace) -> np.ndarray:
    """By how many images they have, the most first."""
    column = pa.chunked_array([table["source"].combine_chunks() for table in place.store.ok_parts(["source"])])
    codes = pc.dictionary_encode(column).combine_chunks()
    codes = codes if isinstance(codes, pa.DictionaryArray) else codes.chunk(0)
    numbers = codes.indices.to_numpy(zero_copy_only=False)
    rank = np.empty(len(codes.dictionary), np.float32)
    rank[np.argsort(-np.bincount(numbers), kind="stable")] = np.arange(len(rank))
    return np.minimum(rank, _SOURCES)[numbers]


def inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Rows of points, float (n×2), within a polygon, float (c×2), by the even-odd rule: int64."""
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    near = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
    x, y = points[near].astype(float).T
    odd = np.zeros(len(near), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (y0 > y) != (y1 > y)
        if crosses.any():
            odd ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0 if y1 != y0 else 1.0) + x0)
    return near[odd]
