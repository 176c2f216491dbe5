"""What is done with the images of an embedding run: read, decoded, encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lanit.preprocessing import ClipPreprocessing
from pipeline.clip.batch_encoder import BatchEncoder
from pipeline.computing.engines import Chore, PipelinedEngine
from pipeline.decoding.clip_input import decode_for_clip
from pipeline.decoding.frames import Frame
from pipeline.decoding.limits import MAX_PIXELS, ImageError
from pipeline.embedding.image_rows import ImageRow
from pipeline.files import sha256_bytes
from pipeline.inputs.places import Input
from pipeline.inputs.storage import is_url

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.embedding.image_rows import KnownRow

_SMALL = 20_000_000  # parameters of an image tower that is over with an image sooner than its decoder

Read = Tensor | bytes
"""Pixels, uint8 (3×s×s), or data yet to decode."""
Launched = tuple[list[ImageRow], list[Tensor]]
"""Rows that are being embedded, and their embeddings."""


@dataclass
class RowReader:
    """Reads one row's image; runs in threads and never raises.

    by_content: an embedding of the same content that the store holds, if any. decode: here, else the model's device
    decodes, a batch at a time. frame: of files that have several, see :class:`pipeline.store.schemas.Manifest`.
    """

    inputs: Mapping[str, Input]
    preprocessing: ClipPreprocessing
    by_content: Callable[[str], KnownRow | None]
    max_pixels: int = MAX_PIXELS
    decode: bool = True
    frame: Frame | None = None

    def __call__(self, row: ImageRow) -> Read | None:
        """What to embed, where the content is new; else ``row`` is settled."""
        known, row.known = row.known, None
        try:
            data = self.inputs[row.source].read(row.path, row.offset, row.bytes)
            row.bytes, row.sha256 = len(data), sha256_bytes(data)
            if known is not None and known.ok and known.sha256 == row.sha256:
                row.known = known
            else:
                row.known = self.by_content(row.sha256)
            if row.known is not None:
                return None
            if not self.decode:
                return data
            decoded = decode_for_clip(data, self.preprocessing, self.max_pixels, self.frame)
        except ImageError as error:
            row.fail(error.reason)
            return None
        except MemoryError:
            row.fail("not enough memory to read it")
            return None
        row.width, row.height = decoded.width, decoded.height
        return decoded.pixels


class EmbeddingSteps:
    """See :class:`pipeline.computing.engines.BatchSteps`."""

    def __init__(self, clip: ClipModel, reader: RowReader) -> None:
        self._encoder, self._reader = BatchEncoder(clip), reader
        self.read: Callable[[ImageRow], Read | None] = reader
        self.device, self.notes = clip.device, self._encoder.notes

    def launch(self, batch: Sequence[tuple[ImageRow, Read]]) -> Launched:
        decoded = [(row, image) for row, image in batch if isinstance(image, Tensor)]
        decoded += self._decode_on_device([(row, image) for row, image in batch if isinstance(image, bytes)])
        results = self._encoder.launch([pixels for _, pixels in decoded]) if decoded else []
        return [row for row, _ in decoded], results

    def _decode_on_device(self, batch: Sequence[tuple[ImageRow, bytes]]) -> list[tuple[ImageRow, Tensor]]:
        if not batch:
            return []
        from pipeline.decoding.gpu_decode import decode_batch

        reader, datas = self._reader, [data for _, data in batch]
        images = decode_batch(datas, reader.preprocessing, self.device, reader.max_pixels, reader.frame)
        decoded = []
        for (row, _), image in zip(batch, images, strict=True):
            if isinstance(image, ImageError):
                row.fail(image.reason)
            else:
                row.width, row.height = image.width, image.height
                decoded.append((row, image.pixels))
        return decoded

    def collect(self, launched: Launched) -> Iterable[Chore]:
        """Give the rows their embeddings, float32 (n×k); one that is not finite is a failure."""
        rows, results = launched
        if not rows:
            return ()
        for row, embedding in zip(rows, torch.cat(results).cpu().numpy(), strict=True):
            if np.isfinite(embedding).all():
                row.embedding, row.status = embedding, "ok"
            else:
                row.fail("its embedding is not finite")
        return ()


def local_engine(
    clip: ClipModel, reader: RowReader, batch_size: int, workers: int
) -> PipelinedEngine[ImageRow, Read, Launched]:
    """What embeds on this machine."""
    remote = any(is_url(source) for source in reader.inputs)
    small = clip.towers.image_parameters <= _SMALL
    return PipelinedEngine(EmbeddingSteps(clip, reader), batch_size, workers, remote=remote, small=small)
