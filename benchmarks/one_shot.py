"""A domain of which training saw one image or none: does one-shot translation draw it, and LANIT by ``--reference``?

Drawn faces without black hair are labelled by the words of the others; ONE is a face with black hair. One-shot learns
blond hair and ONE; LANIT learns the words, and translates blond faces in the style of ONE alone, once with all labels
that CLIP reads in ONE and once with the blond hair removed. ``python -m benchmarks.one_shot --work DIR``; the judge was
trained on drawn truth, and faces that it looks at are of a world that no training saw.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import lanit
from pipeline.decoding.grids import labelled_grid, write_png
from pipeline.sample_world.evaluation import EVALUATION_SEED
from pipeline.sample_world.faces import ATTRIBUTES, HAIR, draw_face, sample_face
from pipeline.sample_world.judge import load_judge

_BLOND, _BLACK = (ATTRIBUTES.index(name) for name in ("blond hair", "black hair"))
_WORLD, _ONE, _SIZE = 11, 2009, 32
_JUDGED = range(1000, 1300)
_OTHERS = [column for column in range(len(ATTRIBUTES)) if column >= len(HAIR)]


def write_face(path: Path, world: int, index: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_face(sample_face(world, index), _SIZE)).save(path)


def show(name: str, sources: Sequence[Image.Image], made: Sequence[Image.Image], truth: np.ndarray, grid: Path) -> None:
    """A line: the share in which the judge sees black hair, and how many of the words but hair it sees as drawn."""
    seen = load_judge().predict(np.stack([np.asarray(picture) for picture in made]))
    kept = (seen == truth)[:, _OTHERS].mean()
    print(f"{name:34} black hair seen {seen[:, _BLACK].mean():.3f}  others kept {kept:.3f}", flush=True)
    rows = [np.stack([np.asarray(a), np.asarray(b)]) for a, b in zip(sources[:10], made[:10], strict=True)]
    write_png(grid, labelled_grid(rows, ["source", "translation"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=3000)
    parser.add_argument("--one-steps", type=int, default=1600)
    parser.add_argument("--lanit-steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    work, one = given.work, given.work / "one.png"
    write_face(one, EVALUATION_SEED, _ONE)
    for index in range(given.faces):
        if not sample_face(_WORLD, index).truth[_BLACK]:
            write_face(work / "faces" / f"{index:05d}.png", _WORLD, index)
    words = [name for name in ATTRIBUTES if name != "black hair"]
    labels = lanit.embed(work / "faces", work / "store", clip="sample").label(words, noun="face")
    drawn = [face for index in _JUDGED if (face := sample_face(EVALUATION_SEED, index)).truth[_BLOND]]
    sources = [Image.fromarray(draw_face(face, _SIZE)) for face in drawn]
    truth = np.stack([face.truth for face in drawn])
    seed = {"seed": given.seed}
    show("untouched", sources, sources, truth, work / "untouched.png")

    small = {"batch_size": 8, "channels": 16, "learning_rate": 5e-4, "precision": "float32"}
    run = lanit.train(
        labels, work / f"one-shot-{given.one_steps}-{given.seed}", preset="small-32", method="one-shot",
        present="blond hair", example=one, steps=given.one_steps, settings=small | seed,
    )  # fmt: skip
    made = run.model.translate_batch(sources, remove="blond hair")
    show("one-shot", sources, made, truth, work / "one-shot.png")

    run = lanit.train(
        labels, work / f"lanit-{given.lanit_steps}-{given.seed}", preset="small-32", steps=given.lanit_steps,
        settings=seed,
    )  # fmt: skip
    made = run.model.translate_batch(sources, reference=one)
    show("LANIT, --reference ONE", sources, made, truth, work / "lanit-labels.png")
    made = run.model.translate_batch(sources, remove="blond hair", reference=one)
    show("LANIT, that, --remove blond hair", sources, made, truth, work / "lanit-removed.png")


if __name__ == "__main__":
    main()
