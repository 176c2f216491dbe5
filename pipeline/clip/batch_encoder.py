"""Images through the image tower of a CLIP, batch by batch, in as much memory as there is."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.computing.halving import HalvingBatches, to_device

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel


class BatchEncoder(HalvingBatches[Tensor, Tensor]):
    """Unit-norm embeddings, float32 (n×k) in all, of uint8 images (3×s×s)."""

    def __init__(self, clip: ClipModel) -> None:
        super().__init__(partial(_encode, clip))


def _encode(clip: ClipModel, pixels: Sequence[Tensor]) -> Tensor:
    # colours lie innermost: stacked so, their bytes are copied as they are
    batch = torch.stack([image.permute(1, 2, 0) for image in pixels]).permute(0, 3, 1, 2)
    # these flags are the process's: on the CPU, where several threads may be here, they stay as they are
    exact = torch.backends.cudnn.flags(allow_tf32=False) if clip.device.type == "cuda" else contextlib.nullcontext()
    with torch.inference_mode(), exact:
        return clip.encode_preprocessed(clip.preprocessing.normalise(to_device(batch, clip.device)))
