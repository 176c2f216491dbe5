"""The CLIP that goes with a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.clip.models import DEFAULT_CLIP, ClipModel, Precision, load_clip
from pipeline.computing.devices import pick_device
from pipeline.store.store_folder import read_manifest

if TYPE_CHECKING:
    from pipeline.store.store import Store


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
