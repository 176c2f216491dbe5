"""The CLIP that goes with a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import numpy as np

from pipeline.clip.clip_process import ClipProcess
from pipeline.clip.fingerprint import Fingerprint
from pipeline.clip.local_folders import local_folder, read_words, unknown_words
from pipeline.clip.presets import DEFAULT, PRESETS
from pipeline.clip.world import World, read_world
from pipeline.showing.volume import LOGGER
from pipeline.store.kept_texts import StoreTexts
from pipeline.store.store_folder import read_manifest

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel, Precision
    from pipeline.store.store import Store

P = ParamSpec("P")
T = TypeVar("T")

_RUNS, _RUN = 8, 64  # runs of successive images that are looked at, and images of each
_STRANGERS = 0.75  # share of the images from which on they are warned of


class StoreClip:
    """Stands for the :class:`pipeline.clip.models.ClipModel` of a store, and loads it when something is asked that the
    store does not know, such as a text that nobody asked for before.

    process: where it is loaded instead of here, to read texts. Raises LanitError then where the CLIP cannot be had or
    is not the one that filled the store.
    """

    process: ClipProcess | None = None

    def __init__(
        self, store: Store, device: str, precision: str, tell: Callable[[str], None] | None, *, keeps: bool = True
    ) -> None:
        self.fingerprint: Fingerprint = replace(store.fingerprint, precision=precision)
        self.spec, self.architecture = store.clip_spec, store.clip_architecture
        self.embedding_dim = store.embedding_dim
        self.kept_texts = StoreTexts(store.root, store.fingerprint, writes=keeps)
        self._store, self._device, self._tell = store, device, tell

    @cached_property
    def vocabulary(self) -> frozenset[str] | None:
        return read_words(local_folder(self.spec))

    @cached_property
    def world(self) -> World | None:
        return read_world(local_folder(self.spec))

    @property
    def logit_scale(self) -> float:
        known = self.kept_texts.logit_scale
        return self.run(_logit_scale) if known is None else known

    @property
    def context_length(self) -> int:
        known = self.kept_texts.context_length
        return self.run(_context_length) if known is None else known

    def run(self, work: Callable[Concatenate[ClipModel, P], T], *arguments: P.args, **options: P.kwargs) -> T:
        """See :meth:`pipeline.clip.models.ClipModel.run`."""
        if self.process is not None:
            return self.process.ask(work, *arguments, **options)
        return work(self.loaded, *arguments, **options)

    def unknown_words(self, phrases: Sequence[str]) -> list[str]:
        return unknown_words(self.vocabulary, phrases)

    @cached_property
    def loaded(self) -> ClipModel:
        from pipeline.clip.reach import check_reachable

        check_reachable(self.spec)
        if self._tell is not None:
            self._tell(f"loading CLIP {self.spec}…")
        begun = time.monotonic()
        from pipeline.clip.models import load_clip
        from pipeline.computing.devices import pick_device

        precision: Precision = "bf16" if self.fingerprint.precision == "bf16" else "fp32"
        model = load_clip(self.spec, pick_device(self._device), self.architecture, precision)
        self._store.check_fingerprint(model.fingerprint)
        LOGGER.info("CLIP %s loaded on %s in %.1f s", self.spec, model.device, time.monotonic() - begun)
        return model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.loaded, name)


def clip_of(
    store: Store,
    spec: str | None,
    architecture: str | None,
    device: str = "cpu",
    *,
    precision: str = "fp32",
    tell: Callable[[str], None] | None = None,
    keeps: bool = True,
) -> ClipModel:
    """The CLIP that filled ``store``, loaded once it is needed; or the one that ``--clip`` names instead.

    Raises LanitError where that is a model of other weights or other preprocessing. precision: of its image tower.
    tell: called with a line before a CLIP is loaded, which takes seconds. keeps: whether the store keeps what texts it
    reads.
    """
    if spec is None and architecture is None:
        return cast("ClipModel", StoreClip(store, device, precision, tell, keeps=keeps))
    if tell is not None:
        tell(f"loading CLIP {spec or store.clip_spec}…")
    from pipeline.clip.models import load_clip
    from pipeline.computing.devices import pick_device

    chosen: Precision = "bf16" if precision == "bf16" else "fp32"
    model = load_clip(spec or store.clip_spec, pick_device(device), architecture, chosen)
    store.check_fingerprint(model.fingerprint)
    return replace(model, kept_texts=StoreTexts(store.root, store.fingerprint))


def clip_elsewhere(store: Store, spec: str | None, architecture: str | None) -> ClipModel:
    """The same, loaded in a process of its own when a text is to be read that the store does not know. Raises
    LanitError then."""
    clip = StoreClip(store, "cpu", "fp32", None)
    clip.spec, clip.architecture = spec or clip.spec, architecture or clip.architecture
    clip.process = ClipProcess(partial(_read_there, store.root, spec, architecture))
    return cast("ClipModel", clip)


def _read_there(root: Path, spec: str | None, architecture: str | None) -> ClipModel:
    from pipeline.store.store import Store

    return clip_of(Store.open(root), spec, architecture, keeps=False)


def _logit_scale(clip: ClipModel) -> float:
    return clip.logit_scale


def _context_length(clip: ClipModel) -> int:
    return clip.context_length


def clip_to_embed(
    store: Path, spec: str | None, architecture: str | None, precision: Precision | None, device: str, *, anew: bool
) -> ClipModel:
    """The CLIP to embed with: as named, else the one that filled the store, unless that begins anew."""
    from pipeline.clip.models import load_clip
    from pipeline.computing.devices import pick_device

    stored = None if anew else read_manifest(store)
    if stored is not None:
        precision = precision or ("bf16" if stored.fingerprint.precision == "bf16" else "fp32")
        if spec is None:
            spec, architecture = stored.clip_spec, architecture or stored.clip_architecture
    return load_clip(spec or PRESETS[DEFAULT].clip, pick_device(device), architecture, precision or "fp32")


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
