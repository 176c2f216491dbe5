"""Augmentation of image batches on their device: of what is trained on (METHOD §5), and of what D judges."""

from __future__ import annotations

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
