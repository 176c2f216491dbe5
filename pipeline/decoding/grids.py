"""Images as uint8 arrays, and grids of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pipeline.files import atomic_path


def to_uint8(images: Tensor) -> np.ndarray:
    """Uint8 (n×S×S×3) of float images (n×3×S×S), clamped to [-1, 1]."""
    return to_bytes(images.float().clamp(-1, 1)).cpu().numpy()


def to_bytes(images: Tensor) -> Tensor:
    """Uint8 (…×S×S×3), on their device, of floats (…×3×S×S) in [-1, 1]."""
    return ((images + 1) * 127.5).round_().to(torch.uint8).movedim(-3, -1)


def to_float(images: np.ndarray) -> Tensor:
    """Float32 (n×3×S×S) in [-1, 1] of uint8 (n×S×S×3)."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def write_png(path: Path, image: np.ndarray) -> None:
    """Write uint8 (H×W×3) as PNG, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def labelled_grid(rows: Sequence[np.ndarray], header: Sequence[str], cell: int = 96) -> np.ndarray:
    """Rows of images, uint8 (columns×S×S×3) each, with a word over every column; uint8 (H×W×3)."""
    columns, top = len(header), 26
    canvas = Image.new("RGB", (columns * cell, top + len(rows) * cell), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for column, word in enumerate(header):
        lines = word.split(" ", 1)
        for line, text in enumerate(lines):
            draw.text(
                (column * cell + cell / 2, (13 if len(lines) == 1 else 7) + 11 * line), text, (30, 30, 30), anchor="mm"
            )
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            scaled = Image.fromarray(image).resize((cell, cell), Image.Resampling.LANCZOS)
            canvas.paste(scaled, (column * cell, top + row * cell))
    return np.asarray(canvas)
