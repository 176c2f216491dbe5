"""One resize serves files and generated batches, and is open_clip's own within the rounding of 8-bit pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from lanit.errors import LanitError
from lanit.preprocessing import ClipPreprocessing

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def photograph(height: int, width: int, low: int, high: int) -> np.ndarray:
    """Blocks of noise over a gradient, uint8 (height, width, 3) between ``low`` and ``high``: edges at every scale."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, height * width).reshape(height, width, 1)
    coarse = rng.integers(-150, 150, (height // 4 + 1, width // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)[:height, :width]
    return (low + np.clip(ramp + coarse, 0, 255) * (high - low) / 255).astype(np.uint8)


def as_batch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(100, 100), (301, 97), (64, 203), (17, 23), (48, 48), (32, 20), (149, 150)])
def test_equals_open_clips_transform(resize_mode: str, interpolation: str, shape: tuple[int, int]) -> None:
    config = PreprocessCfg(48, "RGB", MEAN, STD, interpolation, resize_mode, 0)
    theirs = image_transform_v2(config, is_train=False)
    ours = ClipPreprocessing(48, MEAN, STD, interpolation, resize_mode)  # type: ignore[arg-type]

    def difference(low: int, high: int) -> torch.Tensor:
        """In grey levels."""
        image = photograph(*shape, low, high)
        expected, result = theirs(Image.fromarray(image)), ours(as_batch(image))[0]
        assert result.shape == expected.shape == (3, 48, 48)
        return (result - expected).abs() * torch.tensor(STD).view(3, 1, 1) * 255

    # Pillow rounds to 8 bits after each of its two passes: up to 1.1 grey levels, 0.3 on average.
    assert difference(60, 195).max() < 1.2
    assert difference(60, 195).mean() < 0.35
    # It also cuts bicubic overshoot after each pass; we do so once. On black-and-white blocks that is visible.
    assert difference(0, 255).mean() < 0.7


def test_same_size_is_left_alone() -> None:
    image = as_batch(photograph(48, 48, 0, 255))
    assert torch.equal(ClipPreprocessing(48, MEAN, STD).resize(image), image)


def test_stays_in_range_where_bicubic_overshoots() -> None:
    board = torch.ones(1, 3, 20, 20)
    board[..., 10:] = -1
    resized = ClipPreprocessing(48, MEAN, STD).resize(board)
    assert resized.min() == -1
    assert resized.max() == 1


def test_gradient_reaches_the_images() -> None:
    images = (torch.rand(2, 3, 32, 32) * 1.8 - 0.9).requires_grad_()
    ClipPreprocessing(48, MEAN, STD)(images).sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).all()


def test_a_batch_equals_its_images() -> None:
    preprocessing = ClipPreprocessing(24, MEAN, STD)
    images = torch.rand(3, 3, 40, 50) * 2 - 1
    torch.testing.assert_close(preprocessing(images), torch.cat([preprocessing(image[None]) for image in images]))


@pytest.mark.parametrize("shape", [(1, 30000), (30000, 2)])
def test_a_strip_does_not_fill_the_memory(shape: tuple[int, int]) -> None:
    resized = ClipPreprocessing(48, MEAN, STD)(torch.zeros(1, 3, *shape))
    assert resized.shape == (1, 3, 48, 48)


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(LanitError, match="nearest"):
        ClipPreprocessing(48, MEAN, STD, "nearest")  # type: ignore[arg-type]
