"""The CLIP that goes with a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.clip.models import DEFAULT_CLIP, ClipModel, Precision, load_clip
from pipeline.clip.world import World
from pipeline.computing.devices import pick_device
from pipeline.store.store_folder import read_manifest

if TYPE_CHECKING:
    from pipeline.store.store import Store

_RUNS, _RUN = 8, 64  # runs of successive images that are looked at, and images of each
_STRANGERS = 0.75  # share of the images from which on they are warned of


def clip_of(store: Store, spec: str | None, architecture: str | None, device: str = "cpu") -> ClipModel:
    """The CLIP that filled ``store``, or the one that ``--clip`` names instead.

    Raises LanitError where that is a model of other weights or other preprocessing.
    """
    if spec is None and architecture is None:
        model = load_clip(store.clip_spec, pick_device(device), store.clip_architecture)
    else:
        model = load_clip(spec or store.clip_spec, pick_device(device), architecture)
    store.check_fingerprint(model.fingerprint)
    return model


def clip_to_embed(
    store: Path, spec: str | None, architecture: str | None, precision: Precision | None, device: str, *, anew: bool
) -> ClipModel:
    """The CLIP to embed with: as named, else the one that filled the store, unless that begins anew."""
    stored = None if anew else read_manifest(store)
    if stored is not None:
        precision = precision or ("bf16" if stored.fingerprint.precision == "bf16" else "fp32")
        if spec is None:
            spec, architecture = stored.clip_spec, architecture or stored.clip_architecture
    return load_clip(spec or DEFAULT_CLIP, pick_device(device), architecture, precision or "fp32")


def sampled_embeddings(store: Store) -> np.ndarray:
    """Unit-norm embeddings of some images all over ``store``, float32 (n×k): of few parts, however many it has."""
    starts = np.linspace(0, store.ok, _RUNS, endpoint=False, dtype=np.int64)
    rows = np.unique(np.minimum(starts[:, None] + np.arange(_RUN), store.ok - 1)) if store.ok else starts[:0]
    return store.embeddings_of(rows)


def are_strangers(world: World, embeddings: np.ndarray) -> bool:
    """Whether most of the images of ``embeddings``, float32 (n×k), are unlike those of ``world``."""
    return bool(len(embeddings)) and float(world.outside(embeddings).mean()) > _STRANGERS


def warn_of_strangers(store: Store, clip: ClipModel) -> list[str]:
    """A sentence where the images of ``store`` are unlike those that ``clip`` was made for, where it says which."""
    if clip.world is None or not are_strangers(clip.world, sampled_embeddings(store)):
        return []
    return [
        f"these images are unlike all that CLIP '{clip.spec}' was made for, which are {clip.world.shows}: its labels "
        "say nothing about them; lanit models lists CLIPs for photographs"
    ]
