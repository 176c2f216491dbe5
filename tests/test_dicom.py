"""DICOM files decode to what a viewer would show, or say what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.decoding.images import decode_rgb, is_image_name
from pipeline.decoding.limits import ImageError
from tests.image_builders import dicom

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
CENTRE, WIDTH, FUNCTION = "x00281050", "x00281051", "x00281056"
INTERCEPT, SLOPE, PADDING, KIND, STORED = "x00281052", "x00281053", "x00280120", "x00280004", "x00280101"


def test_without_pydicom_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r'pip install "pydicom>='):
        decode_rgb(dicom(RAMP))
    assert is_image_name("scan.DCM")


@pytest.fixture
def read() -> object:
    pytest.importorskip("pydicom")
    return lambda *arguments, **values: decode_rgb(dicom(*arguments, **values))


def test_greys_without_a_window_span_lowest_to_highest(read) -> None:  # type: ignore[no-untyped-def]
    array = read(RAMP[20:40] - 500)
    low, high = 20 * 64 - 500, 40 * 64 - 1 - 500
    expected = np.rint((RAMP[20:40] - 500.0 - low) * 255 / (high - low))
    assert array.dtype == np.uint8
    assert array.flags.writeable
    np.testing.assert_allclose(array[..., 0], expected, atol=1)
    np.testing.assert_array_equal(array[..., 0], array[..., 2])
    inverted = read(RAMP[20:40] - 500, **{KIND: "MONOCHROME1"})
    np.testing.assert_array_equal(inverted, 255 - array)
    assert not read(np.full((5, 7), 9, np.uint16)).any()


def test_padding_does_not_count(read) -> None:  # type: ignore[no-untyped-def]
    scan = RAMP[20:40].astype(np.int16)
    padded = np.concatenate([scan, np.full((4, 64), -2000, np.int16)])
    np.testing.assert_array_equal(read(padded, **{PADDING: 65536 - 2000})[:20], read(scan))
    assert not read(padded, **{PADDING: 65536 - 2000})[20:].any()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_follow_the_standard(read, function: str) -> None:  # type: ignore[no-untyped-def]
    """Part 3, C.11.2.1.2.1 and C.11.2.1.3, on Hounsfield units; of several windows the first."""
    units = RAMP - 1024.0
    array = read(RAMP, **{CENTRE: "40\\300", WIDTH: "400\\1500", INTERCEPT: "-1024", SLOPE: "1", FUNCTION: function})
    if function == "LINEAR":
        shown = ((units - (40 - 0.5)) / (400 - 1) + 0.5) * 255
        shown = np.where(units <= 40 - 0.5 - 399 / 2, 0, np.where(units > 40 - 0.5 + 399 / 2, 255, shown))
    elif function == "LINEAR_EXACT":
        shown = np.clip((units - 40) / 400 + 0.5, 0, 1) * 255
    else:
        shown = 255 / (1 + np.exp(-4 * (units - 40) / 400))
    np.testing.assert_allclose(array[..., 1], shown, atol=0.51)


def test_a_slope_scales_what_the_window_sees(read) -> None:  # type: ignore[no-untyped-def]
    window = {CENTRE: "1000", WIDTH: "500"}
    np.testing.assert_array_equal(
        read(RAMP // 2, **window, **{SLOPE: "2", INTERCEPT: "0"}), read(RAMP // 2 * 2, **window)
    )


def test_colours_of_8_and_more_bits(read) -> None:  # type: ignore[no-untyped-def]
    colours = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read(colours), colours)
    np.testing.assert_array_equal(read(colours.astype(np.uint16) * 257), colours)
    twelve = read(colours.astype(np.uint16) * 16, **{STORED: 12, "x00280102": 11})
    assert np.abs(twelve - colours.astype(float) * 16 * 255 / 4095).max() <= 0.5


def test_what_is_too_large_or_no_picture_is_refused() -> None:
    pytest.importorskip("pydicom")
    with pytest.raises(ImageError, match=r"4096 pixels.*limit of 4095"):
        decode_rgb(dicom(RAMP), 4095)
    with pytest.raises(ImageError, match="damaged"):  # it says deflated, and is not
        decode_rgb(dicom(RAMP, syntax="1.2.840.10008.1.2.1.99"))
    with pytest.raises(ImageError, match="without a picture"):
        decode_rgb(dicom(RAMP)[:240])


@pytest.mark.parametrize(
    ("name", "height", "width", "reason"),
    [
        ("MR_small.dcm", 64, 64, ""),
        ("MR_small_bigendian.dcm", 64, 64, ""),
        ("MR_small_RLE.dcm", 64, 64, ""),
        ("MR_small_jp2klossless.dcm", 64, 64, ""),
        ("examples_palette.dcm", 350, 800, ""),
        ("examples_ybr_color.dcm", 240, 320, ""),
        ("SC_rgb_jpeg_dcmtk.dcm", 100, 100, ""),
        ("SC_rgb_rle_2frame.dcm", 100, 100, ""),
        ("liver_1frame.dcm", 512, 512, ""),
        ("MR_truncated.dcm", 0, 0, "less than expected"),
        ("test-SR.dcm", 0, 0, "without a picture"),
    ],
)
def test_pydicoms_own_files(name: str, height: int, width: int, reason: str) -> None:
    """Compressed, big-endian, with several frames, palettes and YCbCr; some files are not part of every release."""
    pydicom = pytest.importorskip("pydicom")
    path = Path(pydicom.__file__).parent / "data" / "test_files" / name
    if not path.exists():
        pytest.skip(f"this pydicom comes without {name}")
    if reason:
        with pytest.raises(ImageError, match=reason):
            decode_rgb(path)
        return
    array = decode_rgb(path)
    assert array.shape == (height, width, 3)
    assert array.max() > 200
    if name.startswith("MR_small"):  # one slice, however it is stored
        np.testing.assert_array_equal(array, decode_rgb(path.with_name("MR_small.dcm")))


def test_an_exotic_compression_says_what_to_install() -> None:
    pydicom = pytest.importorskip("pydicom")
    path = Path(pydicom.__file__).parent / "data" / "test_files" / "JPEGLSNearLossless_08.dcm"
    if not path.exists() or any(name in sys.modules for name in ("pylibjpeg", "gdcm", "jpeg_ls")):
        pytest.skip("needs pydicom's test file, and no other decoder")
    with pytest.raises(ImageError, match=r"JPEG-LS.*pip install pylibjpeg"):
        decode_rgb(path)
