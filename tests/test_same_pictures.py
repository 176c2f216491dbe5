"""Pixels tell copies of a picture from other pictures, and groups hold nothing but copies."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from pipeline.decoding.images import decode_rgb
from pipeline.searching.linkage import complete_groups
from pipeline.searching.pixels import ROUGHLY_SAME, SAME_PICTURE, Miniatures, miniature_of


def drawn(seed: int, width: int = 150, height: int = 100) -> Image.Image:
    """Smooth colours with some noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((smooth + rng.integers(-9, 10, smooth.shape)).clip(0, 255).astype(np.uint8))


def copies(image: Image.Image, seed: int) -> list[Image.Image]:
    """Itself, mirrored, of half the size, of quality 50, and cropped by a twentieth, wherever."""
    left, top = np.random.default_rng(seed).integers(0, [8, 6])
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=50)
    return [
        image,
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        image.resize((75, 50), Image.Resampling.LANCZOS),
        Image.fromarray(decode_rgb(jpeg.getvalue())),
        image.crop((left, top, left + 142, top + 95)),
        image.crop((7, 5, 143, 95)),
    ]


def miniatures(images: list[Image.Image]) -> Miniatures:
    return Miniatures(np.stack([miniature_of(np.asarray(image)) for image in images]), np.arange(len(images)))


def test_copies_are_the_same_and_other_pictures_are_not() -> None:
    images = [copy for seed in range(12) for copy in copies(drawn(seed), seed)]
    seen = miniatures(images)
    left, right = (np.array(side) for side in zip(*itertools.combinations(range(len(images)), 2), strict=True))
    same = seen.same(left, right)
    np.testing.assert_array_equal(same, left // 6 == right // 6)
    np.testing.assert_array_equal(seen.correlations(left, right), seen.correlations(left, right))
    assert seen.roughly_same(left[same], right[same]).all()


def test_the_rough_correlation_is_that_of_pixels() -> None:
    images = [drawn(0), drawn(1), drawn(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    plain, mirrored = miniatures(images).rough(np.arange(3))
    small = [np.asarray(image.resize((12, 12), Image.Resampling.BOX)).ravel() for image in images]
    found = plain @ plain.T
    assert found[0, 1].item() == pytest.approx(np.corrcoef(small[0], small[1])[0, 1], abs=0.05)
    assert (plain @ mirrored.T)[0, 2].item() == pytest.approx(1, abs=1e-3)
    assert 0 < ROUGHLY_SAME < SAME_PICTURE < 1


def test_brighter_copies_are_the_same_and_recoloured_ones_are_not() -> None:
    image = drawn(3)
    darker = Image.fromarray((np.asarray(image) * 0.7).astype(np.uint8))
    recoloured = Image.fromarray(np.asarray(image)[..., [1, 2, 0]])
    assert miniatures([image, darker, recoloured]).same(np.array([0, 0]), np.array([1, 2])).tolist() == [True, False]


def test_the_strongest_pair_is_joined_first_and_groups_are_complete() -> None:
    """0–1–2–3 in a chain, 1 and 2 being the most alike; 4, 5 and 6 all the same."""
    alike = {(0, 1): 0.5, (1, 2): 0.9, (2, 3): 0.6, (4, 5): 0.7, (5, 6): 0.7, (4, 6): 0.7}
    left, right = (np.array(side) for side in zip(*alike, strict=True))

    def same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.array([(min(pair), max(pair)) in alike for pair in zip(one.tolist(), other.tolist(), strict=True)])

    strength = np.array(list(alike.values()), np.float32)
    assert sorted(complete_groups(left, right, strength, same)) == [[1, 2], [4, 5, 6]]
    assert complete_groups(left[:0], right[:0], strength[:0], same) == []
