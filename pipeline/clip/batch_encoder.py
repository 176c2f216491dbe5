"""Images through the image tower of a CLIP, batch by batch, in as much memory as there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel


@dataclass
class BatchEncoder:
    """Embeds batches; where the GPU runs out of memory it halves them and goes on."""

    clip: ClipModel
    notes: list[str] = field(default_factory=list)
    _most: int | None = None  # images that fit at once, once that is known

    def launch(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """Unit-norm embeddings, float32 (n×k) in all, of uint8 images (3×s×s); on a GPU perhaps not computed yet."""
        most = self._most or len(pixels)
        if len(pixels) > most:
            return [part for start in range(0, len(pixels), most) for part in self.launch(pixels[start : start + most])]
        try:
            with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
                return [self.clip.encode_preprocessed(self.clip.preprocessing.normalise(self._on_device(pixels)))]
        except torch.OutOfMemoryError:
            if len(pixels) == 1:
                raise
            self._most = (len(pixels) + 1) // 2
            self.notes.append(f"the GPU is out of memory with {len(pixels)} images at once: going on with {self._most}")
        torch.cuda.empty_cache()
        return self.launch(pixels)

    def _on_device(self, pixels: Sequence[Tensor]) -> Tensor:
        # colours lie innermost: stacked so, their bytes are copied as they are
        batch = torch.stack([image.permute(1, 2, 0) for image in pixels]).permute(0, 3, 1, 2)
        if self.clip.device.type == "cuda" and batch.is_cpu:
            batch = batch.pin_memory()
        return batch.to(self.clip.device, non_blocking=True)
