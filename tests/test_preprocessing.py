"""One resize serves files and generated batches, and is open_clip's own within the rounding of 8-bit pixels."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from lanit.errors import LanitError
from lanit.preprocessing import ClipPreprocessing

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos.tar"


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
    # It also cuts bicubic overshoot after each pass; we do so once. On black-and-white blocks that is visible, and
    # before Pillow 13 a little more so.
    assert difference(0, 255).mean() < (0.7 if int(PIL.__version__.split(".")[0]) >= 13 else 0.75)


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


def as_bytes(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None]


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(100, 100), (301, 97), (64, 203), (17, 23), (48, 48), (32, 20), (3, 90), (149, 150)])
def test_uint8_and_float_are_one_resize(resize_mode: str, interpolation: str, shape: tuple[int, int]) -> None:
    """Away from black and white, where overshoot is cut, they differ by the rounding of two passes to 8 bits."""
    preprocessing = ClipPreprocessing(48, MEAN, STD, interpolation, resize_mode, 90)  # type: ignore[arg-type]
    image = photograph(*shape, 60, 195)
    files, generated = preprocessing.resize(as_bytes(image)), preprocessing.resize(as_batch(image))
    assert files.dtype == torch.uint8
    assert files.shape == generated.shape == (1, 3, 48, 48)
    assert (files - (generated + 1) * 127.5).abs().max() < 1.3


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("shape", [(100, 100), (301, 97), (64, 203), (17, 23), (32, 20), (149, 150)])
def test_the_uint8_resize_is_pillows_within_two_levels(resize_mode: str, shape: tuple[int, int]) -> None:
    """Edges of black and white included, since both cut overshoot after each of their two passes; but of an image three
    times as tall as wide Pillow takes the columns first, which shows at such edges."""
    theirs = image_transform_v2(PreprocessCfg(48, "RGB", (0, 0, 0), (1, 1, 1), "bicubic", resize_mode, 0), False)
    ours = ClipPreprocessing(48, MEAN, STD, "bicubic", resize_mode)  # type: ignore[arg-type]
    for low, high in [(60, 195)] if shape[0] > 3 * shape[1] else [(60, 195), (0, 255)]:
        image = photograph(*shape, low, high)
        levels = (theirs(Image.fromarray(image)) * 255).round()
        assert (ours.resize(as_bytes(image))[0] - levels).abs().max() <= 2


def test_uint8_images_normalise_to_what_floats_do() -> None:
    preprocessing = ClipPreprocessing(48, MEAN, STD)
    image = photograph(48, 48, 0, 255)
    assert torch.equal(preprocessing.resize(as_bytes(image)), as_bytes(image))
    expected = (image / 255 - MEAN) / STD
    for batch in (as_bytes(image), as_batch(image)):
        result = preprocessing(batch)
        assert result.dtype == torch.float32
        np.testing.assert_allclose(result[0].permute(1, 2, 0), expected, atol=2e-6)


def photos() -> list[np.ndarray]:
    with tarfile.open(PHOTOS) as tar:
        members = [member for member in tar.getmembers() if member.isfile()][::3]
        return [np.array(Image.open(io.BytesIO(tar.extractfile(m).read())).convert("RGB")) for m in members]  # type: ignore[union-attr]


def drawn_faces() -> list[np.ndarray]:
    from pipeline.sample_world.faces import draw_faces

    return [face for size in (96, 150) for face in draw_faces(7, range(12), size)[0]]


needs_photos = pytest.mark.skipif(not PHOTOS.exists(), reason="needs ../shared/data/photos.tar beside the repository")


@pytest.mark.parametrize("images", [pytest.param(photos, marks=needs_photos), drawn_faces])
@pytest.mark.parametrize("size", [64, 224])
def test_what_training_and_embedding_see_differs_by_little(images: Callable[[], list[np.ndarray]], size: int) -> None:
    """The bounds that the docstring of ``resize`` states: between the float path, the uint8 path and Pillow's, in
    levels of 255, and what a trained CLIP (64 px) and a random vision transformer (224 px) make of it."""
    mean, std, encode = encoder(size)
    preprocessing = ClipPreprocessing(size, mean, std)
    pillow = image_transform_v2(PreprocessCfg(size, "RGB", (0, 0, 0), (1, 1, 1), "bicubic", "shortest", 0), False)
    pictures = images()
    generated = torch.cat([preprocessing.resize(as_batch(picture)) for picture in pictures])
    files = torch.cat([preprocessing.resize(as_bytes(picture)) for picture in pictures])
    theirs = torch.stack([(pillow(Image.fromarray(picture)) * 255).round() for picture in pictures])
    difference = ((generated + 1) * 127.5 - files).abs()
    assert difference.mean() < 0.3
    assert difference.max() < 14
    assert (difference > 2).float().mean() < 0.002
    assert (files - theirs).abs().max() <= 2
    assert (files - theirs).abs().mean() < 0.005
    with torch.inference_mode():
        seen = encode(preprocessing.normalise(files))
        assert (seen * encode(preprocessing.normalise(generated))).sum(1).min() > 0.9997
        assert (seen * encode(preprocessing.normalise(theirs.to(torch.uint8)))).sum(1).min() > 0.99998


def encoder(size: int) -> tuple[tuple[float, ...], tuple[float, ...], Callable[[torch.Tensor], torch.Tensor]]:
    """Mean, standard deviation and unit-norm embeddings of a model of that input size."""
    import open_clip

    from pipeline.clip.models import load_clip

    if size == 64:
        clip = load_clip("sample")
        return clip.preprocessing.mean, clip.preprocessing.std, clip.encode_preprocessed
    torch.manual_seed(0)
    vision = {"image_size": size, "layers": 3, "width": 192, "patch_size": 32, "head_width": 64}
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(64, vision, text).eval()
    return MEAN, STD, lambda pixels: model.encode_image(pixels, normalize=True)
