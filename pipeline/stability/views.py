"""Two crops of some images of a store, embedded once and kept: what tells how stable labels are, with no truth.

The images are those of the smallest ids, which are digests: a sample that stays the same as the store grows. Both
views are crops, since an image and a crop of it differ in more than the crop: one view being the original misleads.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lanit.errors import UsageError
from pipeline.store.caches import read_array

if TYPE_CHECKING:
    from pipeline.store.store import Store

MOST_IMAGES = 1000
LEAST_IMAGES = 500
"""Below so many, agreement is too rough to choose by: it may lower labels that were good."""

PATIENCE = 60.0
"""Seconds that crops, or the comparison of templates, may take where nobody asked for them."""

_RECIPE = "two crops of flip_and_crop, seeded by the content"


@dataclass(frozen=True)
class Stabilise:
    """What ``lanit label`` makes of two crops of some images. views: whether they are embedded, where there are enough
    images to say anything; where it is none, if that takes no more than ``PATIENCE``. Then the report says how stable
    labels are, and whether other templates would be more so.
    template, offsets: choose them by that; learn: learn prompts from that. least: images that it takes."""

    views: bool | None = None
    template: bool = False
    offsets: bool = False
    learn: bool = False
    least: int = LEAST_IMAGES

    def __post_init__(self) -> None:
        if self.views is False and self.needs_crops:
            options = {
                "--choose-template": self.template,
                "--choose-offsets": self.offsets,
                "--learn-prompts": self.learn,
            }
            option = next(name for name, asked in options.items() if asked)
            raise UsageError(f"{option} takes the crops that --without-views leaves out", "Drop one of the two.")

    @property
    def needs_crops(self) -> bool:
        return self.template or self.offsets or self.learn


@dataclass(frozen=True)
class Views:
    """Crops of n images. crops: unit-norm float32 (2×n×k). name: of their file, which stands for what they are."""

    crops: np.ndarray
    name: str

    def __len__(self) -> int:
        return self.crops.shape[1]


def read_views(store: Store) -> Views | None:
    """What was kept for the images that the store holds now; none where nothing was."""
    path = views_path(store)
    kept = kept_views(path, store.embedding_dim)
    return None if kept is None else views_of(kept, path)


def views_path(store: Store, most: int = MOST_IMAGES) -> Path:
    """Of crops of at most ``most`` images, by the store's model, of the parts that it has now."""
    made_by = [_RECIPE, most, store.fingerprint.to_json()]
    if store.manifest.frame is not None:
        made_by.append(store.manifest.frame)
    model = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode())
    parts = hashlib.sha256(store.parts_array().tobytes())
    return store.root / "cache" / f"views-{model.hexdigest()[:16]}-{parts.hexdigest()[:16]}.npy"


def views_dtype(dim: int) -> np.dtype[np.void]:
    """Of an image: its id and content as bytes, and unit-norm embeddings of two crops, float32 (2×k)."""
    return np.dtype([("image_id", "S16"), ("sha256", "S64"), ("crops", "<f4", (2, dim))])


def views_of(kept: np.ndarray, path: Path) -> Views:
    """kept: records of :func:`views_dtype`."""
    return Views(np.ascontiguousarray(kept["crops"].transpose(1, 0, 2)), path.name)


def kept_views(path: Path, dim: int) -> np.ndarray | None:
    """Records of :func:`views_dtype`; none where there are none that are whole."""
    kept = read_array(path)
    return kept if kept is not None and kept.dtype == views_dtype(dim) else None
