"""What the page of ``lanit review`` works on: a store, a revision of it, what people say, and lists of images."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lanit.errors import LanitError
from pipeline.review.answers import TAKEN_BACK, Answers
from pipeline.review.columns import Columns
from pipeline.store.index import open_index
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages
from pipeline.store.thumbnail_cache import ThumbnailCache

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.store.label_revisions import RevisionFile

THUMBNAIL_SIDE = 192
_LISTS = 24  # kept; a page asks again for one that is gone


@dataclass(frozen=True)
class Labelling:
    """A revision, current, and what people say in its phrases."""

    revision: RevisionFile
    columns: Columns
    answers: Answers

    def labels(self, domain: int) -> np.ndarray:
        """Labels as they stand now, bool (n): people's before CLIP's."""
        said, column = self.answers.values(domain), self.columns[domain]
        own = np.where(said == TAKEN_BACK, column.by_clip, column.labels)
        return np.where(said >= 0, said == 1, own)


class Workplace:
    """Safe in threads. load_clip: of the store, called once, when words are read for the first time.

    prompts: the prompt file that phrases are added to. added: those since the revision shown. revising: held by what
    changes either.
    """

    def __init__(self, store: Store, load_clip: Callable[[], ClipModel], prompts: Path | None = None) -> None:
        self.store, self.images = store, StoreImages(store)
        self.thumbnails = ThumbnailCache(store, self.images, THUMBNAIL_SIDE)
        self.key = hashlib.sha256(store.parts_array().tobytes()).hexdigest()[:12]
        self._load_clip, self._clip_lock, self._index_lock = load_clip, threading.Lock(), threading.Lock()
        self._lists: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock, self._next_list = threading.Lock(), 1
        self.prompts, self.added, self.revising = prompts, list[str](), threading.Lock()
        self.labelling = self._labelling(None)

    def _labelling(self, number: int | None) -> Labelling:
        revision = self.store.labels_to_train(number)
        self.store.check_current(revision)
        return Labelling(revision, Columns(revision), Answers(self.store, self.images, revision.domains))

    def show(self, number: int) -> None:
        """Go on with another revision. Raises LanitError where it is none of the images that the store holds."""
        self.labelling = self._labelling(number)

    @cached_property
    def _loaded_clip(self) -> ClipModel:
        return self._load_clip()

    @property
    def clip(self) -> ClipModel:
        """The CLIP of the store. Raises LanitError where it is not to be had."""
        with self._clip_lock:
            return self._loaded_clip

    @cached_property
    def _opened_index(self) -> Any:
        return open_index(self.store)

    @property
    def index(self) -> Any:
        """Of the embeddings, opened once. Raises LanitError where it can be neither opened nor built."""
        with self._index_lock:
            return self._opened_index

    def keep_list(self, rows: np.ndarray) -> int:
        """A number by which :meth:`list_of` gives ``rows`` again, for a while."""
        with self._lock:
            number, self._next_list = self._next_list, self._next_list + 1
            self._lists[number] = np.ascontiguousarray(rows, np.int32)
            if len(self._lists) > _LISTS:
                self._lists.popitem(last=False)
            return number

    def list_of(self, number: int) -> np.ndarray:
        """int32. Raises LanitError where it is gone."""
        with self._lock:
            if number not in self._lists:
                raise LanitError("this list is gone", "Choose what to look at again.")
            self._lists.move_to_end(number)
            return self._lists[number]
