"""DICOM files to 8-bit RGB, by pydicom, which is an extra."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from pipeline.decoding.dicom_greys import grey_to_8_bits, is_little_endian
from pipeline.decoding.dicom_tables import read_table, true_depth
from pipeline.decoding.frames import Frame, frame_index
from pipeline.decoding.limits import ImageError, _too_large, check_pixels
from pipeline.extras import install

if TYPE_CHECKING:
    from pydicom import Dataset

HEAD_BYTES = 132
"""How much of a file :func:`is_dicom` looks at."""

_DEFLATED = "1.2.840.10008.1.2.1.99"
_INFLATED_BYTES = 4  # for each pixel that is allowed: what a PNG of so many pixels takes in memory
_META_FIRST = frozenset((0x0000, 0x0001, 0x0002, 0x0010))  # elements that group 0002 may begin with
_DATA_FIRST = frozenset((0x0000, 0x0001, 0x0005, 0x0006, 0x0008, 0x0012, 0x0013, 0x0014, 0x0016, 0x0018))
_VRS = frozenset((b"UL", b"OB", b"UI", b"CS", b"SH", b"DA", b"TM", b"LO"))
_COLOURS = ("Red", "Green", "Blue")

# pydicom warns of every value that bends the standard, and real files hold thousands of them
warnings.filterwarnings("ignore", module=r"pydicom\.")


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins so is DICOM: by "DICM" after 128 bytes, or by an element that such files begin with
    where scanners leave these out."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    group, element, length = struct.unpack_from("<HHI", head)
    explicit = head[4:6] in _VRS
    if head[:2] == b"\0\x08":  # big-endian
        return explicit and struct.unpack_from(">H", head, 2)[0] in _DATA_FIRST
    if group == 2:
        return explicit and element in _META_FIRST
    return group == 8 and element in _DATA_FIRST and (explicit or (0 < length < 1 << 10 and length % 2 == 0))


def may_be_dicom(name: str) -> bool:
    """Whether DICOM files have such names, without a suffix or with the end of a number, so that it is worth a look."""
    path = PurePosixPath(name)
    plain = path.suffix[1:].isdecimal() or not path.suffix
    return plain and not path.name.startswith(".") and path.name.upper() != "DICOMDIR"


def decode_dicom(data: bytes, max_pixels: int, frame: Frame | None = None) -> np.ndarray:
    """A frame of a DICOM file as uint8 (H×W×3), RGB: of several, unless one is asked for, the one that the file names
    as representative, else the first.

    Greys are as :func:`pipeline.decoding.dicom_greys.grey_to_8_bits` says, so that what is dense is bright in every
    picture. Colours and palettes become 8-bit RGB. What overlays put into unused bits is left out.
    Raises ImageError for what is not supported or too large, and whatever pydicom raises for damaged files.
    """
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise ImageError(f"DICOM needs pydicom: {install('dicom')}") from error
    dataset = dcmread(io.BytesIO(_inflated(data, max_pixels)), force=True)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageError("a DICOM file without a picture")
    _name_syntax(dataset)
    check_pixels(int(dataset.Columns), int(dataset.Rows), max_pixels)
    number = _representative(dataset) if frame is None else frame_index(frame, _frames(dataset))
    return _to_rgb(_frame(dataset, number), dataset, number)


def _inflated(data: bytes, max_pixels: int) -> bytes:
    """The data elements of a file that is deflated, any other as it is. pydicom would inflate without a limit."""
    place = data.find(b"\x02\0\x10\0UI", 132, 1024)
    if place < 0:
        return data
    (length,) = struct.unpack_from("<H", data, place + 6)
    if data[place + 8 : place + 8 + length].rstrip(b"\0 ") != _DEFLATED.encode():
        return data
    if data[132:138] != b"\x02\0\0\0UL":
        raise ImageError("damaged (its first group does not say where it ends)")
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    limit = _INFLATED_BYTES * max_pixels
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], limit + 1)
    if len(inflated) > limit:
        raise ImageError(_too_large("many", max_pixels))
    return inflated


def _name_syntax(dataset: Dataset) -> None:
    """Say how the file is encoded where it does not itself, as those without a preamble."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if getattr(dataset, "file_meta", None) is None:
        dataset.file_meta = FileMetaDataset()
    if dataset.file_meta.get("TransferSyntaxUID"):
        return
    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
        raise ImageError("its picture is compressed, and it does not say how (no Transfer Syntax UID)")
    explicit = ExplicitVRLittleEndian if is_little_endian(dataset) else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if dataset.original_encoding[0] else explicit


def _representative(dataset: Dataset) -> int:
    """The number of the frame to show, from 0."""
    number = int(dataset.get("RepresentativeFrameNumber") or 1)
    return number - 1 if 1 <= number <= _frames(dataset) else 0


def _frames(dataset: Dataset) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _frame(dataset: Dataset, number: int) -> np.ndarray:
    """The values as stored (H×W or H×W×3), without those of unused bits."""
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    below = 0  # unused bits below the value, of files from before 2004
    if not syntax.is_encapsulated and dataset.get("HighBit") and dataset.get("BitsStored"):
        below = max(0, int(dataset.HighBit) + 1 - int(dataset.BitsStored))
    if below:
        dataset.BitsStored = int(dataset.BitsStored) + below  # pydicom takes the lowest bits for the value
    try:
        frame = pixel_array(dataset, index=number)
    except RuntimeError as error:
        if not re.search("missing dependencies|12-bit precision", str(error)):
            raise
        decoder = "pylibjpeg-openjpeg" if "2000" in syntax.name else "pylibjpeg-libjpeg"
        reason = f"its compression, {syntax.name}, needs another decoder: pip install pylibjpeg {decoder}"
        raise ImageError(reason) from error
    if below:
        dataset.BitsStored = int(dataset.BitsStored) - below
        frame >>= below
    return frame


def _to_rgb(frame: np.ndarray, dataset: Dataset, number: int) -> np.ndarray:
    """uint8 (H×W×3) of a frame (H×W or H×W×3) as stored."""
    if str(dataset.PhotometricInterpretation) == "PALETTE COLOR":
        return _by_palette(frame, dataset)
    if frame.ndim == 3:
        bits = int(dataset.BitsStored)
        return np.rint(frame * np.float32(255 / (2**bits - 1))).astype(np.uint8)
    return np.repeat(grey_to_8_bits(frame, dataset, number)[..., None], 3, axis=2)


def _by_palette(frame: np.ndarray, dataset: Dataset) -> np.ndarray:
    """uint8 (H×W×3) of a frame (H×W) of places in a palette."""
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        from pydicom.pixels.processing import apply_color_lut

        colours = apply_color_lut(frame, dataset)[..., :3]
        depth = true_depth(8 * colours.dtype.itemsize, int(colours.max()))
    else:
        tables = [
            read_table(
                dataset[f"{colour}PaletteColorLookupTableDescriptor"].value,
                dataset[f"{colour}PaletteColorLookupTableData"].value,
                little_endian=is_little_endian(dataset),
            )
            for colour in _COLOURS
        ]
        colours = np.stack([table.look_up(frame) for table in tables], axis=2)
        depth = max(table.depth for table in tables)
    return (colours >> (depth - 8)).astype(np.uint8)
