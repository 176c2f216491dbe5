"""The README's picture: drawn faces beside their translations, ``python -m pipeline.sample_world.picture FILE``."""

from __future__ import annotations

import argparse
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.api import Model
from pipeline.decoding.grids import labelled_grid, write_png
from pipeline.sample_world.faces import draw_face, sample_face

PICTURE_SEED = 707  # its world: no model learned from it, and none was chosen by it
ADDED = (("smiling",), ("eyeglasses",), ("wearing hat",), ("red hair",), ("mustache",), ("smiling", "eyeglasses"))
FACES = 4


def picture(model: Model) -> np.ndarray:
    """Uint8 (H×W×3): the first faces of their world that have none of what is added, each beside its translations."""
    wanted = {name for names in ADDED for name in names}
    chosen = (face for face in (sample_face(PICTURE_SEED, index) for index in count())
              if not any(face.has(name) for name in wanted))  # fmt: skip
    drawn = [draw_face(face, model.image_size) for face in islice(chosen, FACES)]
    faces = [Image.fromarray(face) for face in drawn]
    columns = [faces, *(model.translate_batch(faces, add=names) for names in ADDED)]
    rows = [np.stack([np.asarray(column[row]) for column in columns]) for row in range(FACES)]
    return labelled_grid(rows, ["as drawn", *(" ".join(f"+{name}" for name in names) for names in ADDED)], cell=112)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("out", type=Path, metavar="FILE")
    write_png(parser.parse_args().out, picture(Model("sample")))


if __name__ == "__main__":
    main()
