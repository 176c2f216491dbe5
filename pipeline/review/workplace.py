"""What the page of ``lanit review`` works on: a store, a revision of it, what people say, and lists of images."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lanit.errors import LanitError
from pipeline.review.answers import TAKEN_BACK, Answers
from pipeline.review.columns import Columns
from pipeline.review.half_embeddings import HalfEmbeddings
from pipeline.review.samples import random_keys
from pipeline.store.index import index_kind, open_index
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages
from pipeline.store.thumbnail_cache import ThumbnailCache

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.store.label_revisions import RevisionFile

THUMBNAIL_SIDE = 192
_SHOWING = 2.0  # seconds in which a page gets its first images
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
    """Safe in threads. clip: of the store, which need not be loaded.

    shown: set once an image was. prompts: the prompt file that phrases are added to. added: those since the revision
    shown. revising: held by what changes either.
    """

    def __init__(self, store: Store, clip: ClipModel, prompts: Path | None = None) -> None:
        self.store, self.clip, self.shown = store, clip, threading.Event()
        self.key = hashlib.sha256(store.parts_array().tobytes()).hexdigest()[:12]
        self._lists: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock, self._index_lock, self._next_list = threading.Lock(), threading.Lock(), 1
        self.prompts, self.added, self.revising = prompts, list[str](), threading.Lock()
        with ThreadPoolExecutor(1, "images") as reader:  # each takes a second of a million images
            reading = reader.submit(StoreImages, store)
            self.image_ids: pa.ChunkedArray = store.ok_table(["image_id"])["image_id"]
            revision = self._revision(None)
            self.images = reading.result()
        pa.default_memory_pool().release_unused()  # what reading took beside what stays
        self.thumbnails = ThumbnailCache(store, self.images, THUMBNAIL_SIDE)
        self.labelling = self._labelling(revision)
        self.halves = HalfEmbeddings(store, self.key)

    def _revision(self, number: int | None) -> RevisionFile:
        revision = self.store.labels_to_train(number)
        self.store.check_current(revision, self.image_ids)
        return revision

    def _labelling(self, revision: RevisionFile) -> Labelling:
        answers = Answers(self.store, self.images, self.image_ids, revision.domains)
        return Labelling(revision, Columns(revision), answers)

    def show(self, number: int) -> None:
        """Go on with another revision. Raises LanitError where it is none of the images that the store holds."""
        self.labelling = self._labelling(self._revision(number))

    @cached_property
    def random_keys(self) -> np.ndarray:
        """Of each image, uint64 (n): see :func:`pipeline.review.samples.random_keys`."""
        return random_keys(self.image_ids)

    def nearest(self, query: np.ndarray, count: int) -> np.ndarray:
        """Rows of the images nearest to a unit-norm ``query``, float32 (k), the nearest first, int64 (≤ count): every
        image compared in half precision, or those that the index of a larger store finds.

        Raises LanitError where the store cannot be read or the index can be neither opened nor built.
        """
        from pipeline.searching.search import nearest_rows

        if self._flat:
            return self.halves.nearest(query, count)[1]
        with self._index_lock:
            return nearest_rows(self.store, self._opened_index, query, count, None)[1]

    @cached_property
    def _opened_index(self) -> Any:
        return open_index(self.store)

    @cached_property
    def _flat(self) -> bool:
        return index_kind(self.store) == "flat"

    def prepare_search(self) -> None:
        """Load what a search by words needs, so that it is there when the words are written. Raises LanitError where
        CLIP is not to be had, and as :meth:`nearest` does."""
        from pipeline.prompts.embed_prompts import load_texts

        load_texts(self.clip)
        if self._flat:
            self.halves.prepare()
        else:
            with self._index_lock:
                self._opened_index  # noqa: B018

    def prepare_search_early(self) -> None:
        """The same once images are shown, but for weights that would have to be fetched first. What is wrong is told
        when something is searched."""
        from pipeline.clip.reach import is_here

        self.shown.wait()
        time.sleep(_SHOWING)
        if is_here(self.clip.spec):
            with contextlib.suppress(LanitError):
                self.prepare_search()

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
