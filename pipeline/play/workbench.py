"""What the page does with a picture: read its labels, tick words, redraw it. Knows no page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lanit.errors import LanitError
from pipeline.api import Labels, Model
from pipeline.decoding.grids import to_float, write_png
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.squares import fit_square
from pipeline.play.familiarity import Familiarity
from pipeline.sample_world.faces import draw_face, sample_face
from pipeline.store.store import Store

MOST_STYLES = 6
_KNOWN = 256
_EXAMPLES = 12
_FACE_PIXELS = 128
_WORLD = 20260


@dataclass(frozen=True)
class Reading:
    """What is read in a picture. square: uint8 (S×S×3), the middle square that the generator takes. labels: its own.
    familiar: whether it looks like those that the model knows; none where nobody can tell."""

    square: np.ndarray
    labels: Labels
    familiar: bool | None


@dataclass(frozen=True)
class Result:
    """A redrawn picture, uint8 (S×S×3), and what is read in it."""

    picture: np.ndarray
    labels: Labels


@dataclass(frozen=True)
class Wish:
    """What to make of a picture. weights: of the words that the result shall have, and no others. reference: a file
    whose style to take. keep: whether words that the picture has keep its own style. seed, styles: of drawn styles."""

    weights: Mapping[str, float]
    reference: Path | None = None
    keep: bool = True
    seed: int = 0
    styles: int = 1


class Workbench:
    """A model, with pictures that it knows where some are at hand.

    known: uint8 (n×H×H×3), in random order. Raises LanitError where the model's CLIP cannot be had.
    """

    def __init__(self, model: Model, known: np.ndarray | None = None) -> None:
        self.model = model
        self._familiarity = None
        if known is not None and len(known) >= 8:
            squares = np.stack([fit_square(image, model.image_size) for image in known])
            self._familiarity = Familiarity(model.content, to_float(squares).to(model.device))
        model.label(np.zeros((8, 8, 3), np.uint8))  # fails here and now, rather than before a visitor

    def read(self, path: Path) -> Reading:
        """Raises LanitError where the file is no picture that can be read."""
        square = fit_square(decode_rgb(path), self.model.image_size)
        familiar = None
        if self._familiarity is not None:
            batch = to_float(square[None]).to(self.model.device)
            familiar = float(self._familiarity.distances(batch)) <= self._familiarity.limit
        return Reading(square, self.model.label(square), familiar)

    def tick(self, before: Collection[str], after: Sequence[str]) -> tuple[str, ...]:
        """The words ticked once those that exclude a newly ticked one have given way to it (METHOD 1)."""
        new = [word for word in after if word not in before]
        gone = {other for word in new for other in self.model.exclusive(word)} - set(new)
        return tuple(word for word in self.model.domains if word in after and word not in gone)

    def redraw(self, reading: Reading, wish: Wish) -> list[Result]:
        """``wish.styles`` results, one where a reference gives the style. Raises LanitError where it cannot be read."""
        own = reading.labels.active if wish.keep else ()
        styles = 1 if wish.reference is not None else wish.styles
        made = self.model.mix(reading.square, wish.weights, own, wish.reference, wish.seed, styles)
        pictures = [np.asarray(picture) for picture in made]
        return [Result(*pair) for pair in zip(pictures, self.model.label_batch(pictures), strict=True)]


def drawn_faces() -> np.ndarray:
    """Pictures that the sample model knows: uint8 (n×H×H×3)."""
    return np.stack([draw_face(sample_face(_WORLD, index), _FACE_PIXELS) for index in range(_KNOWN)])


def stored_pictures(store: Path, size: int) -> np.ndarray:
    """Pictures drawn from those of a store that a model learned from, uint8 (n×size×size×3).

    Raises LanitError where the store, or a picture of it, cannot be read."""
    from pipeline.evaluation.sample import read_rows

    opened = Store.open(store)
    if opened.ok == 0:
        raise LanitError(f"the store {store} has no images", "Leave out --store.")
    rows = np.random.default_rng(0).permutation(opened.ok)[:_KNOWN]
    return read_rows(opened, rows, size)


def write_examples(known: np.ndarray, folder: Path) -> list[Path]:
    """The first of the known pictures, uint8 (n×H×H×3), as files to pick from."""
    paths = [folder / f"example-{number + 1}.png" for number in range(min(_EXAMPLES, len(known)))]
    for path, image in zip(paths, known, strict=False):
        write_png(path, image)
    return paths
