"""The images behind the rows of a store, wherever they lie: in folders, tars or tables."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

from pipeline.decoding.images import ImageError, decode_rgb
from pipeline.inputs.opening import open_source
from pipeline.inputs.places import Input
from pipeline.store.store import Store


class StoreImages:
    """Reads the images of a store's ok rows. Safe in threads.

    rows: where given, only these rows of ``Store.embeddings``; they are then numbered from 0 in this order, and only
    what locates them is kept in memory.
    """

    def __init__(self, store: Store, rows: np.ndarray | None = None) -> None:
        columns = {entry.source: entry.image_column for entry in store.manifest.sources}
        self._open = functools.cache(lambda source: open_source(source, columns.get(source)))
        table = store.ok_images() if rows is None else store.images_of(rows, ["source", "path", "offset", "bytes"])
        self._source = table["source"].combine_chunks().dictionary_encode()
        self._path, self._offset, self._bytes = (table[name].combine_chunks() for name in ("path", "offset", "bytes"))

    def __len__(self) -> int:
        return len(self._path)

    def name(self, row: int) -> str:
        """What to call the image in a message."""
        return f"{self._source[row].as_py()}/{self._path[row].as_py()}"

    def read(self, row: int) -> bytes:
        """The data of the image of an ok row. Raises ImageError where it is gone or cannot be read."""
        origin: Input = self._open(self._source[row].as_py())
        return origin.read(self._path[row].as_py(), self._offset[row].as_py(), self._bytes[row].as_py())

    def decode(self, row: int) -> np.ndarray:
        """The image of an ok row, uint8 (H×W×3). Raises ImageError."""
        return decode_rgb(self.read(row))

    def thumbnail(self, row: int, side: int = 96) -> bytes | None:
        """A JPEG whose longer side is at most ``side`` pixels; none where the image is gone or damaged by now."""
        try:
            return thumbnail_of(self.decode(row), side)
        except ImageError:
            return None


def thumbnail_of(pixels: np.ndarray, side: int) -> bytes:
    """A JPEG of an image, uint8 (H×W×3), whose longer side is at most ``side`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=3)
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=80)
    return sink.getvalue()
