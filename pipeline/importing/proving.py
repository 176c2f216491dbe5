"""Whether embeddings are those that a CLIP gives the images: some are embedded again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lanit.errors import LanitError
from pipeline.clip.batch_encoder import BatchEncoder
from pipeline.decoding.clip_input import decode_for_clip
from pipeline.decoding.limits import ImageError
from pipeline.embedding.image_rows import ImageRow
from pipeline.importing.pairing import Pairing

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.embedding.embedding_steps import RowReader

SAMPLED = 200
LEAST_COSINE = 0.999
_SPARE = 200  # more that are drawn, for those that cannot be read
_BATCH = 50


@dataclass(frozen=True)
class Proof:
    """Of ``sampled`` images: the cosine of the embedding that was given to the one that CLIP gives now."""

    sampled: int
    median: float
    least: float


class Sample:
    """Some of a stream of images, each as likely as any other; the same with the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._seen = 0
        self._kept: list[tuple[ImageRow, int]] = []

    def offer(self, image: ImageRow, row: int) -> None:
        """row: of its embedding."""
        self._seen += 1
        if len(self._kept) < SAMPLED + _SPARE:
            self._kept.append((image, row))
        elif (place := int(self._random.integers(self._seen))) < len(self._kept):
            self._kept[place] = (image, row)

    def drawn(self) -> list[tuple[ImageRow, int]]:
        """In random order."""
        return [self._kept[number] for number in self._random.permutation(len(self._kept))]


def prove(sample: Sample, pairing: Pairing, clip: ClipModel, reader: RowReader) -> Proof:
    """Embed images again until :data:`SAMPLED` have been. Raises LanitError where one is too far from what was given,
    and where none can be read."""
    cosines: list[float] = []
    failures: list[str] = []
    worst: tuple[float, str] = (np.inf, "")
    decoded = _decoded(sample, reader, failures)
    while batch := list(islice(decoded, _BATCH)):
        expected = pairing.vectors([row for _, row, _ in batch])
        found = torch.cat(BatchEncoder(clip).launch([pixels for _, _, pixels in batch])).cpu().numpy()
        for (image, _, _), cosine in zip(batch, (found * expected).sum(axis=1).tolist(), strict=True):
            cosines.append(cosine)
            worst = min(worst, (cosine, f"{image.path} of {image.source}"))
    if not cosines:
        raise LanitError(
            f"none of the images of the embeddings can be read ({failures[0]})",
            "Name the folder, the tars or the table where they are, after what holds the embeddings.",
        )
    proof = Proof(len(cosines), float(np.median(cosines)), worst[0])
    if not proof.least >= LEAST_COSINE:
        raise _refusal(proof, worst[1], clip, sum(cosine < LEAST_COSINE for cosine in cosines))
    return proof


def _decoded(sample: Sample, reader: RowReader, failures: list[str]) -> Iterator[tuple[ImageRow, int, Tensor]]:
    """Images with the rows of their embeddings and their pixels; what cannot be read is added to ``failures``."""
    count = 0
    for image, row in sample.drawn():
        if count == SAMPLED:
            return
        try:
            data = reader.inputs[image.source].read(image.path, image.offset, image.bytes)
            pixels = decode_for_clip(data, reader.preprocessing, reader.max_pixels, reader.frame).pixels
        except ImageError as error:
            failures.append(f"{image.path}: {error.reason}")
            continue
        count += 1
        yield image, row, pixels


def _refusal(proof: Proof, worst: str, clip: ClipModel, wrong: int) -> LanitError:
    message = (
        f"these are not the embeddings that {clip.spec} gives: of {proof.sampled} images embedded again, {wrong} are "
        f"below a cosine of {LEAST_COSINE} (median {proof.median:.4f}, least {proof.least:.4f}: {worst})"
    )
    if proof.median >= LEAST_COSINE:
        return LanitError(message, "Most are: images changed since, or rows and names that do not belong together.")
    hint = "Name the model that made them: --clip NAME/TAG; of OpenAI's also in its variant, such as ViT-B-32/openai."
    return LanitError(message, hint)


def check_length(name: str, dim: int, clip: ClipModel) -> None:
    """Raises LanitError where a CLIP gives embeddings of another length."""
    if dim != clip.fingerprint.embedding_dim:
        raise LanitError(
            f"the embeddings in {name} are of {dim} numbers, those of {clip.spec} of {clip.fingerprint.embedding_dim}",
            f"Name the model that made them: --clip {_of_length(dim)}",
        )


def _of_length(dim: int) -> str:
    """Models of OpenAI's whose embeddings are so long; any where there are none."""
    import open_clip

    names: Sequence[str] = open_clip.list_openai_models()
    configs = {name: open_clip.get_model_config(name) for name in names}
    fitting = [f"{name}/openai" for name, config in configs.items() if config and config["embed_dim"] == dim]
    return " or ".join(fitting) or "NAME/TAG"
