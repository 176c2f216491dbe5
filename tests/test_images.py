"""Every odd image a folder may hold decodes to RGB or raises one typed error."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lanit.errors import LanitError
from pipeline.images import ImageError, decode_rgb, find_images, list_images

RED = (250, 10, 20)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def test_modes_become_8_bit_rgb() -> None:
    red = Image.new("RGB", (6, 4), RED)
    for image, kind, tolerance in [
        (red, "PNG", 0),
        (red, "BMP", 0),
        (red, "TIFF", 0),
        (red, "WEBP", 6),
        (red, "JPEG", 6),
        (red.convert("CMYK"), "TIFF", 1),
        (red.convert("CMYK"), "JPEG", 8),
        (red.quantize(4), "PNG", 0),
        (red.convert("YCbCr"), "TIFF", 4),
    ]:
        array = decode_rgb(encoded(image, kind))
        assert array.shape == (4, 6, 3), (image.mode, kind)
        assert array.dtype == np.uint8
        assert np.abs(array.astype(int) - RED).max() <= tolerance, (image.mode, kind)


def test_greys_of_every_depth() -> None:
    ramp = np.linspace(0, 65535, 12).reshape(3, 4)
    expected = np.rint(ramp / 257).astype(np.uint8)
    wide = decode_rgb(encoded(Image.fromarray(ramp.astype(np.uint16)), "PNG"))
    np.testing.assert_array_equal(wide[..., 0], expected)
    np.testing.assert_array_equal(wide[..., 0], wide[..., 2])
    for floats in (ramp / 65535, ramp / 257, ramp * 9 - 1e5):  # 0–1, 0–255, anything
        array = decode_rgb(encoded(Image.fromarray(floats.astype(np.float32)), "TIFF"))
        assert np.abs(array[..., 0].astype(int) - expected).max() <= 1
    assert set(np.unique(decode_rgb(encoded(Image.new("1", (5, 5), 1), "PNG")))) == {255}
    constant = np.full((3, 3), -7, np.float32)
    assert not decode_rgb(encoded(Image.fromarray(constant), "TIFF")).any()


def test_transparency_is_laid_on_white() -> None:
    half = Image.new("RGBA", (4, 4), (*RED, 128))
    assert tuple(decode_rgb(encoded(half, "PNG"))[0, 0]) == (252, 132, 137)
    assert (decode_rgb(encoded(Image.new("LA", (4, 4), (30, 0)), "PNG")) == 255).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([*RED, 0, 0, 0])
    assert (decode_rgb(encoded(palette, "PNG", transparency=0)) == 255).all()
    keyed = encoded(Image.new("RGB", (4, 4), RED), "PNG", transparency=RED)
    assert (decode_rgb(keyed) == 255).all()


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (8, 4), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 2, 4))  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    array = decode_rgb(encoded(image, "PNG", exif=exif))
    assert array.shape == (8, 4, 3)
    assert (array[:2] == 255).all()
    assert (array[2:] == 0).all()


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, (0, 0, 255))]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(decode_rgb(data)[0, 0].astype(int) - RED).max() <= 8, kind


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"this is text", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "not an image"),
        (encoded(Image.effect_noise((64, 64), 90), "JPEG")[:900], "truncated"),
        (encoded(Image.effect_noise((64, 64), 90), "PNG")[:900], "damaged"),
        (encoded(Image.effect_noise((64, 64), 90), "WEBP")[:400], ""),
        (b"P5 30000 30000 255 ", "exceeds limit"),
    ],
    ids=["empty", "text", "eps", "jpeg", "png", "webp", "bomb"],
)
def test_what_cannot_be_decoded_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_rgb(data)
    assert reason in caught.value.reason
    assert "\n" not in str(caught.value)


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png"):
        decode_rgb(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="regular file"):
        decode_rgb(tmp_path / "pipe.png")


def test_images_are_found_in_order_whatever_their_case(make_images: Callable[..., Path]) -> None:
    folder = make_images(3)
    shutil.copy(folder / "a" / "001.png", folder / "Été 1.JPEG")
    shutil.copy(folder / "a" / "001.png", folder / "._hidden.png")
    (folder / "a" / "notes.txt").write_text("notes")
    (folder / "a" / "loop").symlink_to(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "thumbnail.png").write_bytes(b"x")
    listing = list_images(folder)
    assert list(listing.paths) == find_images(folder) == ["a/001.png", "b/000.png", "b/002.png", "Été 1.JPEG"]
    assert listing.ignored == 2
    with pytest.raises(LanitError, match="there is no folder"):
        find_images(folder / "missing")
    with pytest.raises(LanitError, match="not a folder"):
        find_images(folder / "a" / "001.png")
