"""Images that cannot be used, and the number of pixels up to which one is read."""

from __future__ import annotations

from lanit.errors import LanitError

MAX_PIXELS = 178_956_970
"""Images of more pixels are refused unless the caller allows more: a small file can claim to be a huge picture. It is
the number from which on Pillow takes a picture for an attack."""


class ImageError(LanitError):
    """A file that cannot be decoded. reason: why, without the name of the file."""

    def __init__(self, reason: str, name: str = "") -> None:
        self.reason = " ".join(reason.split())
        super().__init__(f"cannot read {name}: {self.reason}" if name else self.reason)


class ChangedImage(ImageError):
    """An image whose data is not what a store knows of it."""


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raises ImageError where an image has more pixels than that."""
    if width * height > max_pixels:
        raise ImageError(_too_large(width * height, max_pixels))


def _too_large(pixels: int | str, max_pixels: int) -> str:
    return f"{pixels} pixels, which exceeds limit of {max_pixels} (--max-pixels raises it)"
