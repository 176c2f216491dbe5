"""A few pictures and what a model makes of them, for its card and page: drawn ones, or those its owner names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from lanit.errors import LanitError
from pipeline.api import Model
from pipeline.decoding.grids import labelled_grid
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.limits import ImageError
from pipeline.decoding.squares import fit_square
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.places import listed
from pipeline.models.bundle import Bundle, load_bundle
from pipeline.sample_world.faces import draw_face, sample_face

MOST = 4
_MOST_WORDS = 6
_WORLD, _FACE_PIXELS = 20261, 256
_CELL = (96, 160)  # pixels of a picture in the grid: at least, at most


@dataclass(frozen=True)
class Examples:
    """sources: uint8 (n×S×S×3), middle squares at the model's size. words: of the columns beside them. grid: uint8
    (H×W×3), a row for each source: it, then it with each of the words."""

    sources: np.ndarray
    words: tuple[str, ...]
    grid: np.ndarray


def make_examples(
    model: str | Path, bundle: Bundle, pictures: Sequence[str | Path], clip: str | None
) -> Examples | None:
    """Examples of the first pictures that inputs name, of drawn faces for a model of the sample world where none do,
    else none: pictures that a model learned from are not shown unasked.

    pictures: as ``lanit embed`` takes its inputs. Raises LanitError where one cannot be read, or where the model's
    CLIP, which says what a picture shows already, cannot be had.
    """
    if pictures:
        sources = _named(pictures, bundle.options.image_size)
    elif bundle.fingerprint == load_bundle("sample").fingerprint:
        sources = _drawn(bundle.options.image_size)
    else:
        return None
    loaded = Model(model, device="cpu", clip=clip)
    words = _diverse(loaded)
    made = [[np.asarray(image) for image in loaded.translate_batch(list(sources), add=[word])] for word in words]
    rows = np.stack([sources, *map(np.stack, made)], axis=1)
    cell = min(max(bundle.options.image_size, _CELL[0]), _CELL[1])
    return Examples(sources, words, labelled_grid(list(rows), ("source", *words), cell))


def _diverse(model: Model) -> tuple[str, ...]:
    """Some of a model's words, in its order: rather those that can stand beside each other than ten colours of hair."""
    chosen: list[str] = []
    for word in model.domains:
        if not set(model.exclusive(word)) & set(chosen):
            chosen.append(word)
    chosen += [word for word in model.domains if word not in chosen]
    return tuple(word for word in model.domains if word in chosen[:_MOST_WORDS])


def _drawn(size: int) -> np.ndarray:
    faces = [draw_face(sample_face(_WORLD, index), _FACE_PIXELS) for index in range(MOST)]
    return np.stack([fit_square(face, size) for face in faces])


def _named(inputs: Sequence[str | Path], size: int) -> np.ndarray:
    found: list[np.ndarray] = []
    for source in open_inputs(inputs):
        places = sorted(listed(source), key=lambda place: (place.path, place.offset or 0))
        for place in islice(places, MOST - len(found)):
            try:
                image = decode_rgb(source.read(place.path, place.offset, place.bytes))
            except ImageError as error:
                raise LanitError(f"cannot read {place.path}: {error.reason}", "Give another --example.") from error
            found.append(fit_square(image, size))
    return np.stack(found)
