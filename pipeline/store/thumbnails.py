"""Stored images as the thumbnails of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.decoding.limits import ChangedImage, ImageError

if TYPE_CHECKING:
    from pipeline.store.store_images import StoreImages
from pipeline.showing.pages import Picture, file_link


def stored_picture(images: StoreImages, row: int, side: int, source: str, path: str) -> Picture:
    """The thumbnail of a stored image, of at most ``side`` pixels, or what became of it."""
    try:
        return Picture(images.thumbnail(row, side), path, file_link(source, path))
    except ImageError as error:
        return Picture(None, path, file_link(source, path), isinstance(error, ChangedImage))
