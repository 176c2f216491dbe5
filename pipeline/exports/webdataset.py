"""WebDataset: tars in which ``KEY.jpg`` (or .png, …) and ``KEY.json`` follow each other."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from pipeline.exports.inventory import Writes, Written
from pipeline.exports.layouts import ExportRequest
from pipeline.exports.naming import suffix_of
from pipeline.exports.selection import Advance, Chunk, Record, Selection
from pipeline.exports.shards import write_shards


class WebDataset:
    """The layout that the ``webdataset`` library, img2dataset and open_clip read.

    The key is the image_id, which has no dot. The image's bytes are as found, under the suffix of their format.
    ``.json`` holds image_id, path, width, height, labels (names) and margins (by name); ``.npy`` the embedding.
    """

    READ_BY: ClassVar[str] = 'webdataset.WebDataset("{out}/images-{{000000..{last:06d}}}.tar")'
    TAKES: ClassVar[frozenset[str]] = frozenset({"embeddings", "shard_mb"})
    NEEDS_LABELS: ClassVar[bool] = False
    writes = Writes({"": ["images-*.tar"]})

    def __init__(self, selection: Selection, request: ExportRequest, advance: Advance) -> None:
        self._selection, self._limit, self._embeddings = selection, request.shard_bytes, request.embeddings
        self._advance = advance

    def chunks(self, folder: Path, start: int, files: int) -> Iterator[Chunk]:
        def open_shard(number: int) -> _Tar:
            return _Tar(folder / f"images-{number:06d}.tar", self._selection.domains)

        return write_shards(
            self._selection,
            folder,
            start,
            files,
            open_shard,
            limit=self._limit,
            embeddings=self._embeddings,
            advance=self._advance,
        )

    def finish(self, folder: Path, counts: dict[str, int], exported: int) -> tuple[Written, ...]:
        """Nothing stands beside the tars."""
        return ()


class _Tar:
    def __init__(self, path: Path, domains: tuple[str, ...]) -> None:
        self.path = path
        self._domains = domains
        self._file = path.open("wb")

    def add(self, record: Record, data: bytes, embedding: np.ndarray | None) -> None:
        self._member(f"{record.image_id}.{suffix_of(data, record.path)}", data)
        document = json.dumps(describe(record, self._domains), ensure_ascii=False)
        self._member(f"{record.image_id}.json", document.encode())
        if embedding is not None:
            array = io.BytesIO()
            np.save(array, embedding, allow_pickle=False)
            self._member(f"{record.image_id}.npy", array.getvalue())

    def _member(self, name: str, data: bytes) -> None:
        """Equal data give an equal member: no time, no owner. A TarFile would remember every member."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        self._file.write(header.tobuf(tarfile.USTAR_FORMAT))
        self._file.write(data)
        self._file.write(bytes(-len(data) % tarfile.BLOCKSIZE))

    def close(self) -> None:
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))
        self._file.write(bytes(-self._file.tell() % tarfile.RECORDSIZE))
        self._file.close()


def describe(record: Record, domains: tuple[str, ...]) -> dict[str, object]:
    """What ``.json`` says of an image; labels and margins only where the store has labels."""
    document: dict[str, object] = {
        "image_id": record.image_id,
        "path": record.path,
        "width": record.width,
        "height": record.height,
    }
    if record.margins is not None:
        document["labels"] = [domains[number] for number in record.labels]
        document["margins"] = dict(zip(domains, map(shortest, record.margins), strict=True))
    return document


def shortest(value: np.float32) -> float:
    """The number with the fewest digits that is the same float32."""
    return float(str(value))
