"""Image files: find them under a folder, decode them fully to 8-bit RGB."""

from __future__ import annotations

import functools
import io
import os
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from lanit.errors import LanitError

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif", ".heic", ".heif"),
    }
)
"""What counts as an image by name, in any case; HEIC and AVIF are counted even where Pillow cannot read them."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF", "HEIF")
_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})

# Pillow warns on odd metadata and on large pictures; neither stops a decode, and a folder may hold thousands of them.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(LanitError):
    """A file that cannot be decoded. reason: why, without the name of the file."""

    def __init__(self, reason: str, name: str = "") -> None:
        self.reason = " ".join(reason.split())
        super().__init__(f"cannot read {name}: {self.reason}" if name else self.reason)


@dataclass(frozen=True)
class ImageListing:
    """What a folder holds. paths: images, relative POSIX paths in sorted order; ignored: the number of other files;
    unreadable: folders that could not be listed."""

    paths: tuple[str, ...]
    ignored: int
    unreadable: tuple[str, ...]


def list_images(folder: Path) -> ImageListing:
    """Everything below ``folder``, following links to folders once; names that begin with a dot count as ignored.

    Raises LanitError where ``folder`` is not a folder.
    """
    if not folder.exists():
        raise LanitError(f"there is no folder {folder}", "Check the path.")
    if not folder.is_dir():
        raise LanitError(f"{folder} is a file, not a folder", "Give the folder that holds the images.")
    paths: list[str] = []
    ignored = 0
    refused: list[str] = []
    seen: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(
        folder, followlinks=True, onerror=lambda error: refused.append(str(error.filename))
    ):
        here = Path(root)
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen:  # a link back up the tree
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = here.relative_to(folder)
        for name in files:
            if is_image_name(name):
                paths.append((relative / name).as_posix())
            else:
                ignored += 1
    return ImageListing(tuple(sorted(paths)), ignored, tuple(sorted(refused)))


def list_some_images(folder: Path) -> ImageListing:
    """As :func:`list_images`; raises LanitError where there is no image."""
    listing = list_images(folder)
    if not listing.paths:
        others = f", only {listing.ignored} other files" if listing.ignored else ""
        hint = f"Names of images end in {' '.join(sorted(IMAGE_SUFFIXES))}."
        raise LanitError(f"there are no images in {folder}{others}", hint)
    return listing


def find_images(folder: Path) -> list[str]:
    """Relative POSIX paths of the image files below ``folder``, in sorted order. Raises as :func:`list_images`."""
    return list(list_images(folder).paths)


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


def decode_rgb(source: Path | bytes) -> np.ndarray:
    """Decode a whole image to a writable uint8 array (H×W×3), RGB.

    EXIF rotation is applied; transparency is laid on white; 16-bit and floating greys are scaled to 8 bits;
    of an animation the first frame is taken. Colour profiles are not applied.
    Raises ImageError: missing, empty, not an image, truncated, or beyond Pillow's limit of pixels.
    """
    name = str(source) if isinstance(source, Path) else ""
    data = read_image_bytes(source) if isinstance(source, Path) else source
    if not data:
        raise ImageError("the file is empty", name)
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            image.load()
            return np.array(_to_rgb(_upright(image)))
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image that Pillow {PIL.__version__} can read", name) from error
    except MemoryError as error:
        raise ImageError("not enough memory to decode it", name) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, …
        raise ImageError(f"damaged or not supported ({error or type(error).__name__})", name) from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats this Pillow can open, of those we want: no others, since some start programs (EPS: Ghostscript)."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF must not cost a good picture
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey_to_8_bits(np.asarray(image).astype(np.float64), image.mode)).convert("RGB")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
    return image.convert("RGB")


def _grey_to_8_bits(grey: np.ndarray, mode: str) -> np.ndarray:
    """uint8 of greys of wider types: 0–65535 for integers, 0–1 or 0–255 for floats, else from lowest to highest."""
    finite = grey[np.isfinite(grey)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    spans = {"F": (1.0, 255.0), "I": (255.0, 65535.0)}.get(mode, (65535.0,))
    span = next((span for span in spans if high <= span), 0.0)
    if low < 0 or not span:
        grey, span = grey - low, max(high - low, 1e-30)  # a constant becomes black
    scaled: np.ndarray = np.clip(np.rint(np.nan_to_num(grey, nan=0.0) * (255 / span)), 0, 255).astype(np.uint8)
    return scaled
