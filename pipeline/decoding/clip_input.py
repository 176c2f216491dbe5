"""Image data to what CLIP sees before it is normalised: the fast path for JPEG, and Pillow for the rest."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import torch
from simplejpeg import decode_jpeg, decode_jpeg_header
from torch import Tensor

from lanit.preprocessing import ClipPreprocessing
from pipeline.decoding.frames import Frame, frame_index
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.limits import MAX_PIXELS, ImageError, check_pixels

FLIPS = {1: (), 2: (1,), 3: (0, 1), 4: (0,), 5: (), 6: (1,), 7: (0, 1), 8: (0,)}
"""EXIF orientation to the axes (0 vertical, 1 horizontal) to flip; from 5 on rows and columns are swapped first."""

_MARKERS = 64  # a file with more segments before its picture is left to Pillow
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_APP1, _START_OF_SCAN = 0xE1, 0xDA
_ORIENTATION, _SHORT = 0x0112, 3


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image as CLIP sees it. pixels: uint8 (3×s×s), colours innermost in memory; width, height: of the image before
    the resize, upright."""

    pixels: Tensor
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """width, height: as stored, before it is turned upright. orientation: EXIF's, 1 to 8."""

    width: int
    height: int
    orientation: int


def decode_for_clip(
    data: bytes, preprocessing: ClipPreprocessing, max_pixels: int = MAX_PIXELS, frame: Frame | None = None
) -> Decoded:
    """Decode, turn upright and resize an image. For threads: one of them uses one core, and mostly without the GIL.

    JPEG in RGB or grey goes through libjpeg-turbo directly, everything else, and every JPEG that it objects to, through
    Pillow (:func:`pipeline.decoding.images.decode_rgb`), whose pixels are the same and whose verdict counts. The resize
    is that of :class:`lanit.preprocessing.ClipPreprocessing`; a JPEG that lies on its side is turned after it, when it
    is small, which makes 0.2 levels of 255 on average, and up to 11 beside edges of black and white. Raises ImageError,
    also where memory runs out.
    """
    try:
        return _prepare(*_decode(data, max_pixels, frame), preprocessing)
    except (MemoryError, RuntimeError) as error:  # torch says RuntimeError where memory runs out
        raise ImageError(f"it cannot be resized ({error or 'not enough memory'})") from error


def _decode(data: bytes, max_pixels: int, frame: Frame | None) -> tuple[np.ndarray, int]:
    """An image, uint8 (H×W×3), and the EXIF orientation still to be applied."""
    header = read_jpeg_header(data)
    if header is None:
        return decode_rgb(data, max_pixels, frame), 1
    if frame is not None:
        frame_index(frame, 1)
    check_pixels(header.width, header.height, max_pixels)
    try:
        return decode_jpeg(data, "RGB"), header.orientation
    except ValueError:  # strict: also at what Pillow forgives
        return decode_rgb(data, max_pixels, frame), 1


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """None for what is no JPEG in RGB or grey, and wherever the orientation is not plain to see."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colours, _ = decode_jpeg_header(data)
        orientation = _orientation(data)
    except (ValueError, IndexError, struct.error):
        return None
    if orientation is None or colours not in ("RGB", "YCbCr", "Gray"):
        return None
    return JpegHeader(int(width), int(height), orientation)


def _prepare(image: np.ndarray, orientation: int, preprocessing: ClipPreprocessing) -> Decoded:
    """image: uint8 (H×W×3), as stored. It is turned after the resize, when it is small."""
    scaled = preprocessing.scale(torch.from_numpy(image).view(1, *image.shape).permute(0, 3, 1, 2))
    if orientation != 1:
        scaled = torch.from_numpy(_upright(scaled[0].permute(1, 2, 0).numpy(), orientation)).permute(2, 0, 1)[None]
    pixels = preprocessing.fit(scaled)[0].permute(1, 2, 0)
    # by NumPy, since torch would copy with as many threads as it has
    compact = torch.from_numpy(np.ascontiguousarray(pixels.numpy())).permute(2, 0, 1)
    height, width = image.shape[:2]
    return Decoded(compact, *((width, height) if orientation < 5 else (height, width)))


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """A copy of an image (H×W×3), turned as EXIF's orientation says."""
    turned = image.swapaxes(0, 1) if orientation >= 5 else image
    return np.ascontiguousarray(np.flip(turned, FLIPS[orientation]))


def _orientation(data: bytes) -> int | None:
    """EXIF orientation of a JPEG, 1 if it has none; None where Pillow should judge: what is written twice, in XMP, or
    oddly. Raises IndexError and struct.error where the file ends."""
    found = None
    place = 2
    for _ in range(_MARKERS):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == _START_OF_SCAN:
            return 1 if found is None else found
        (length,) = struct.unpack_from(">H", data, place + 2)
        if marker == _APP1:
            segment = data[place + 4 : place + 2 + length]
            if segment.startswith(_EXIF):
                if found is not None:
                    return None
                found = _exif_orientation(segment[len(_EXIF) :])
                if found is None:
                    return None
            elif segment.startswith(_XMP) and b"tiff:Orientation" in segment:
                return None
        place += 2 + length
    return None


def _exif_orientation(exif: bytes) -> int | None:
    """The orientation in the first directory of a TIFF header, 1 if there is none, None where that is odd."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return None
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (entries,) = struct.unpack_from(order + "H", exif, start)
    for entry in range(entries):
        tag, kind, count, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * entry)
        if tag == _ORIENTATION:
            plain = kind == _SHORT and count == 1 and 1 <= value <= 8
            return value if plain else None
    return 1
