"""Augmentation of image batches on their device: of what is trained on (METHOD §5), and of what D judges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lanit.ranks import Draws


def flip_and_crop(images: Tensor, draws: Draws, crop_probability: float, mirror_probability: float = 0.5) -> Tensor:
    """Mirror each image with ``mirror_probability``, and with ``crop_probability`` resize a random crop of it (scale
    0.8 to 1, ratio 0.9 to 1.1) to the full size.

    images: float (B×3×S×S) in [-1, 1], on the device of ``draws``. Same shape and range returned.
    """
    batch, device = len(images), images.device
    draw = draws.uniform(batch, 6).T
    mirror = draw[0] < mirror_probability
    if not crop_probability:
        return torch.where(mirror[:, None, None, None], images.flip(3), images)
    cropped = draw[1] < crop_probability
    area = 0.8 + 0.2 * draw[2]
    ratio = torch.exp((2 * draw[3] - 1) * 0.09531)  # log 1.1
    width = torch.where(cropped, (area * ratio).sqrt().clamp(max=1), 1.0)
    height = torch.where(cropped, (area / ratio).sqrt().clamp(max=1), 1.0)
    theta = images.new_zeros(batch, 2, 3)
    theta[:, 0, 0] = torch.where(mirror, -width, width)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (2 * draw[4] - 1) * (1 - width)
    theta[:, 1, 2] = (2 * draw[5] - 1) * (1 - height)
    with torch.autocast(device.type, enabled=False):  # bfloat16 places pixels too coarsely
        grid = F.affine_grid(theta.float(), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@dataclass(frozen=True)
class ViewRanges:
    """From what a view is drawn, evenly. degrees: turned by up to as many either way; shift: by up to this share of the
    side; shear: degrees. zoom: of the part that is seen, least and most, 1 being all. colour: brightness, contrast and
    saturation × 1 ± this; hue: turned by up to this share of the circle. erased: probability that a rectangle of 0.1 to
    0.33 of each side is grey."""

    degrees: float
    shift: float
    shear: float
    zoom: tuple[float, float]
    colour: float
    hue: float
    erased: float = 0.0


def view_of(images: Tensor, draws: Draws, ranges: ViewRanges) -> Tensor:
    """Another view of each image, what is learned without labels being what the two have in common; mirrored half the
    time. Edges are reflected.

    images: float (B×3×S×S) in [-1, 1], on the device of ``draws``. Same shape and range returned.
    """
    batch = len(images)
    draw = draws.uniform(batch, 15).T
    even = 2 * draw - 1
    turn, shear = (math.radians(limit) * even[at] for at, limit in ((0, ranges.degrees), (1, ranges.shear)))
    zoom = ranges.zoom[0] + (ranges.zoom[1] - ranges.zoom[0]) * draw[2]
    side = torch.where(draw[3] < 0.5, -zoom, zoom)
    theta = images.new_zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = side * turn.cos(), zoom * (shear.tan() * turn.cos() - turn.sin())
    theta[:, 1, 0], theta[:, 1, 1] = side * turn.sin(), zoom * (shear.tan() * turn.sin() + turn.cos())
    room = (1 - zoom).clamp(min=0) + 2 * ranges.shift
    theta[:, 0, 2], theta[:, 1, 2] = room * even[4], room * even[5]
    with torch.autocast(images.device.type, enabled=False):
        grid = F.affine_grid(theta.float(), list(images.shape), align_corners=False)
    seen = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    seen = _recoloured(seen, even[6:10, :, None, None, None], ranges)
    if not ranges.erased:
        return seen
    return torch.where(_rectangles(draw[10:14], images.shape[-1]) & (draw[14] < ranges.erased)[:, None, None, None],
                       0.0, seen)  # fmt: skip


def _recoloured(images: Tensor, even: Tensor, ranges: ViewRanges) -> Tensor:
    """Brightness, contrast, saturation, then hue. even: (4×B×1×1×1) in [-1, 1)."""
    bright, contrast, saturation = 1 + ranges.colour * even[:3]
    images = (images + 1) * bright - 1
    middle = _grey(images).mean(dim=(2, 3), keepdim=True)
    images = middle + (images - middle) * contrast
    grey = _grey(images)
    images = grey + (images - grey) * saturation
    if ranges.hue:
        turn = (2 * math.pi * ranges.hue * even[3]).flatten()
        there = images.new_tensor(_YIQ)
        spun = torch.zeros(len(images), 3, 3, device=images.device, dtype=images.dtype)
        spun[:, 0, 0] = 1
        spun[:, 1, 1] = spun[:, 2, 2] = turn.cos()
        spun[:, 2, 1], spun[:, 1, 2] = turn.sin(), -turn.sin()
        mix = torch.linalg.inv(there) @ spun @ there
        images = torch.einsum("bij,bjhw->bihw", mix, images)
    return images.clamp(-1, 1)


_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
"""Rows: brightness, and the two colours of a circle of hues, of RGB; grey has none of the latter."""


def _grey(images: Tensor) -> Tensor:
    """(B×1×S×S)."""
    weights = images.new_tensor(_YIQ[0])
    return (images * weights[:, None, None]).sum(dim=1, keepdim=True)


def _rectangles(draw: Tensor, side: int) -> Tensor:
    """Rectangles anywhere, of 0.1 to 0.33 of each side: bool (B×1×S×S). draw: (4×B) in [0, 1)."""
    place = (torch.arange(side, device=draw.device) + 0.5) / side
    width, height = 0.1 + 0.23 * draw[0], 0.1 + 0.23 * draw[1]
    left, top = draw[2] * (1 - width), draw[3] * (1 - height)
    across = (place >= left[:, None]) & (place < (left + width)[:, None])
    down = (place >= top[:, None]) & (place < (top + height)[:, None])
    return down[:, None, :, None] & across[:, None, None, :]


def differentiable_augment(images: Tensor, draws: Draws) -> Tensor:
    """Colour, shift and cutout of whatever the discriminator sees, real or made (Zhao et al., NeurIPS 2020).

    Brightness ±0.5 of the range [0, 1], saturation × 0 to 2, contrast × 0.5 to 1.5; a shift of up to an eighth of the
    side, grey where the image ends; a square of half the side cut out. Gradients reach the images.
    images: float (B×3×S×S) in [-1, 1]; the result may leave that range.
    """
    batch, side = len(images), images.shape[-1]
    draw = draws.uniform(batch, 7).T[:, :, None, None, None].to(images.dtype)
    images = images + (2 * draw[0] - 1)  # half of [0, 1] is 1 of [-1, 1]
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (2 * draw[1])
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    images = middle + (images - middle) * (0.5 + draw[2])
    return _cut(_shift(images, draw[3:5], side), draw[5:7], side)


def _shift(images: Tensor, draw: Tensor, side: int) -> Tensor:
    """Whole pixels, zeros where the image ends. draw: float (2×B×1×1×1) in [0, 1)."""
    reach = side // 8
    down, right = ((draw * (2 * reach + 1)).long() - reach).flatten(1)
    place = torch.arange(side, device=images.device)
    rows, columns = (place[None] + down[:, None] + reach, place[None] + right[:, None] + reach)
    padded = F.pad(images, (reach, reach, reach, reach))
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cut(images: Tensor, draw: Tensor, side: int) -> Tensor:
    """Zero a square of half the side whose middle lies anywhere. draw: float (2×B×1×1×1) in [0, 1)."""
    middle = (draw * side).long().flatten(1)
    near = (torch.arange(side, device=images.device) - middle[:, :, None]).add(side // 4)
    inside = (near >= 0) & (near < side // 2)
    return images * ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])
