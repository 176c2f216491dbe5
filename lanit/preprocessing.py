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
        """Normalised float32 (B×3×size×size) of images (B×3×H×W): float in [-1, 1], differentiable, or uint8."""
        return self.normalise(self.resize(images))

    def resize(self, images: Tensor) -> Tensor:
        """(B×C×size×size) of images (B×C×H×W) of the same type: float in [-1, 1], or uint8; any number of channels.

        Training resizes floats, embedding files uint8, which is five times as fast. Both are this antialiased resize,
        and the uint8 one rounds and cuts overshoot after each of its two passes: on photographs and drawings that makes
        0.3 levels of 255 on average, and up to 14 beside edges of black and white. Pillow's resize does the same, and
        differs by 0.004 levels on average and 2 at most (more only beside such edges of images over three times as
        tall as wide, whose columns it takes first). Images of the size asked for do not change at all.
        """
        return self.fit(self.scale(images))

    def scale(self, images: Tensor) -> Tensor:
        """The resize without the crop or padding: (B×C×h×w), one or both of h and w being ``size``."""
        if self.resize_mode == "shortest":
            images = _centre(images, LONGEST_ASPECT * min(images.shape[-2:]))
        target = self._resized(*images.shape[-2:])
        if target == tuple(images.shape[-2:]):
            return images
        if images.dtype == torch.uint8 and not images.is_cpu:  # only the CPU has a resize for uint8
            return _interpolate(images.float(), target, self.interpolation).round_().clamp_(0, 255).to(torch.uint8)
        images = _interpolate(images, target, self.interpolation)
        # bicubic overshoots; an 8-bit image cannot
        return images.clamp(-1, 1) if images.is_floating_point() else images

    def fit(self, images: Tensor) -> Tensor:
        """Centre crop or pad (B×C×h×w), as :meth:`scale` gives it, to the square; a crop is a view."""
        height, width = images.shape[-2:]
        if height > self.size or width > self.size:
            return _centre(images, self.size)
        if height < self.size or width < self.size:
            above, before = (self.size - height) // 2, (self.size - width) // 2
            edges = (before, self.size - width - before, above, self.size - height - above)
            fill = self.fill_color / 127.5 - 1 if images.is_floating_point() else self.fill_color
            images = F.pad(images, edges, value=fill)
        return images

    def normalise(self, images: Tensor) -> Tensor:
        """(x − mean) / std of (B×3×…), x being the images, floats in [-1, 1] or uint8, as floats in [0, 1]; float32
        of uint8, else of the images' type."""
        kind, low, span = (images.dtype, -1, 2) if images.is_floating_point() else (torch.float32, 0, 255)
        # new_full fills on the device: a tensor made from a list would be copied there, and wait for it
        mean, std = (
            torch.cat([images.new_full((1, 1, 1), value, dtype=kind) for value in values])
            for values in (self.mean, self.std)
        )
        return (images - (low + span * mean)).div_(span * std)

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


def _interpolate(images: Tensor, size: tuple[int, int], mode: Interpolation) -> Tensor:
    return F.interpolate(images, size, mode=mode, antialias=True, align_corners=False)


def _centre(images: Tensor, side: int) -> Tensor:
    """The middle ``side`` rows and columns, or all of them where there are fewer; rounded as torchvision does."""
    top, left = (max(round((length - side) / 2), 0) for length in images.shape[-2:])
    return images[..., top : top + side, left : left + side]
