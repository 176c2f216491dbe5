"""The method of LANIT: torch only. It opens no file, and importing it is free.

:func:`load`, :func:`read_labels` and :func:`command` are the doorway out of this package, to the ``pipeline`` and
``cli`` beside it, which are imported when they are called, whatever files of these names lie where the user works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from pipeline.api import Model, ModelName
    from pipeline.label_frame import LabelFrame, StoreName


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
