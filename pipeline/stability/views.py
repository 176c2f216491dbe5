"""Two crops of some images of a store, embedded once and kept: what tells how stable labels are, with no truth.

The images are those of the smallest ids, which are digests: a sample that stays the same as the store grows. Both
views are crops, since an image and a crop of it differ in more than the crop: one view being the original misleads.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lanit.errors import LanitError, UsageError
from pipeline.files import sweep_beside, write_bytes
from pipeline.progress import Progress
from pipeline.store.caches import content_of, named_content

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.clip.models import ClipModel
    from pipeline.store.store import Store

MOST_IMAGES = 1000
LEAST_IMAGES = 500
"""Below so many, agreement is too rough to choose by: it may lower labels that were good."""

_RECIPE = "two crops of flip_and_crop, seeded by the content"
_FILE = re.compile(r"views-[0-9a-f]{16}-[0-9a-f]{16}\.npy")
PATIENCE = 60.0  # seconds that crops may take where nobody asked for them
_TRIED = 2.0  # seconds after which it can be told how long they take
_BATCH = 16  # images, of which twice as many go through CLIP at once


@dataclass(frozen=True)
class Stabilise:
    """What ``lanit label`` makes of two crops of some images. views: whether they are embedded, where there are enough
    images to say anything; where it is none, if that takes no more than ``PATIENCE``. Then the report says how stable
    labels are, and whether other templates would be more so.
    template, offsets: choose them by that. least: images that it takes."""

    views: bool | None = None
    template: bool = False
    offsets: bool = False
    least: int = LEAST_IMAGES

    def __post_init__(self) -> None:
        if self.views is False and (self.template or self.offsets):
            option = "--choose-template" if self.template else "--choose-offsets"
            raise UsageError(f"{option} chooses by the crops that --without-views leaves out", "Drop one of the two.")


@dataclass(frozen=True)
class Views:
    """Crops of n images. crops: unit-norm float32 (2×n×k). name: of their file, which stands for what they are."""

    crops: np.ndarray
    name: str

    def __len__(self) -> int:
        return self.crops.shape[1]


def read_views(store: Store) -> Views | None:
    """What was kept for the images that the store holds now; none where nothing was."""
    path = _path(store)
    kept = _kept(path, store.embedding_dim)
    return None if kept is None else _views(kept, path)


def make_views(
    store: Store,
    clip: ClipModel,
    progress: Progress | None = None,
    least: int = LEAST_IMAGES,
    patience: float = math.inf,
) -> Views:
    """The crops of at most ``MOST_IMAGES`` images, read from ``cache/`` or embedded; those embedded before are kept.

    clip: the model that filled the store. progress: called with (images done, images to embed, what). Raises LanitError
    where the store has fewer than ``least`` images, or fewer can be read, and as soon as it shows that it would take
    longer than ``patience`` seconds.
    """
    from pipeline.store.store_images import StoreImages

    path, dim = _path(store), store.embedding_dim
    kept = _kept(path, dim)
    if kept is not None:
        return _views(kept, path)
    if store.ok < least:
        raise LanitError(
            f"how stable labels are shows from {least} images on; the store {store.root} has {store.ok}",
            "Embed more images.",
        )
    store.check_fingerprint(clip.fingerprint)
    rows, ids, digests = _sample(store)
    views = np.empty(len(rows), _dtype(dim))
    views["image_id"], views["sha256"] = ids, digests
    known = np.zeros(len(rows), bool)
    for other in _earlier(path, dim):
        _, here, there = np.intersect1d(views[["image_id", "sha256"]], other[["image_id", "sha256"]],
                                        return_indices=True)  # fmt: skip
        views["crops"][here], known[here] = other["crops"][there], True
    images, wanted = StoreImages(store, rows), np.flatnonzero(~known).tolist()
    begun = time.monotonic()
    for batch, crops in _embedded(images, wanted, digests, clip, progress):
        views["crops"][batch], known[batch] = crops, True
        took, share = time.monotonic() - begun, (wanted.index(batch[-1]) + 1) / len(wanted)
        if took > _TRIED and took / share > patience:
            minutes = math.ceil(took / share / 60)
            message = f"two crops of {len(wanted):,} images would take about {minutes} minutes here"
            raise LanitError(message, "Add --views to have them embedded, once.")
    views = views[known]
    if len(views) < least:
        raise LanitError(
            f"only {len(views)} of {len(rows)} images can be read again; how stable labels are shows from {least} on",
            images.remedy(wanted[0]),
        )
    file = io.BytesIO()
    np.save(file, views)
    with contextlib.suppress(LanitError, OSError):  # where nothing can be written, nothing is kept
        write_bytes(path, named_content(path.name, file.getvalue()))
        _forget_earlier(path)
    return _views(views, path)


def _path(store: Store) -> Path:
    """Of the store's model, and of the parts that it has now."""
    model = hashlib.sha256(json.dumps([_RECIPE, MOST_IMAGES, store.fingerprint.to_json()], sort_keys=True).encode())
    parts = hashlib.sha256(store.parts_array().tobytes())
    return store.root / "cache" / f"views-{model.hexdigest()[:16]}-{parts.hexdigest()[:16]}.npy"


def _dtype(dim: int) -> np.dtype[np.void]:
    return np.dtype([("image_id", "S16"), ("sha256", "S64"), ("crops", "<f4", (2, dim))])


def _views(kept: np.ndarray, path: Path) -> Views:
    return Views(np.ascontiguousarray(kept["crops"].transpose(1, 0, 2)), path.name)


def _kept(path: Path, dim: int) -> np.ndarray | None:
    content = content_of(path)
    if content is None:
        return None
    kept: np.ndarray = np.load(io.BytesIO(content))
    return kept if kept.dtype == _dtype(dim) else None


def _earlier(path: Path, dim: int) -> Iterator[np.ndarray]:
    """What was kept for other images, by the same model."""
    for other in sorted(path.parent.glob(f"{path.name[:23]}*.npy")):
        kept = _kept(other, dim)
        if kept is not None:
            yield kept


def _forget_earlier(path: Path) -> None:
    sweep_beside(path)
    for other in path.parent.iterdir():
        if _FILE.fullmatch(other.name) and other != path and content_of(other) is not None:
            other.unlink()


def _sample(store: Store) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of ``Store.embeddings``, int64, with ids and contents as bytes, in the order of the ids."""
    found, start = [], 0
    for table in store.ok_parts(["image_id", "sha256"]):
        rows = pa.array(np.arange(start, start + len(table)))
        found.append(_smallest(table.append_column("row", rows)))
        start += len(table)
    least = _smallest(pa.concat_tables(found)).sort_by("image_id")
    ids, digests = (np.array(least[name].to_pylist(), "S") for name in ("image_id", "sha256"))
    return least["row"].to_numpy(), ids, digests


def _smallest(table: pa.Table) -> pa.Table:
    count = min(MOST_IMAGES, len(table))
    return table.take(pc.select_k_unstable(table, count, sort_keys=[("image_id", "ascending")]))


def _embedded(
    images: object, wanted: Sequence[int], digests: np.ndarray, clip: ClipModel, progress: Progress | None
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Numbers of the images that could be read, batch by batch, and their crops, float32 (b×2×k)."""
    import torch

    from pipeline.decoding.clip_input import decode_for_clip
    from pipeline.decoding.limits import ImageError
    from pipeline.store.store_images import StoreImages

    assert isinstance(images, StoreImages)

    def crops_of(number: int) -> Tensor | None:
        try:
            pixels = decode_for_clip(images.read(number), clip.preprocessing, images.max_pixels(number)).pixels
        except ImageError:
            return None
        return two_crops(pixels, int(digests[number][:15], 16))

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            made = dict(zip(batch, pool.map(crops_of, batch), strict=True))
            read = {number: crops for number, crops in made.items() if crops is not None}
            if read:
                pixels = torch.cat(list(read.values())).to(clip.device)
                with torch.inference_mode():
                    embedded = clip.encode_preprocessed(clip.preprocessing.normalise(pixels)).cpu().numpy()
                yield list(read), embedded.reshape(len(read), 2, -1)
            if progress is not None:
                progress(start + len(batch), len(wanted), "two crops of each")


def two_crops(pixels: Tensor, seed: int) -> Tensor:
    """Two crops of an image as CLIP sees it, each mirrored or not, as training shows it (METHOD §5).

    pixels: uint8 (3×s×s). Returns float32 (2×3×s×s) in [-1, 1].
    """
    import torch

    from lanit.augment import flip_and_crop
    from lanit.ranks import Draws

    image = pixels.float().div(127.5).sub(1)
    return flip_and_crop(image.expand(2, -1, -1, -1), Draws(torch.Generator().manual_seed(seed)), 1.0)
