"""The method of LANIT: torch only. It opens no file, and importing it is free.

The functions here are the doorway out of this package, to the ``pipeline`` and ``cli`` beside it, which are imported
when they are called, whatever files of these names lie where the user works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType
    from typing import Any

    from pipeline.api import Model, ModelName
    from pipeline.embedding.embed import EmbedOptions
    from pipeline.label_frame import LabelFrame, StoreName
    from pipeline.stages import Images, ImageStore, Run, StoreLabels

    __version__: str


def embed(
    images: Images,
    store: StoreName = "manifests",
    *,
    clip: str | None = None,
    device: str = "auto",
    options: EmbedOptions | None = None,
) -> ImageStore:
    """Embed images with CLIP into a store, and return it: ``store.label(["smiling"], noun="face")`` labels them.

    images: a folder, a tar, a table, a URL and so on, as ``lanit embed`` takes them, or a list of such. What the store
    has already is not embedded again. clip: the store's, else the default of ``lanit embed``. options: of the work, see
    :class:`pipeline.embedding.embed.EmbedOptions`. Raises LanitError where images, CLIP or store cannot be had.
    """
    _beside("pipeline")
    from pipeline.stages import embed

    return embed(images, store, clip=clip, device=device, options=options)


def open_store(store: StoreName = "manifests", *, device: str = "auto") -> ImageStore:
    """A store made before, by :func:`embed` or by ``lanit embed``. Raises LanitError where there is none."""
    _beside("pipeline")
    from pipeline.stages import ImageStore

    return ImageStore(store, device=device)


def train(
    labels: StoreLabels | ImageStore,
    out: StoreName,
    *,
    preset: str = "paper",
    method: str | None = None,
    clusters: int | None = None,
    present: str | None = None,
    example: StoreName | None = None,
    size: int | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> Run:
    """Train a translator between the labelled domains in the folder ``out``; ``run.model`` translates.

    labels: those to learn from; a store stands for its newest, or for none with a method that finds ``clusters``.
    method, clusters, preset, size, steps, minutes: as ``lanit train`` takes them; present, example: the word, and its
    ``--from``, a file, of methods that learn one word; settings: any other option by its name there. The same call
    continues an interrupted run; KeyboardInterrupt saves it first. Raises LanitError where the run cannot be trained,
    UsageError for options that do not go together.
    """
    _beside("pipeline")
    from pipeline.stages import train

    return train(
        labels, out, preset=preset, method=method, clusters=clusters, present=present, example=example, size=size,
        steps=steps, minutes=minutes, settings=settings, device=device,
    )  # fmt: skip


def load(model: ModelName, *, device: str = "auto", clip: str | None = None) -> Model:
    """A trained model, ready to label and translate images.

    model: ``sample``, a run folder, an exported model, or ``owner/name`` on the Hugging Face hub. device: ``cpu``,
    ``cuda``, ``cuda:1``; ``auto`` is CUDA where there is a GPU. clip: where to find the model's CLIP, if not where it
    was; it is loaded when labels are first read. Raises LanitError where the model or the device cannot be had, and
    where another module called ``pipeline`` is loaded.
    """
    _beside("pipeline")
    from pipeline.api import Model

    return Model(model, device=device, clip=clip)


def read_labels(store: StoreName = "manifests", revision: int | None = None, *, margins: bool = False) -> LabelFrame:
    """The labels of a store as a pandas table: a row for each embedded image, with ``path`` and a column of bool for
    each phrase; see :func:`pipeline.label_frame.label_frame`.

    revision: the newest unless one is named. margins: a column ``margin:PHRASE`` for each phrase too. Raises LanitError
    where there are no labels, or they are of other images than the store holds.
    """
    _beside("pipeline")
    from pipeline.label_frame import label_frame

    return label_frame(store, revision, margins=margins)


def command() -> None:
    """What ``lanit`` runs in a terminal."""
    _beside("pipeline")
    _beside("cli").main()


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module 'lanit' has no attribute '{name}'")
    from importlib.metadata import version

    return version("lanit")


def _beside(name: str) -> ModuleType:
    """The module of this name that was installed with this package, loaded in the place of any other on the path.

    Raises LanitError where another is loaded already: what it was loaded for needs it.
    """
    import sys
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    loaded, spec = sys.modules.get(name), PathFinder.find_spec(name, [__file__.rsplit("lanit", 1)[0]])
    if spec is None or spec.loader is None:
        raise ImportError(f"lanit is not installed whole: {name} is not beside {__file__}")
    if loaded is None:
        loaded = sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(loaded)
    elif getattr(loaded, "__file__", None) != spec.origin:
        from lanit.errors import LanitError

        own = getattr(loaded, "__file__", None) or name
        raise LanitError(f"another module called {name} is loaded, which is not lanit's: {own}", f"Rename {own}.")
    return loaded
