"""Augmentation mirrors and crops as METHOD §5 says: measured on images whose values are their own coordinates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lanit.augment import differentiable_augment, flip_and_crop
from lanit.ranks import Draws


def seeded(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def coordinates(batch: int, size: int) -> Tensor:
    """Channel 0 is x, channel 1 is y, in [-1, 1] as the pixels' centres lie; channel 2 is constant."""
    centre = (2 * torch.arange(size) + 1) / size - 1
    image = torch.stack([centre.expand(size, size), centre[:, None].expand(size, size), torch.full((size, size), 0.25)])
    return image.expand(batch, -1, -1, -1).clone()


def frames(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scale (signed) and centre, in x and in y, of the crop of every coordinate image; from its inner half, which no
    border touches."""
    size = images.shape[-1]
    inner = slice(size // 4, 3 * size // 4)
    rows, columns = images[:, 0, inner, inner], images[:, 1, inner, inner]
    step = 2 / size
    width = (rows[:, :, -1] - rows[:, :, 0]).mean(dim=1) / ((rows.shape[2] - 1) * step)
    height = (columns[:, -1] - columns[:, 0]).mean(dim=1) / ((columns.shape[1] - 1) * step)
    return width, rows.mean(dim=(1, 2)), height, columns.mean(dim=(1, 2))


@pytest.mark.parametrize("size", [32, 48])
def test_without_crops_every_image_is_itself_or_its_mirror(size: int) -> None:
    images = torch.rand(300, 3, size, size, generator=seeded().generator) * 2 - 1
    result = flip_and_crop(images, seeded(1), 0.0)
    same = (result == images).flatten(1).all(dim=1)
    mirrored = (result == images.flip(3)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 110 < int(mirrored.sum()) < 190  # more than four standard deviations


def test_crops_have_the_scale_and_ratio_of_the_method_and_stay_inside() -> None:
    images = coordinates(2000, 32)
    width, x, height, y = frames(flip_and_crop(images, seeded(2), 1.0))
    mirrored = width < 0
    assert 0.45 < mirrored.float().mean() < 0.55
    width = width.abs()
    tolerance = 1e-4
    assert (width * height >= 0.8 - tolerance).all()
    assert (width * height <= 1 + tolerance).all()
    assert (width / height >= 1 / 1.1 - tolerance).all()
    assert (width / height <= 1.1 + tolerance).all()
    assert (x.abs() + width <= 1 + tolerance).all()
    assert (y.abs() + height <= 1 + tolerance).all()
    # the whole range is used
    assert (width * height).min() < 0.82
    assert (width * height).max() > 0.97
    assert (width / height).min() < 0.93
    assert (width / height).max() > 1.07
    for centre, side in ((x, width), (y, height)):
        room = side < 0.95
        place = centre[room] / (1 - side[room])
        assert place.min() < -0.9
        assert place.max() > 0.9
        assert place.mean().abs() < 0.06


def test_crop_probability_is_the_share_of_cropped_images() -> None:
    width, _, height, _ = frames(flip_and_crop(coordinates(1000, 32), seeded(3), 0.5))
    whole = ((width.abs() - 1).abs() < 1e-4) & ((height - 1).abs() < 1e-4)
    assert 0.43 < whole.float().mean() < 0.57


def test_an_image_left_whole_is_left_as_it_was() -> None:
    images = torch.rand(64, 3, 32, 32, generator=seeded(4).generator) * 2 - 1
    result = flip_and_crop(images, seeded(5), 1e-9)
    distance = torch.minimum(
        (result - images).abs().flatten(1).amax(1), (result - images.flip(3)).abs().flatten(1).amax(1)
    )
    assert distance.max() < 1e-4


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_range_shape_and_determinism(probability: float) -> None:
    images = (torch.rand(7, 3, 32, 32, generator=seeded(6).generator) > 0.5).float() * 2 - 1
    before = images.clone()
    result = flip_and_crop(images, seeded(7), probability)
    assert result.shape == images.shape
    assert result.dtype == images.dtype
    assert result.abs().max() <= 1 + 1e-6
    assert torch.equal(images, before)
    assert torch.equal(result, flip_and_crop(images, seeded(7), probability))
    assert not torch.equal(result, flip_and_crop(images, seeded(8), probability))
    flat = flip_and_crop(coordinates(5, 32), seeded(9), probability)[:, 2]
    torch.testing.assert_close(flat, torch.full_like(flat, 0.25))


# --- differentiable augmentation ---


def test_colour_changes_each_image_by_one_map_of_its_pixels_alone() -> None:
    """Where nothing is shifted out or cut, a pixel's result is affine in it: brightness, saturation, contrast."""
    pixel = torch.tensor([0.3, -0.2, 0.6])
    images = pixel[None, :, None, None].expand(40, 3, 16, 16).contiguous()
    result = differentiable_augment(images, seeded(1))
    for image in result:
        colours = image.flatten(1).T.unique(dim=0)
        seen = [colour for colour in colours if colour.abs().sum() > 0]
        assert len(seen) == 1, "one colour, and the zeros outside it"
    kept = torch.stack([image.flatten(1).T[image.flatten(1).abs().sum(0) > 0][0] for image in result])
    grey = kept.mean(dim=1)
    brightness = grey - pixel.mean()  # contrast about its own mean leaves one colour's grey alone
    assert brightness.min() < -0.8
    assert brightness.max() > 0.8
    assert brightness.abs().max() <= 1
    spread = (kept - grey[:, None]) / (pixel - pixel.mean())
    torch.testing.assert_close(spread, spread[:, :1].expand(-1, 3))
    assert spread.min() >= 0
    assert spread.max() <= 3, "saturation up to 2 times contrast up to 1.5"
    assert spread.max() > 1.5


def test_a_shift_is_of_whole_pixels_up_to_an_eighth_and_a_square_of_half_the_side_is_cut() -> None:
    size = 32
    images = coordinates(200, size)[:, :1].expand(-1, 3, -1, -1).contiguous() + 5  # no saturation; far from zero
    result = differentiable_augment(images, seeded(2))
    gone = (result == 0).all(dim=1)
    widest = gone.flatten(1).sum(dim=1)
    assert widest.max() <= (size // 2) ** 2 + size * size - (size - size // 8) ** 2
    steps = set()
    for image, hidden in zip(result[:, 0], gone, strict=True):
        row = (~hidden).sum(dim=1).argmax()
        line = image[row][~hidden[row]]
        slopes = line.diff()
        torch.testing.assert_close(slopes, slopes[:1].expand_as(slopes), rtol=1e-3, atol=1e-4)
        steps.add(int(hidden[row].sum()))
    assert max(steps) >= 3
    assert max(steps) <= size // 8 + size // 2


def test_gradients_reach_the_images_and_the_seed_decides() -> None:
    images = torch.rand(5, 3, 16, 16, generator=seeded(3).generator) * 2 - 1
    leaf = images.clone().requires_grad_()
    differentiable_augment(leaf, seeded(4)).square().sum().backward()
    assert leaf.grad is not None
    assert (leaf.grad.flatten(1).abs().sum(dim=1) > 0).all()
    assert torch.equal(differentiable_augment(images, seeded(4)), differentiable_augment(images, seeded(4)))
    assert not torch.equal(differentiable_augment(images, seeded(4)), differentiable_augment(images, seeded(5)))
