"""The images behind the rows of a store, in any kind of input: the one way to read them back."""

from __future__ import annotations

import functools
import io
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image

from lanit.errors import LanitError
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.limits import MAX_PIXELS, ChangedImage, ImageError
from pipeline.files import sha256_bytes
from pipeline.inputs.formats import folder_of
from pipeline.inputs.opening import open_source
from pipeline.inputs.places import Input
from pipeline.inputs.storage import Stat, is_url, located
from pipeline.inputs.storages import storage_of
from pipeline.store.store import Store

if TYPE_CHECKING:  # torch comes with it
    from lanit.preprocessing import ClipPreprocessing
    from pipeline.decoding.clip_input import Decoded

_COLUMNS = ["source", "path", "offset", "bytes", "width", "height", "sha256"]


class StoreImages:
    """Reads the images of a store's ok rows, where they are still those that were embedded. Safe in threads.

    What is read is compared with the digest in the store, which costs about a hundredth of decoding it: other pixels
    never stand under the labels and embeddings of the ones before.

    rows: where given, only these rows of ``Store.embeddings``; they are then numbered from 0 in this order, and only
    what locates them is kept in memory.
    """

    def __init__(self, store: Store, rows: np.ndarray | None = None) -> None:
        self._store, self._rows = store, rows
        self._columns = {entry.source: entry.image_column for entry in store.manifest.sources}
        self._open = functools.cache(lambda source: open_source(source, self._columns.get(source)))
        table = store.ok_table(_COLUMNS) if rows is None else store.images_of(rows, _COLUMNS)
        self._source = table["source"].combine_chunks().dictionary_encode()
        self._path, self._offset, self._bytes, self._width, self._height = (
            table[name].combine_chunks() for name in _COLUMNS[1:-1]
        )
        self._sha256 = table["sha256"].cast(pa.large_string()).combine_chunks()  # 2 GiB of digests are soon reached

    def __len__(self) -> int:
        return len(self._path)

    def name(self, row: int) -> str:
        """What to call the image in a message."""
        return f"{self._source[row].as_py()}/{self._path[row].as_py()}"

    def place(self, row: int) -> tuple[str, str]:
        """Source and path of the image."""
        return self._source[row].as_py(), self._path[row].as_py()

    def size(self, row: int) -> tuple[int | None, int | None, int | None]:
        """Width, height and bytes of the image; none where they are not known."""
        return self._width[row].as_py(), self._height[row].as_py(), self._bytes[row].as_py()

    def sha256(self, row: int) -> str | None:
        """Of the data of the image, where it is known."""
        digest: str | None = self._sha256[row].as_py()
        return digest

    def read(self, row: int) -> bytes:
        """The data of the image of an ok row.

        Raises ImageError where it is gone or cannot be read, and ChangedImage where it is another by now.
        """
        origin: Input = self._open(self._source[row].as_py())
        data = origin.read(self._path[row].as_py(), self._offset[row].as_py(), self._bytes[row].as_py())
        known = self._sha256[row].as_py()
        if known is not None and sha256_bytes(data) != known:
            raise ChangedImage("it has changed since it was embedded")
        return data

    def _max_pixels(self, row: int) -> int:
        """A limit for decoders that lets the image through, since ``lanit embed`` did."""
        return max(MAX_PIXELS, (self._width[row].as_py() or 0) * (self._height[row].as_py() or 0))

    def decode(self, row: int) -> np.ndarray:
        """The image of an ok row, uint8 (H×W×3). Raises ImageError, as :meth:`read` does."""
        return decode_rgb(self.read(row), self._max_pixels(row), self._store.manifest.frame)

    def decode_for_clip(self, row: int, preprocessing: ClipPreprocessing) -> Decoded:
        """The image of an ok row, as it was embedded. Raises ImageError, as :meth:`read` does."""
        from pipeline.decoding.clip_input import decode_for_clip

        return decode_for_clip(self.read(row), preprocessing, self._max_pixels(row), self._store.manifest.frame)

    def thumbnail(self, row: int, side: int = 96) -> bytes:
        """A JPEG whose longer side is at most ``side`` pixels. Raises ImageError, as :meth:`read` does."""
        frame = self._store.manifest.frame
        return thumbnail_of(decode_rgb(self.read(row), self._max_pixels(row), frame, near=side), side)

    def complaint(self, row: int, error: ImageError, others: Iterable[int] = ()) -> LanitError:
        """What to tell a person of an image that could not be read, and what to type.

        others: rows to look through for more of the kind.
        """
        count = 1 + sum(not self._is_sound(other) for other in others)
        what = "a stored image" if count == 1 else f"{count:,} stored images, the first being"
        return LanitError(f"cannot use {what} {self.name(row)}: {error.reason}", self.remedy(row))

    def remedy(self, row: int) -> str:
        """What to type where an image is gone or changed: it embeds what is there now, and drops what is not."""
        source, path = self._source[row].as_py(), self._path[row].as_py()
        if not self._is_there(source):
            return f"Bring back {source}, from where it was embedded."
        command = f"lanit embed {shlex.quote(source)} --store {shlex.quote(str(self._store.root))}"
        column = self._columns.get(source)
        if column is not None:
            command += f" --image-column {shlex.quote(column)}"
        file = located(folder_of(source), path) if self._offset[row].as_py() is None else source
        if self._seems_unchanged(row, file):  # then lanit embed would not look at it
            command = f"touch {shlex.quote(file)} && {command}"
        return f"Run: {command}"

    def _is_sound(self, row: int) -> bool:
        try:
            self.read(row)
        except ImageError:
            return False
        return True

    def _is_there(self, source: str) -> bool:
        try:
            return self._open(source).exists()
        except LanitError:  # it cannot be reached now
            return True

    def _seems_unchanged(self, row: int, file: str) -> bool:
        """Whether size and time of the file are as they were; of a tar, zip or table the time."""
        place = np.array([row if self._rows is None else self._rows[row]])
        [known] = self._store.images_of(place, ["bytes", "modified_ns", "offset"]).to_pylist()
        found = storage_of(file).stat(file)
        if found.modified_ns is None or is_url(file):
            return False
        size = found.bytes if known["offset"] is not None else known["bytes"]
        return found == Stat(size, known["modified_ns"])


def thumbnail_of(pixels: np.ndarray, side: int) -> bytes:
    """A JPEG of an image, uint8 (H×W×3), whose longer side is at most ``side`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=3)
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=80)
    return sink.getvalue()
