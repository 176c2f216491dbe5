"""Search: the images whose embeddings are nearest to that of a text or of an example."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lanit.errors import LanitError, UsageError, excerpt, listed
from pipeline.commands import store_option
from pipeline.prompts.embed_prompts import sentence_vector
from pipeline.store.index import is_approximate, nearest, open_index
from pipeline.store.store import Store

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.decoding.frames import Frame

DEFAULT_TOP = 20
_CANDIDATES = 8  # for each image asked for, where the index knows only codes of the embeddings


@dataclass(frozen=True)
class Hit:
    """An image found. rank: from 1. row: its number in :meth:`pipeline.store.store.Store.embeddings`.

    cosine: of its embedding with that of the query."""

    rank: int
    row: int
    cosine: float
    image_id: str
    source: str
    path: str
    width: int | None
    height: int | None


@dataclass(frozen=True)
class SearchReport:
    """What ``lanit search`` found, nearest first.

    query: the text, or the name of the example. searched: images that were eligible. every_image: whether each of them
    was compared; else the lists of the index that are nearest. labels: those that each image had to have.
    unknown_words: words of the text that this CLIP never saw, where it says so.
    """

    store: str
    kind: Literal["text", "image"]
    query: str
    searched: int
    every_image: bool
    labels: tuple[str, ...]
    unknown_words: tuple[str, ...]
    hits: tuple[Hit, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def search(
    store: Store,
    clip: ClipModel,
    *,
    text: str | None = None,
    image: Path | None = None,
    top: int = DEFAULT_TOP,
    labels: Sequence[str] = (),
    tell: Callable[[str], None] | None = None,
) -> SearchReport:
    """The ``top`` images of ``store`` nearest to a text, or to an image file.

    The text is taken as it is, without templates. The image is prepared and encoded as ``lanit embed`` does it.
    labels: domains of the newest label revision; only images that have all of them are eligible. tell: called with a
    remark before an index is built.
    Raises UsageError unless there is one query, LanitError where ``clip`` is not the model of the store or the image
    cannot be decoded (ImageError).
    """
    if top < 1:
        raise UsageError(f"--top is at least 1, not {top}", "Leave it out.")
    check_query(text, image)
    store.check_fingerprint(clip.fingerprint)
    among = _labelled(store, labels) if labels else None
    query = embed_image(clip, image, store.manifest.frame) if image is not None else sentence_vector(clip, text or "")
    searched = store.ok if among is None else int(among.sum())
    index = open_index(store, tell)
    cosines, rows = nearest_rows(store, index, query, min(top, searched), among)
    return SearchReport(
        store=str(store.root),
        kind="text" if image is None else "image",
        query=text or str(image),
        searched=searched,
        every_image=among is not None or getattr(index, "nprobe", 0) >= getattr(index, "nlist", 0),
        labels=tuple(labels),
        unknown_words=() if text is None else tuple(clip.unknown_words([text])),
        hits=_hits(store, cosines, rows),
    )


def check_query(text: str | None, image: Path | None) -> None:
    """Raise UsageError unless there is exactly one query that says something."""
    like = 'Write it like: lanit search "a striped cat"'
    if (text is None) == (image is None):
        raise UsageError("search for a text or for --image FILE, one of them", like)
    if text is not None and not text.strip():
        raise UsageError("the text to search for is empty", like)


def embed_image(clip: ClipModel, file: Path, frame: Frame | None = None) -> np.ndarray:
    """Unit-norm embedding of an image file, float32 (k), as ``lanit embed`` would store it. Raises ImageError."""
    import torch

    from pipeline.clip.batch_encoder import BatchEncoder
    from pipeline.decoding.clip_input import decode_for_clip
    from pipeline.decoding.images import read_image_bytes
    from pipeline.decoding.limits import MAX_PIXELS, ImageError

    try:
        pixels = decode_for_clip(read_image_bytes(file), clip.preprocessing, MAX_PIXELS, frame).pixels
    except ImageError as error:
        raise ImageError(error.reason, str(file)) from error
    embedding: np.ndarray = torch.cat(BatchEncoder(clip).launch([pixels]))[0].cpu().numpy()
    if not np.isfinite(embedding).all():
        raise ImageError("its embedding is not finite", str(file))
    return embedding


def _labelled(store: Store, labels: Sequence[str]) -> np.ndarray:
    """Which images have all of the labels, bool (n)."""
    revision = store.revision_file()
    for label in labels:
        if label not in revision.domains:
            names = difflib.get_close_matches(label, revision.domains, n=3, cutoff=0.5) or revision.domains
            message = f"label revision {revision.number} has no label '{excerpt(label)}'"
            raise UsageError(message, f"Choose one of {listed(names, 20)}.")
    store.check_current(revision)
    columns = [revision.domains.index(label) for label in labels]
    among = np.concatenate([block.active[:, columns].all(axis=1) for block in revision.blocks(active=True)])
    if not among.any():
        hint = f"Leave out --label, or see: lanit inspect-labels{store_option(store.root)}"
        raise LanitError(f"no image is labelled {' and '.join(labels)}", hint)
    return among


def nearest_rows(
    store: Store, index: Any, query: np.ndarray, count: int, among: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines, float32 (≤ count), highest first, equal ones in the order of rows, and rows, int64.

    index: as ``open_index`` gives it. query: unit-norm, float32 (k). among: bool (n), rows that count; none for all.
    """
    coded = is_approximate(index)
    cosines, rows = (found[0] for found in nearest(index, query[None], count * (_CANDIDATES if coded else 1), among))
    cosines, rows = cosines[rows >= 0], rows[rows >= 0]
    if coded:
        cosines = store.embeddings_of(rows) @ query
    order = np.lexsort((rows, -cosines))[:count]
    return np.minimum(cosines[order], 1), rows[order]


def _hits(store: Store, cosines: np.ndarray, rows: np.ndarray) -> tuple[Hit, ...]:
    columns = ["image_id", "source", "path", "width", "height"]
    found = store.images_of(rows, columns).to_pylist()
    return tuple(
        Hit(rank=rank, row=int(row), cosine=round(float(cosine), 6), **{name: entry[name] for name in columns})
        for rank, (row, cosine, entry) in enumerate(zip(rows, cosines, found, strict=True), 1)
    )
