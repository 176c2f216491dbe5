"""Images as training sees them: squares of one size."""

from __future__ import annotations

import numpy as np
from PIL import Image


def fit_square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of an image, uint8 (H×W×3), resized to uint8 (size×size×3), antialiased."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    if (height, width) == (size, size):
        return image
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=box))
