"""One slice, written in all the ways that files have for it, is one picture."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.decoding.dicom import is_dicom, may_be_dicom
from pipeline.decoding.dicom_tables import read_table
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.limits import ImageError
from pipeline.inputs.folders import Folder

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.filewriter import write_dataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGExtended12Bit,
)

RAMP = np.tile(np.arange(64) * 60, (48, 1))
RESCALE = {"RescaleSlope": "2", "RescaleIntercept": "-1024"}
WINDOW = {"WindowCenter": "40", "WindowWidth": "400"}


def made(pixels: np.ndarray = RAMP, bits: int = 12, *, signed: bool = False, **values: Any) -> Dataset:
    """A slice of 16 allocated bits."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, bits, bits - 1, int(signed)
    if pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.PixelData = pixels.astype("<i2" if signed else "<u2").tobytes()
    data["PixelData"].VR = "OW"
    for name, value in values.items():
        setattr(data, name, value)
    return data


def item(values: dict[str, Any]) -> Sequence:
    inner = Dataset()
    for name, value in values.items():
        setattr(inner, name, value)
    return Sequence([inner])


def group(rescale: dict[str, str] | None, window: dict[str, str] | None) -> Dataset:
    macros = {}
    if rescale:
        macros["PixelValueTransformationSequence"] = item(rescale)
    if window:
        macros["FrameVOILUTSequence"] = item(window)
    return item(macros)[0]


def table(entries: np.ndarray, first: int, bits: int) -> Sequence:
    inner = Dataset()
    inner.LUTDescriptor = [len(entries) % 65536, first, bits]
    inner["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    inner.add_new(0x00283006, "OW", entries.tobytes() + bytes(entries.nbytes % 2))
    return Sequence([inner])


def written(data: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def bare(data: Dataset, *, implicit: bool, little: bool) -> bytes:
    """The data elements alone: no preamble, no "DICM", no word on how it is encoded."""
    file = pydicom.filebase.DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = implicit, little
    write_dataset(file, data)
    return bytes(file.getvalue())


def shown(data: Dataset, **options: Any) -> np.ndarray:
    return decode_rgb(written(data, **options))[..., 0]


@pytest.fixture(scope="module")
def classic() -> np.ndarray:
    """Hounsfield units 2·x − 1024 through the window −160 to 240: C.11.2.1.2.1."""
    expected = np.rint(np.clip((2.0 * RAMP - 1024 - 39.5) / 399 + 0.5, 0, 1) * 255)
    picture = shown(made(**RESCALE, **WINDOW))
    np.testing.assert_allclose(picture, expected, atol=1)
    assert len(np.unique(picture)) > 4
    return picture


WRITINGS: dict[str, Callable[[], Dataset]] = {
    "shared groups": lambda: made(SharedFunctionalGroupsSequence=Sequence([group(RESCALE, WINDOW)])),
    "groups of the frame": lambda: made(
        np.stack([RAMP, RAMP]), PerFrameFunctionalGroupsSequence=Sequence([group(RESCALE, WINDOW), group(None, None)])
    ),
    "both": lambda: made(
        np.stack([RAMP[::-1] * 0, RAMP]),
        RepresentativeFrameNumber=2,
        SharedFunctionalGroupsSequence=Sequence([group(RESCALE, {"WindowCenter": "9", "WindowWidth": "9"})]),
        PerFrameFunctionalGroupsSequence=Sequence([group(None, None), group(None, WINDOW)]),
    ),
    "an empty table beside": lambda: made(**RESCALE, **WINDOW, VOILUTSequence=Sequence([]), ModalityLUTSequence=None),
    "modality table": lambda: made(
        **WINDOW | {"WindowCenter": "1064"}, ModalityLUTSequence=table(np.arange(0, 8192, 2, dtype="<u2"), 0, 14)
    ),
    "an overlay in the unused bits": lambda: made(RAMP + (RAMP % 7 == 0) * 0x8000, **RESCALE, **WINDOW),
    "in the upper bits": lambda: made(RAMP * 16 + 5, **RESCALE, **WINDOW, HighBit=15),
    "several windows": lambda: made(**RESCALE, WindowCenter=["40", "900"], WindowWidth=["400", "50"]),
    "white is low": lambda: made(
        4095 - RAMP,
        PhotometricInterpretation="MONOCHROME1",
        RescaleSlope="-2",
        RescaleIntercept=str(2 * 4095 - 1024),
        **WINDOW | {"WindowCenter": "41"},  # LINEAR is half a level to the left
    ),
}


@pytest.mark.parametrize("name", [name for name in WRITINGS if name != "white is low"])
def test_a_slice_is_the_same_picture_however_its_numbers_are_kept(name: str, classic: np.ndarray) -> None:
    np.testing.assert_array_equal(shown(WRITINGS[name]()), classic)


def test_inverted_greys_are_the_inverted_picture(classic: np.ndarray) -> None:
    inverted = shown(WRITINGS["white is low"]())
    assert np.abs(inverted.astype(int) - (255 - classic.astype(int))).max() <= 1


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_without_a_preamble_it_is_the_same_picture(implicit: bool, little: bool, classic: np.ndarray) -> None:
    data = made(**RESCALE, **WINDOW)
    if not little:
        data.PixelData = RAMP.astype(">u2").tobytes()
    file = bare(data, implicit=implicit, little=little)
    assert is_dicom(file[:132])
    np.testing.assert_array_equal(decode_rgb(file)[..., 0], classic)


def test_a_preamble_that_is_missing_before_the_meta_group(classic: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_rgb(written(made(**RESCALE, **WINDOW))[132:])[..., 0], classic)


def test_deflated_files_are_inflated_up_to_the_limit(classic: np.ndarray) -> None:
    file = written(made(**RESCALE, **WINDOW), DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(decode_rgb(file)[..., 0], classic)
    with pytest.raises(ImageError, match="exceeds limit of 900"):
        decode_rgb(file, 900)
    start = 144 + int.from_bytes(file[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = file[:start] + packer.compress(bytes(50_000_000)) + packer.flush()
    assert len(bomb) < 60_000
    with pytest.raises(ImageError, match="exceeds limit"):
        decode_rgb(bomb, 1_000_000)


def test_rescale_and_window_that_are_empty_count_as_missing() -> None:
    empty = dict.fromkeys((*RESCALE, *WINDOW))
    np.testing.assert_array_equal(shown(made(**empty)), shown(made()))
    np.testing.assert_array_equal(shown(made(RescaleSlope="0", RescaleIntercept="0")), shown(made()))


@pytest.mark.parametrize(("dtype", "bits"), [("<u2", 16), ("<u2", 12), ("u1", 8)])
def test_a_table_of_values_of_interest_makes_the_picture(dtype: str, bits: int) -> None:
    """Over 4 096 entries and more, of words or bytes; the first stands for −1024, and both ends go on."""
    curve = 255 / (1 + np.exp(-(np.arange(4096.0) - 2000) / 300))
    entries = np.rint(curve / 255 * (2**bits - 1)).astype(dtype)
    picture = shown(made(RescaleSlope="1", RescaleIntercept="-1024", VOILUTSequence=table(entries, -1024, bits)))
    np.testing.assert_allclose(picture, curve[RAMP], atol=1)
    outside = shown(made(RescaleSlope="4", RescaleIntercept="-9000", VOILUTSequence=table(entries, -1024, bits)))
    np.testing.assert_allclose(outside, curve[np.clip(RAMP * 4 - 9000 + 1024, 0, 4095)], atol=1)
    windowed = made(**RESCALE, **WINDOW, VOILUTSequence=table(entries, -1024, bits))
    np.testing.assert_array_equal(shown(windowed), shown(made(**RESCALE, **WINDOW)), "the window goes before")


def test_a_table_may_call_a_negative_number_by_its_unsigned_name() -> None:
    entries = np.arange(4096, dtype="<u2")
    table_ = read_table([4096, 65536 - 1024, 12], entries.tobytes(), little_endian=True)
    np.testing.assert_array_equal(table_.look_up(np.array([-2000, -1024, 0, 3071, 9000])), [0, 0, 1024, 4095, 4095])
    with pytest.raises(ValueError, match="without entries"):
        read_table([4096, 0, 12], b"", little_endian=True)


@pytest.mark.parametrize("window", [{}, WINDOW])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_up_to_its_limit_is_black_and_counts_for_nothing(window: dict[str, str], kind: str) -> None:
    plain = RAMP - 1000
    padded, limited = plain.copy(), plain.copy()
    padded[:, :8] = -3000
    limited[:, :4], limited[:, 4:8] = -3000, -2900

    def read(pixels: np.ndarray, **values: int) -> np.ndarray:
        data = made(pixels, 16, signed=True, PhotometricInterpretation=kind, **window)
        for name, value in values.items():
            data.add_new(name, "SS", value)
        return shown(data)

    inside = read(plain[:, 8:])
    for picture in (
        read(padded, PixelPaddingValue=-3000),
        read(limited, PixelPaddingValue=-3000, PixelPaddingRangeLimit=-2900),
        read(limited, PixelPaddingValue=-2900, PixelPaddingRangeLimit=-3000),
    ):
        np.testing.assert_array_equal(picture[:, 8:], inside)
        assert not picture[:, :8].any()


@pytest.mark.parametrize(("words", "bits"), [("<u2", 8), ("<u2", 16), ("u1", 8), ("<u2", -16)])
def test_palettes_of_every_depth_show_their_colours(words: str, bits: int) -> None:
    """8-bit entries in 16-bit words, which may even be said to be of 16 bits (−16), are not black."""
    colours = np.random.default_rng(0).integers(0, 256, (3, 64))
    colours[:, 0] = 255
    entries = colours * 257 if bits == 16 else colours
    data = made(RAMP // 60, 8, PhotometricInterpretation="PALETTE COLOR")
    for number, (name, values) in enumerate(zip(("Red", "Green", "Blue"), entries, strict=True)):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [64, 0, abs(bits)])
        data.add_new(0x00281201 + number, "OW", values.astype(words).tobytes())
    np.testing.assert_array_equal(decode_rgb(written(data))[5], colours.T)


def test_what_another_decoder_is_needed_for_is_named_in_one_line() -> None:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / "JPGExtended.dcm"
    if not path.exists():
        pytest.skip("this pydicom comes without that file")
    with pytest.raises(ImageError, match=r"JPEG Extended .*: pip install pylibjpeg pylibjpeg-libjpeg$"):
        decode_rgb(path)
    data = made()
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    data["PixelData"].is_undefined_length = True
    with pytest.raises(ImageError, match="no Transfer Syntax UID"):
        decode_rgb(bare(data, implicit=False, little=True))
    with pytest.raises(ImageError):
        decode_rgb(written(data, JPEGExtended12Bit))


def test_files_of_a_cd_are_found_without_a_suffix(tmp_path: Path) -> None:
    file = written(made(**RESCALE, **WINDOW))
    folder = tmp_path / "DICOM" / "ST000001"
    folder.mkdir(parents=True)
    for name in ("IM000000", "1.2.840.113619.2.55", "b.ima", "c.IMA"):
        (folder / name).write_bytes(file)
    for name in ("README", "app.log.1", "notes.txt", ".hidden", "DICOMDIR", "short"):
        (folder / name).write_bytes(
            file if name in (".hidden", "DICOMDIR", "notes.txt") else b"text " * (name != "short")
        )
    source = Folder(str(tmp_path))
    found = sorted(Path(place.path).name for place in source.places())
    assert found == ["1.2.840.113619.2.55", "IM000000", "b.ima", "c.IMA"]
    assert source.ignored == 6
    assert not may_be_dicom("a/photo.png")


def test_other_kinds_of_files_are_not_taken_for_dicom() -> None:
    targa = bytes([8, 0, 2, 0, 0, 0, 0, 0]) + bytes(200)
    for head in (
        targa,
        b"",
        b"\x08\0",
        b"\x02\0\x02\0" + bytes(128),
        b"GIF89a" + bytes(200),
        b"\x08\0\x05\0" + b"\xff" * 9,
    ):
        assert not is_dicom(head)
