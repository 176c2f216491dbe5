"""What is done with the images of a run that translates: read, translated, written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.clip.fingerprint import Fingerprint
from pipeline.clip.models import ClipModel
from pipeline.computing.engines import Chore, LocalEngine, PipelinedEngine, ThreadedEngine
from pipeline.computing.halving import HalvingBatches, to_device
from pipeline.decoding.frames import Frame
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.limits import MAX_PIXELS, ImageError
from pipeline.decoding.squares import fit_square
from pipeline.inputs.places import Input
from pipeline.models.translator import Translator
from pipeline.translating.naming import SCRATCH_NAME, tagged
from pipeline.translating.pictures import PictureWriter, encode_film, encode_picture
from pipeline.translating.recipe import BatchTranslator, Look, Recipe, Translations, describe
from pipeline.translating.source_images import ResultRow, SourceImage


@dataclass(frozen=True)
class TranslateJob:
    """What a process that translates needs to know, here or on a cluster.

    clip: spec, and fingerprint, of the CLIP that looks; none for none. look: at what. sources: inputs with their image
    columns. out: the folder, for a cluster absolute, which every node sees. threads: that read and write.
    """

    model: str
    model_sha256: str
    recipe: Recipe
    clip: str | None
    look: Look
    fingerprint: Fingerprint | None
    sources: tuple[tuple[str, str | None], ...]
    out: str
    tags: tuple[str, ...]
    batch_size: int
    max_pixels: int
    threads: int
    processors: int
    device: str
    frame: Frame | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """pixels: uint8 (S×S×3). width, height: of the image before, upright."""

    pixels: np.ndarray
    width: int
    height: int


@dataclass(frozen=True)
class Reader:
    """Reads one image as the model sees it: the middle square, resized to ``size``. Runs in threads."""

    inputs: Mapping[str, Input]
    size: int
    max_pixels: int = MAX_PIXELS
    frame: Frame | None = None

    @classmethod
    def of(cls, job: TranslateJob, inputs: Mapping[str, Input], size: int) -> Reader:
        return cls(inputs, size, job.max_pixels, job.frame)

    def __call__(self, image: SourceImage) -> Decoded | str:
        """Why it cannot be read, instead of pixels, where it cannot."""
        try:
            data = self.inputs[image.source].read(image.path, image.offset, image.bytes)
            pixels = decode_rgb(data, self.max_pixels, self.frame)
        except ImageError as error:
            return error.reason
        except MemoryError:
            return "not enough memory to read it"
        return Decoded(fit_square(pixels, self.size), pixels.shape[1], pixels.shape[0])


Read = Decoded | str
Launched = tuple[list[SourceImage], list[Translations]]
"""Images that could be read, and what is made of consecutive pieces of them."""


class TranslatingSteps:
    """See :class:`pipeline.computing.engines.BatchSteps`. An image that cannot be read counts in its batch, so that
    whoever reads it the batches are the same."""

    def __init__(self, translate: BatchTranslator, reader: Reader, writer: PictureWriter, tags: Sequence[str]) -> None:
        """tags: what tells the results of one image apart."""
        self._translate, self._writer, self._tags = translate, writer, tags
        self._batches = HalvingBatches(self._make)
        self.read: Callable[[SourceImage], Read] = reader
        self.device, self.notes = translate.translator.device, self._batches.notes

    def launch(self, batch: Sequence[tuple[SourceImage, Read]]) -> Launched:
        good, pixels = list[SourceImage](), list[np.ndarray]()
        styles = range(1, len(self._tags) + 1) if len(self._tags) > 1 else [None]
        for image, decoded in batch:
            if isinstance(decoded, str):
                image.fail(decoded)
                continue
            image.rows = [ResultRow(style, width=decoded.width, height=decoded.height) for style in styles]
            good.append(image)
            pixels.append(decoded.pixels)
        return good, self._batches.launch(pixels) if good else []

    def _make(self, pixels: Sequence[np.ndarray]) -> Translations:
        """pixels: uint8 (S×S×3) each."""
        return self._translate(to_device(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), self.device))

    def collect(self, launched: Launched) -> Iterator[Chore]:
        """The rows are then described; writing the results is left."""
        images, pieces = launched
        start = 0
        for made in pieces:
            pictures = made.pictures.cpu().numpy()
            piece = images[start : start + pictures.shape[2]]
            start += len(piece)
            self._describe(piece, made)
            for position, image in enumerate(piece):
                for style, row in enumerate(image.rows):
                    yield partial(self._write, image, row, pictures[style, :, position])

    def _write(self, image: SourceImage, row: ResultRow, frames: np.ndarray) -> None:
        """frames: uint8 (F×S×S×3)."""
        name = tagged(image.output, self._tags[(row.style or 1) - 1])
        is_film = self._translate.recipe.frames is not None
        data = encode_film(frames, name) if is_film else encode_picture(frames[0], name)
        trouble = self._writer.write(name, data, threading.get_ident())
        if trouble:
            row.fail(trouble)
        else:
            row.status, row.output, row.output_bytes = "ok", name, len(data)

    def _describe(self, images: Sequence[SourceImage], made: Translations) -> None:
        """Fill in what was asked for and what CLIP sees."""
        translator, said = self._translate.translator, self._translate.recipe.requested
        targets = made.targets.cpu()
        wanted = targets.numpy() > 0
        for position, image in enumerate(images):
            requested = describe(targets[position], translator.domains) if said is None else said
            for row in image.rows:
                row.requested, row.target = requested, wanted[position]
        if made.before is not None:
            margins, names = made.before.cpu().numpy(), _names(translator.prompts.active(made.before), translator)
            for position, image in enumerate(images):
                for row in image.rows:
                    row.before, row.before_margins = names[position], margins[position]
        for style, of_style in enumerate(() if made.after is None else made.after):
            margins, names = of_style.cpu().numpy(), _names(translator.prompts.active(of_style), translator)
            for position, image in enumerate(images):
                image.rows[style].after, image.rows[style].margins = names[position], margins[position]


def _names(active: Tensor, translator: Translator) -> list[str]:
    """Labels, bool (B×N), as texts."""
    return [
        ", ".join(name for name, on in zip(translator.domains, row, strict=True) if on) for row in active.cpu().tolist()
    ]


def local_engine(
    job: TranslateJob, translator: Translator, clip: ClipModel | None, reader: Reader
) -> LocalEngine[SourceImage, Read, Launched]:
    """What translates in this process, by the device of the model. clip: what looks at images, none for nothing."""
    out = Path(job.out)
    translate = BatchTranslator(translator, job.recipe, clip, job.look)
    steps = TranslatingSteps(translate, reader, PictureWriter(out, out / SCRATCH_NAME), job.tags)
    kind = ThreadedEngine if steps.device.type == "cpu" else PipelinedEngine
    return kind(steps, job.batch_size, job.threads)
