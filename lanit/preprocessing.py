"""What CLIP's image tower sees: one resize, the same for photographs and for generated images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lanit.errors import LanitError

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "longest", "squash"]


LONGEST_ASPECT = 8
"""Images longer than this are cropped before the resize to ``shortest``: a 1×10000 strip must not fill the memory."""


@dataclass(frozen=True)
class ClipPreprocessing:
    """Resize to ``size``, then normalise, as the CLIP model was trained.

    size: side of the square input, in pixels.
    mean, std: per channel, for images in [0, 1].
    interpolation: always antialiased; the public LANIT code resizes twice and without antialiasing (METHOD §8).
    resize_mode: ``shortest`` edge to size then centre crop, ``longest`` edge to size then padding,
        or ``squash`` both edges to size.
    fill_color: grey level 0–255 of the padding of ``longest``.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    fill_color: int = 0

    def __post_init__(self) -> None:
        if self.interpolation not in get_args(Interpolation) or self.resize_mode not in get_args(ResizeMode):
            raise LanitError(f"CLIP preprocessing '{self.interpolation}', '{self.resize_mode}' is not supported")

    def to_json(self) -> dict[str, object]:
        """Plain values for the fingerprint of the store."""
        values: dict[str, object] = asdict(self)
        return values | {"mean": list(self.mean), "std": list(self.std)}

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised float32 (B×3×size×size) of float32 images (B×3×H×W) in [-1, 1]; differentiable."""
        return self.normalise(self.resize(images))

    def resize(self, images: Tensor) -> Tensor:
        """Float32 (B×C×size×size) in [-1, 1] of float32 (B×C×H×W) in [-1, 1], any number of channels."""
        if self.resize_mode == "shortest":
            images = _centre(images, LONGEST_ASPECT * min(images.shape[-2:]))
        target = self._resized(*images.shape[-2:])
        if target != tuple(images.shape[-2:]):
            images = F.interpolate(images, target, mode=self.interpolation, antialias=True, align_corners=False)
            images = images.clamp(-1, 1)  # bicubic overshoots; an 8-bit image cannot
        return self._fit(images)

    def normalise(self, images: Tensor) -> Tensor:
        """(x − mean) / std of (B×3×…) in [-1, 1], with mean and std given for [0, 1]."""
        # new_full fills on the device: a tensor made from a list would be copied there, and wait for it
        mean, std = (torch.cat([images.new_full((1, 1, 1), v) for v in values]) for values in (self.mean, self.std))
        return (images - (2 * mean - 1)) / (2 * std)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the resize, before cropping or padding; rounded as torchvision and open_clip do."""
        short, long = sorted((height, width))
        if self.resize_mode == "squash" or short == long:
            return self.size, self.size
        if self.resize_mode == "shortest":
            other = int(self.size * long / short)
            return (self.size, other) if height <= width else (other, self.size)
        other = max(1, round(short / (long / self.size)))
        return (other, self.size) if height <= width else (self.size, other)

    def _fit(self, images: Tensor) -> Tensor:
        """Centre crop or pad to the square."""
        height, width = images.shape[-2:]
        if height > self.size or width > self.size:
            return _centre(images, self.size)
        if height < self.size or width < self.size:
            above, before = (self.size - height) // 2, (self.size - width) // 2
            edges = (before, self.size - width - before, above, self.size - height - above)
            images = F.pad(images, edges, value=self.fill_color / 127.5 - 1)
        return images


def _centre(images: Tensor, side: int) -> Tensor:
    """The middle ``side`` rows and columns, or all of them where there are fewer; rounded as torchvision does."""
    top, left = (max(round((length - side) / 2), 0) for length in images.shape[-2:])
    return images[..., top : top + side, left : left + side]
