"""What is said of a store's CLIP before it is loaded, which takes seconds: by what imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from lanit.errors import LanitError
from pipeline.clip.presets import DEFAULT, PRESETS
from pipeline.clip.reach import check_reachable
from pipeline.showing import console
from pipeline.store.store_folder import read_manifest


def announce_clip(store: Path, spec: str | None, *, anew: bool = False) -> None:
    """Say which CLIP is being loaded: ``spec``, else that of the store, unless that begins ``anew``.

    Raises LanitError at once where its weights cannot be had.
    """
    try:
        stored = None if anew or spec is not None else read_manifest(store)
    except LanitError:  # whoever opens the store says what is wrong with it
        return
    name = spec or (stored.clip_spec if stored else PRESETS[DEFAULT].clip)
    check_reachable(name)
    console.note(f"loading CLIP {name}…")
