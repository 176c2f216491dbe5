"""Image files: told by their names, decoded fully to 8-bit RGB."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import PIL
from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.decoding.dicom import decode_dicom, is_dicom
from pipeline.decoding.frames import Frame, frame_index
from pipeline.decoding.limits import MAX_PIXELS, ImageError, _too_large, check_pixels
from pipeline.extras import install
from pipeline.stand_ins import stand_in

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif", ".heic", ".heif", ".dcm", ".dicom", ".ima"),
    }
)
"""What counts as an image by name, in any case; also what an extra is needed for (``dicom``, ``heic``),
so that a folder of such files fails with what to install."""


_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF", "HEIF")
_STRIP_PIXELS = 1 << 22
_PHOTOMETRIC, _WHITE_IS_ZERO, _YCBCR = 262, 0, 6  # a tag of TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation; ImageOps.exif_transpose also rewrites the EXIF, which fails where that is damaged
_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})

# Pillow warns on odd metadata and on large pictures; neither stops a decode, and a folder may hold thousands of them.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors go to stderr


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image."""
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def read_image_bytes(path: Path) -> bytes:
    """The bytes of a regular file. Raises ImageError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited on for ever
            raise ImageError("not a regular file", str(path))
        return path.read_bytes()
    except OSError as error:
        raise ImageError(error.strerror or str(error), str(path)) from error


def decode_rgb(
    source: Path | bytes, max_pixels: int = MAX_PIXELS, frame: Frame | None = None, near: int | None = None
) -> np.ndarray:
    """Decode a whole image to a writable uint8 array (H×W×3), RGB. Safe in threads.

    near: pixels of the longer side that are wanted; a JPEG is then decoded at a half, a quarter or an eighth of its
    size, in a fraction of the time, where that leaves at least one and a half times as many.

    EXIF rotation is applied; transparency is laid on white; wider greys are scaled to 8 bits (:func:`_grey_to_8_bits`),
    DICOM as :mod:`pipeline.decoding.dicom` says. Of an animation or of several pages the first is taken, unless another
    ``frame`` is asked for; a JPEG has one, since what phones put behind the photograph is no picture of its own.
    Colour profiles are not applied: the photographs that CLIP models learned from were not converted either. Raises
    ImageError: missing, empty, not an image, truncated, wholly transparent, without that frame, or of more than
    ``max_pixels`` pixels.
    """
    name = str(source) if isinstance(source, Path) else ""
    data = read_image_bytes(source) if isinstance(source, Path) else source
    try:
        return _decode(data, max_pixels, frame, near)
    except ImageError as error:
        raise ImageError(error.reason, name) from error.__cause__
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise ImageError(_too_large(pixels[0] if pixels else "many", max_pixels), name) from error
    except MemoryError as error:
        raise ImageError("not enough memory to decode it", name) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, …
        if found := stand_in(data):
            raise ImageError(found.reason, name) from error
        if isinstance(error, UnidentifiedImageError):
            raise ImageError(_unidentified(data), name) from error
        raise ImageError(f"damaged or not supported ({error or type(error).__name__})", name) from error


def _decode(data: bytes, max_pixels: int, frame: Frame | None, near: int | None) -> np.ndarray:
    if not data:
        raise ImageError("the file is empty")
    if is_dicom(data):
        return decode_dicom(data, max_pixels, frame)
    _let_pillow_open(max_pixels)
    with Image.open(io.BytesIO(data), formats=_formats()) as image:
        if frame is not None:
            count = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
            image.seek(frame_index(frame, count))
        check_pixels(*image.size, max_pixels)
        if near is not None:
            share = 1.5 * near / max(image.size)
            image.draft(None, (math.ceil(image.width * share), math.ceil(image.height * share)))  # of a JPEG only
        _mend_ycbcr(image)
        image.load()
        return _to_rgb(_upright(image), opaque=_is_said_opaque(image, data))


def _mend_ycbcr(image: Image.Image) -> None:
    """Pillow before 13 takes each pixel of an uncompressed YCbCr TIFF for four bytes, and the file for truncated."""
    if image.format != "TIFF" or image.mode != "RGB" or image.tag_v2.get(_PHOTOMETRIC) != _YCBCR:  # type: ignore[attr-defined]
        return
    if all((name, args[0]) == ("raw", "RGBX") for name, _, _, args in image.tile):  # type: ignore[attr-defined]
        tiles = [(name, extents, start, ("YCbCr", *args[1:])) for name, extents, start, args in image.tile]  # type: ignore[attr-defined]
        image.tile, image._mode = tiles, "YCbCr"  # type: ignore[attr-defined]


def rgb_of(image: Image.Image) -> np.ndarray:
    """A Pillow image as :func:`decode_rgb` gives a file: uint8 (H×W×3), turned as its EXIF says, laid on white.

    Raises ImageError for an image of which nothing is to be seen.
    """
    return _to_rgb(_upright(image))


def _is_said_opaque(image: Image.Image, data: bytes) -> bool:
    """Whether the header says that what Pillow takes for alpha is none: programs leave such bytes at 0."""
    if image.format == "TGA":
        return data[17] & 15 == 0  # bits of alpha
    return image.format == "BMP" and data[30:34] == b"\3\0\0\0" and not any(data[54:70])  # masks, none for alpha


def _unidentified(data: bytes) -> str:
    if data[4:8] == b"ftyp" and "HEIF" not in _formats() and data[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return f"HEIC needs pillow-heif: {install('heic')}"
    return f"not an image of a kind that lanit reads, with Pillow {PIL.__version__}"


_pillow_limit = threading.Lock()


def _let_pillow_open(max_pixels: int) -> None:
    """Pillow's own limit is one for the process, and refuses from twice its value on: raise it where the caller allows
    more, never lower it, so that threads with several limits do no harm; each image is checked against its own."""
    with _pillow_limit:
        if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats this Pillow can open, of those we want: no others, since some start programs (EPS: Ghostscript)."""
    Image.init()
    with contextlib.suppress(ImportError):  # optional: HEIC, the format of iPhones
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF must not cost a good picture
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image, *, opaque: bool = False) -> np.ndarray:
    """In strips, so that a picture of 100 megapixels is not held in three modes at once. opaque: alpha is not to be
    minded."""
    extremes = _extremes(image) if _is_wide(image) else None
    inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO  # Pillow minds it for 8 bits only
    transparent = not opaque and not extremes and (image.mode in _ALPHA_MODES or "transparency" in image.info)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    row, visible = 0, not transparent
    for strip in _strips(image):
        place = slice(row, row + strip.height)
        if extremes:
            grey = _grey_to_8_bits(np.asarray(strip), *extremes)
            pixels[place] = (255 - grey if inverted else grey)[..., None]
        elif transparent:
            rgba = strip.convert("RGBA")
            pixels[place] = np.asarray(_on_white(rgba))
            visible = visible or rgba.getextrema()[-1] != (0, 0)
        else:
            pixels[place] = np.asarray(strip.convert("RGB"))
        row += strip.height
    if not visible:  # a white sheet would get labels as if there were something on it
        raise ImageError("wholly transparent")
    return pixels


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    rows = max(1, _STRIP_PIXELS // image.width)
    if rows >= image.height:
        yield image
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _on_white(rgba: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", rgba.size, (255, 255, 255))
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def _is_wide(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _extremes(image: Image.Image) -> tuple[float, float]:
    """Lowest and highest finite value; zeros where there is none."""
    low, high = np.inf, -np.inf
    for strip in _strips(image):
        grey = np.asarray(strip)
        finite = grey[np.isfinite(grey)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _grey_to_8_bits(grey: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8 of wider greys, ``low`` and ``high`` being the extremes of the whole picture.

    Integers: 0 to the largest value of the 8, 10, 12, 14 or 16 bits that ``high`` takes, so that 12-bit scans are not
    black. Floats: 0–1 or 0–255. Negative or larger values: from lowest to highest. A constant becomes black if it is
    scaled so. NaN becomes black.
    """
    spans = (1.0, 255.0) if grey.dtype.kind == "f" else tuple(2.0**bits - 1 for bits in (8, 10, 12, 14, 16))
    span = next((span for span in spans if high <= span), 0.0)
    if low < 0 or not span:
        span = max(high - low, 1e-30)
    else:
        low = 0.0
    scaled = np.nan_to_num((grey.astype(np.float64) - low) * (255 / span), nan=0.0)
    eight: np.ndarray = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return eight
