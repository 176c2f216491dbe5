"""The method of LANIT: torch only. It opens no file, and importing it is free.

:func:`load` is the one doorway out of this package, to :mod:`pipeline.api`, which is imported when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.api import Model, ModelName


def load(model: ModelName, *, device: str = "auto", clip: str | None = None) -> Model:
    """A trained model, ready to label and translate images.

    model: ``sample``, a run folder, an exported model, or ``owner/name`` on the Hugging Face hub. device: ``cpu``,
    ``cuda``, ``cuda:1``; ``auto`` is CUDA where there is a GPU. clip: where to find the model's CLIP, if not where it
    was; it is loaded when labels are first read. Raises LanitError where the model or the device cannot be had.
    """
    from pipeline.api import Model

    return Model(model, device=device, clip=clip)
