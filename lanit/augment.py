"""Augmentation of image batches on their device (METHOD §5)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def flip_and_crop(
    images: Tensor, generator: torch.Generator, crop_probability: float, mirror_probability: float = 0.5
) -> Tensor:
    """Mirror each image with ``mirror_probability``, and with ``crop_probability`` resize a random crop of it (scale
    0.8 to 1, ratio 0.9 to 1.1) to the full size.

    images: float (B×3×S×S) in [-1, 1], on the generator's device. Same shape and range returned.
    """
    batch, device = len(images), images.device
    draw = torch.rand(6, batch, generator=generator, device=device)
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
