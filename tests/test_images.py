"""Every odd image a folder may hold decodes to RGB or raises one typed error."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from pipeline.decoding import images
from pipeline.decoding.images import decode_rgb, is_image_name
from pipeline.decoding.limits import ImageError
from tests.image_builders import encoded, jpeg_segment, picture, png, tiff

RED = (250, 10, 20)


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


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_integer_greys_span_the_bits_that_they_take(bits: int) -> None:
    """A 12-bit scan in a 16-bit file is not black."""
    ramp = np.linspace(0, 2**bits - 1, 35).reshape(5, 7).round()
    expected = np.rint(ramp * 255 / (2**bits - 1))
    for array in (ramp.astype(np.uint16), ramp.astype(np.uint32), ramp.astype(np.int32)):
        np.testing.assert_array_equal(decode_rgb(tiff(array))[..., 1], expected)
    np.testing.assert_array_equal(decode_rgb(tiff(ramp.astype(np.uint16), t262=0))[..., 1], 255 - expected)
    signed = (ramp - 2 ** (bits - 1)).astype(np.int16)  # negative values: from lowest to highest
    assert np.abs(decode_rgb(tiff(signed))[..., 2] - expected).max() <= 1


def test_values_that_are_no_numbers_do_not_spoil_the_others() -> None:
    ramp = np.linspace(-3, 9, 20).reshape(4, 5).astype(np.float32)
    odd = ramp.copy()
    odd[1, 1], odd[1, 2], odd[1, 3] = np.nan, np.inf, -np.inf
    expected = np.rint((ramp + 3) * 255 / 12)
    expected[1, 1:4] = 0, 255, 0
    np.testing.assert_allclose(decode_rgb(tiff(odd))[..., 0], expected, atol=1)
    assert not decode_rgb(tiff(np.full((2, 3), np.nan, np.float32))).any()


def test_16_bit_colours_keep_their_upper_bits() -> None:
    colours = np.random.default_rng(0).integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    for data in (png(5, 6, 16, 2, lines), tiff(colours)):
        assert np.abs(decode_rgb(data).astype(int) - colours / 257).max() <= 1


def test_adobes_inverted_cmyk_is_turned_back() -> None:
    """Without Adobe's marker the same numbers mean the opposite."""
    inks = Image.fromarray(np.full((16, 16, 4), (200, 40, 10, 30), np.uint8), "CMYK")
    expected = np.array([255 - min(255, ink + 30) for ink in (200, 40, 10)])
    assert np.abs(decode_rgb(encoded(inks, "JPEG", quality=100))[8, 8].astype(int) - expected).max() <= 25
    assert np.abs(decode_rgb(encoded(inks, "TIFF"))[8, 8].astype(int) - expected).max() <= 25


@pytest.mark.parametrize(
    "data",
    [
        encoded(picture(), "PNG"),
        encoded(picture("RGBA"), "PNG"),
        encoded(picture("P"), "PNG", transparency=bytes(range(256))),
        encoded(picture("CMYK"), "TIFF"),
        tiff(np.random.default_rng(0).integers(-900, 3000, (44, 60), dtype=np.int16)),
    ],
    ids=["RGB", "RGBA", "P", "CMYK", "16-bit"],
)
def test_strips_make_the_same_picture(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = decode_rgb(data)
    assert whole.shape == (44, 60, 3)
    assert whole.flags.writeable
    for pixels in (1, 60 * 7):
        monkeypatch.setattr(images, "_STRIP_PIXELS", pixels)
        np.testing.assert_array_equal(decode_rgb(data), whole)


def test_transparency_is_laid_on_white() -> None:
    half = Image.new("RGBA", (4, 4), (*RED, 128))
    assert tuple(decode_rgb(encoded(half, "PNG"))[0, 0]) == (252, 132, 137)
    for image, options in transparent(corner=True):
        array = decode_rgb(encoded(image, "PNG", **options))
        assert (array[1:] == 255).all()
        assert (array[0, 0] < 255).any()


def transparent(*, corner: bool) -> list[tuple[Image.Image, dict[str, object]]]:
    """Pictures of which nothing is to be seen, or their first pixel alone, with what to save them with."""
    images = [Image.new("LA", (4, 4), (30, 0)), Image.new("RGBA", (4, 4), (*RED, 0)), Image.new("P", (4, 4), 0)]
    images += [Image.new("RGB", (4, 4), RED)]
    images[2].putpalette([*RED, 0, 0, 0])
    if corner:
        for image, value in zip(images, [(30, 255), (*RED, 1), 1, (1, 2, 3)], strict=True):
            image.putpixel((0, 0), value)
    return list(zip(images, [{}, {}, {"transparency": 0}, {"transparency": RED}], strict=True))


@pytest.mark.parametrize("strip", [1 << 22, 4])
def test_a_picture_of_which_nothing_is_to_be_seen_is_refused(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_STRIP_PIXELS", strip)
    for image, options in transparent(corner=False):
        with pytest.raises(ImageError, match="wholly transparent"):
            decode_rgb(encoded(image, "PNG", **options))
    for kind in ("TGA", "WEBP", "TIFF"):
        with pytest.raises(ImageError, match="wholly transparent"):
            decode_rgb(encoded(Image.new("RGBA", (4, 4), (*RED, 0)), kind))
    assert decode_rgb(encoded(Image.fromarray(np.full((4, 4), 9, np.uint16)), "PNG", transparency=9)).max() == 9


@pytest.mark.parametrize("rle", [False, True])
def test_a_targa_of_32_bits_is_opaque_where_its_header_has_no_bits_for_alpha(rle: bool) -> None:
    colours = picture("RGBA")
    colours.putalpha(0)
    data = bytearray(encoded(colours, "TGA", compression="tga_rle" if rle else None))
    assert (data[16], data[17] & 15) == (32, 8)
    data[17] &= 0xF0
    np.testing.assert_array_equal(decode_rgb(bytes(data)), np.asarray(picture()))


def test_a_bitmap_is_as_transparent_as_its_header_says() -> None:
    """Of version 5, with masks for red, green, blue and alpha; all of them 0 means no alpha either."""

    def bitmap(alpha: int, *masks: int) -> bytes:
        colours = picture("RGBA")
        colours.putalpha(alpha)
        rows = np.asarray(colours)[::-1, :, [2, 1, 0, 3]].tobytes()
        header = struct.pack("<IiiHHIIiiII4I", 124, 60, 44, 1, 32, 3, len(rows), 0, 0, 0, 0, *masks).ljust(124, b"\0")
        return struct.pack("<2sIHHI", b"BM", 138 + len(rows), 0, 0, 138) + header + rows

    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    opaque = np.asarray(picture())
    np.testing.assert_array_equal(decode_rgb(bitmap(255, *masks)), opaque)
    np.testing.assert_array_equal(decode_rgb(bitmap(0, 0, 0, 0, 0)), opaque)
    np.testing.assert_array_equal(decode_rgb(bitmap(0, *masks[:3], 0)), opaque)
    assert decode_rgb(bitmap(51, *masks)).min() >= 204
    with pytest.raises(ImageError, match="wholly transparent"):
        decode_rgb(bitmap(0, *masks))


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (8, 4), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 2, 4))  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    array = decode_rgb(encoded(image, "PNG", exif=exif))
    assert array.shape == (8, 4, 3)
    assert (array[:2] == 255).all()
    assert (array[2:] == 0).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_turns_the_top_left_corner(kind: str, orientation: int) -> None:
    """Where the first row and column of the file belong: table of tag 0x0112 in the EXIF standard."""
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = decode_rgb(encoded(Image.fromarray(stored), kind, exif=exif))
    corner = {2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left")}
    corner |= {6: ("top", "right"), 7: ("bottom", "right"), 8: ("bottom", "left")}
    vertical, horizontal = corner.get(orientation, ("top", "left"))
    rows = slice(0, 8) if vertical == "top" else slice(-8, None)
    columns = slice(0, 8) if horizontal == "left" else slice(-8, None)
    assert array.shape == ((32, 16, 3) if 5 <= orientation <= 8 else (16, 32, 3))
    assert array[rows, columns].mean() > 240
    assert array.astype(int).sum() < 3 * 64 * 255 * 1.3


def test_damaged_exif_costs_at_most_the_rotation() -> None:
    jpeg = encoded(picture(), "JPEG")
    for block in (b"", b"MM\0*", b"II*\0\x08\0\0\0\xff\xff" + bytes(40), bytes(range(200))):
        array = decode_rgb(jpeg[:2] + jpeg_segment(0xE1, b"Exif\0\0" + block) + jpeg[2:])
        np.testing.assert_array_equal(array, decode_rgb(jpeg))
    # a rotation that can be read counts, though the rest could not be written again
    unwritable = b"MM\0*\0\0\0\x08\0\x02\x01\x12\0\3\0\0\0\1\0\6\0\0\x87\x69\0\2\0\0\0\4abcd\0\0\0\0"
    array = decode_rgb(jpeg[:2] + jpeg_segment(0xE1, b"Exif\0\0" + unwritable) + jpeg[2:])
    assert array.shape == (60, 44, 3)


def test_heic_is_read_or_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from base64 import b85decode

    from tests.hostile_contents import HEIC

    assert is_image_name("IMG_0001.HEIC")
    monkeypatch.setattr(images, "_formats", lambda: ("JPEG", "AVIF"))
    with pytest.raises(ImageError, match=r'pip install "pillow-heif>='):
        decode_rgb(b85decode(HEIC))
    monkeypatch.undo()
    pytest.importorskip("pillow_heif")
    array = decode_rgb(b85decode(HEIC))
    assert array.shape == (16, 16, 3)
    assert np.abs(array[3, 3].astype(int) - (200, 30, 40)).max() < 30
    assert array[12:].max() < 30


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


@pytest.mark.parametrize(("orientation", "near", "size"), [(1, 100, (188, 250)), (6, 100, (250, 188)),
                                                           (1, 400, (750, 1000)), (1, 1400, (1500, 2000))])  # fmt: skip
def test_a_jpeg_that_is_wanted_small_is_decoded_no_larger_than_it_takes(
    orientation: int, near: int, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    photo = coarse.resize((2000, 1500), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo, "JPEG", quality=95, exif=exif)
    whole, small = decode_rgb(data), decode_rgb(data, near=near)
    assert small.shape == (*size, 3)
    expected = Image.fromarray(whole).resize((size[1], size[0]), Image.Resampling.BOX)
    assert np.abs(small.astype(int) - np.asarray(expected)).mean() < 1
    assert decode_rgb(encoded(photo, "PNG"), near=near).shape == (1500, 2000, 3), "other formats are decoded whole"
