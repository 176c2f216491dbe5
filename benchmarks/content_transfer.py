"""What becomes of drawn faces when a word is added from a guide and removed, in the eyes of a judge of the truth.

``python -m benchmarks.content_transfer MODEL... --word eyeglasses --grid look.png``. Faces are of a world that no model
saw. Every model does it as ``lanit translate --add --reference`` and ``--remove`` do, own labels read by its CLIP.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lanit.inference import edited, translate
from pipeline.clip.models import ClipModel
from pipeline.decoding.grids import labelled_grid, to_float, to_uint8, write_png
from pipeline.models.bundle import load_bundle
from pipeline.models.translator import Translator, load_labeller
from pipeline.sample_world.evaluation import EVALUATION_SEED
from pipeline.sample_world.faces import ATTRIBUTES, Face, draw_face, sample_face
from pipeline.sample_world.judge import load_judge, open_to_change
from pipeline.showing import console

_CPU = torch.device("cpu")
_COLOUR = 22  # of a face's content: the colour of its frames
_SHOWN = 10


class Faces:
    """Those with the word, and those without, each of which is given one of the former as a guide."""

    def __init__(self, first: int, count: int, word: str, size: int) -> None:
        faces = [sample_face(EVALUATION_SEED, index) for index in range(first, first + count)]
        self.column, self.size = ATTRIBUTES.index(word), size
        self.present = [face for face in faces if face.truth[self.column]]
        self.absent = [face for face in faces if not face.truth[self.column]]
        self.guides = np.random.default_rng(0).integers(0, len(self.present), len(self.absent))

    def drawn(self, faces: list[Face]) -> np.ndarray:
        """uint8 (n×S×S×3)."""
        return np.stack([draw_face(face, self.size) for face in faces])

    def turned(self, face: Face, guide: Face | None) -> Face:
        """The same face without the word, or with it and, of eyeglasses, with frames of the guide's colour."""
        truth, content = np.array(face.truth), np.array(face.content)
        truth[self.column] = guide is not None
        if guide is not None and ATTRIBUTES[self.column] == "eyeglasses":
            content[_COLOUR] = guide.content[_COLOUR]
        return replace(face, truth=truth, content=content)


@torch.no_grad()
def changed(
    translator: Translator, clip: ClipModel, pictures: np.ndarray, word: str, guides: np.ndarray | None
) -> np.ndarray:
    """The word added from guides, uint8 (n×S×S×3), or removed where there are none."""
    images, networks = to_float(pictures), translator.networks
    own = translator.labels(images, clip)
    named = torch.arange(len(translator.domains)) == translator.column(word)
    nothing = torch.zeros_like(named)
    add, remove = (nothing, named) if guides is None else (named, nothing)
    target = edited(own, add.float(), remove, translator.exclusive)
    codes: Tensor = networks.own_codes(images if guides is None else to_float(guides))
    return to_uint8(translate(networks, images, target, codes[None])[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--word", default="eyeglasses")
    parser.add_argument("--faces", type=int, default=300)
    parser.add_argument("--first", type=int, default=1000, help="below, settings were chosen by how faces came out")
    parser.add_argument("--grid", type=Path)
    given = parser.parse_args()
    judge, rows = load_judge(), []
    for model in given.models:
        translator = Translator(load_bundle(model), _CPU)
        clip = load_labeller(translator.bundle, None, _CPU)
        faces = Faces(given.first, given.faces, given.word, translator.bundle.options.image_size)
        present, absent = faces.drawn(faces.present), faces.drawn(faces.absent)
        chosen = [faces.present[number] for number in faces.guides]
        removed = changed(translator, clip, present, given.word, None)
        added = changed(translator, clip, absent, given.word, present[faces.guides])
        row = [model]
        for made, sources, truths, guides in (
            (removed, present, faces.present, [None] * len(present)),
            (added, absent, faces.absent, chosen),
        ):
            seen, truth = judge.predict(made), np.stack([face.truth for face in truths])
            fixed = ~open_to_change(faces.column, truth)
            partners = faces.drawn([faces.turned(face, guide) for face, guide in zip(truths, guides, strict=True)])
            apart = [np.abs(each.astype(float) - partners).mean() for each in (made, sources)]
            kept = (seen == truth)[fixed].mean()
            row += [f"{seen[:, faces.column].mean():.3f}", f"{kept:.3f}", f"{apart[0] / apart[1]:.2f}"]
        rows.append(row)
        if given.grid:
            shown = slice(0, _SHOWN)
            columns = [present, removed, absent, present[faces.guides], added]
            grid = [list(cells) for cells in zip(*(column[shown] for column in columns), strict=True)]
            path = given.grid.with_stem(f"{given.grid.stem}-{Path(model).name}")
            write_png(path, labelled_grid(grid, ["source", "removed", "source", "guide", "added"]))
    columns = ("model", "left over", "kept", "L1 ÷ before", "added", "kept", "L1 ÷ before")
    console.table(
        f"{given.word} removed, then added from guides, on {given.faces} faces from {given.first} on", columns, rows
    )


if __name__ == "__main__":
    main()
