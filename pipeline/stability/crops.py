"""Crops of images of a store, embedded: what :mod:`pipeline.stability.views` keeps."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from lanit.augment import flip_and_crop
from lanit.errors import LanitError
from lanit.ranks import Draws
from pipeline.clip.models import ClipModel
from pipeline.decoding.limits import ImageError
from pipeline.files import sweep_beside
from pipeline.progress import Progress
from pipeline.stability.views import (
    LEAST_IMAGES,
    MOST_IMAGES,
    Views,
    kept_views,
    views_dtype,
    views_of,
    views_path,
)
from pipeline.store.caches import content_of, keep_array
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages

_FILE = re.compile(r"views-[0-9a-f]{16}-[0-9a-f]{16}\.npy")
_TRIED = 2.0  # seconds after which it can be told how long they take
_BATCH = 16  # images, of which twice as many go through CLIP at once


def make_views(
    store: Store,
    clip: ClipModel,
    progress: Progress | None = None,
    least: int = LEAST_IMAGES,
    patience: float = math.inf,
    most: int = MOST_IMAGES,
) -> Views:
    """The crops of at most ``most`` images, read from ``cache/`` or embedded; those embedded before are kept.

    clip: the model that filled the store. progress: called with (images done, images to embed, what). Raises LanitError
    where the store has fewer than ``least`` images, or fewer can be read, and as soon as it shows that it would take
    longer than ``patience`` seconds.
    """
    path, dim = views_path(store, most), store.embedding_dim
    kept = kept_views(path, dim)
    if kept is not None:
        return views_of(kept, path)
    if store.ok < least:
        raise LanitError(
            f"how stable labels are shows from {least} images on; the store {store.root} has {store.ok}",
            "Embed more images.",
        )
    store.check_fingerprint(clip.fingerprint)
    rows, ids, digests = _sample(store, most)
    views = np.empty(len(rows), views_dtype(dim))
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
    if keep_array(path, views):
        with contextlib.suppress(OSError):
            _forget_earlier(path)
    return views_of(views, path)


def _earlier(path: Path, dim: int) -> Iterator[np.ndarray]:
    """What was kept for other images, by the same model."""
    for other in sorted(path.parent.glob(f"{path.name[:23]}*.npy")):
        kept = kept_views(other, dim)
        if kept is not None:
            yield kept


def _forget_earlier(path: Path) -> None:
    sweep_beside(path)
    for other in path.parent.iterdir():
        if _FILE.fullmatch(other.name) and other != path and content_of(other) is not None:
            other.unlink()


def _sample(store: Store, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of ``Store.embeddings``, int64, with ids and contents as bytes, in the order of the ids."""
    found, start = [], 0
    for table in store.ok_parts(["image_id", "sha256"]):
        content = pc.coalesce(table["sha256"], table["image_id"])  # an older lanit noted none
        rows = pa.array(np.arange(start, start + len(table)))
        columns = {"image_id": table["image_id"], "sha256": content, "row": rows}
        found.append(_smallest(pa.table(columns), most))
        start += len(table)
    least = _smallest(pa.concat_tables(found), most).sort_by("image_id")
    ids, digests = (np.array(least[name].to_pylist(), "S") for name in ("image_id", "sha256"))
    return least["row"].to_numpy(), ids, digests


def _smallest(table: pa.Table, most: int) -> pa.Table:
    count = min(most, len(table))
    return table.take(pc.select_k_unstable(table, count, sort_keys=[("image_id", "ascending")]))


def _embedded(
    images: StoreImages, wanted: Sequence[int], digests: np.ndarray, clip: ClipModel, progress: Progress | None
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Numbers of the images that could be read, batch by batch, and their crops, float32 (b×2×k)."""

    def crops_of(number: int) -> Tensor | None:
        try:
            pixels = images.decode_for_clip(number, clip.preprocessing).pixels
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
    image = pixels.float().div(127.5).sub(1)
    return flip_and_crop(image.expand(2, -1, -1, -1), Draws(torch.Generator().manual_seed(seed)), 1.0)
