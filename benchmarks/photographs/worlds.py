"""Photographs of faces and of animals: a CLIP trained on captions of one half, and a store of the other half.

The CLIPs were trained for the purpose: they saw the words of the phrases, with photographs like those that they label.
Short training makes a poor one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.experiments import animals_models
from benchmarks.experiments.animals_data import read_animals
from benchmarks.experiments.worlds import truth_of
from benchmarks.photographs import faces_data
from benchmarks.small_clip import REPORT, channels_first, train_clip
from lanit.sentences import without_phrase
from pipeline.clip.models import ClipModel, load_clip
from pipeline.embedding.embed import embed
from pipeline.files import atomic_path
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.showing import console
from pipeline.stability.crops import make_views
from pipeline.stability.views import Views
from pipeline.store.store import Store

FACES, ANIMALS = "faces", "animals"
_FACES_TABLE = "celeba10k-train.parquet"
_ANIMALS_ROWS = 7_500  # half of the training rows


@dataclass(frozen=True)
class World:
    """Photographs with their truth. templates: ten, of which the first is what a user would write who has no others.

    table: of the half that is labelled, with the columns ``path`` and ``jpeg``; truth: bool (n×N); pictures: uint8 RGB
    (n×S×S×3).
    train: of a folder to write, steps and a seed. qualities: steps by name.
    """

    name: str
    phrases: tuple[str, ...]
    templates: tuple[str, ...]
    table: pa.Table
    truth: np.ndarray
    pictures: Callable[[], np.ndarray]
    train: Callable[[Path, int, int], None]
    qualities: dict[str, int]

    def prompts(self, template: str) -> PromptSet:
        return PromptSet(self.phrases, (template,), (without_phrase(template),), self.name)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """``images.parquet``, to be embedded, and ``truth.csv`` (path and a column for each phrase) in ``folder``."""
        images, truth = folder / "images.parquet", folder / "truth.csv"
        if images.is_file() and truth.is_file():
            return images, truth
        with atomic_path(images) as temporary:
            pq.write_table(self.table, temporary)
        rows = zip(self.table["path"].to_pylist(), self.truth.astype(int), strict=True)
        lines = [",".join(("path", *self.phrases)), *(",".join((path, *map(str, row))) for path, row in rows)]
        with atomic_path(truth) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return images, truth


@dataclass(frozen=True)
class Stored:
    """What one CLIP makes of a world, in the order of the images' ids: unit-norm embeddings, float32 (n×k), two crops
    of each, the truth, bool (n×N), and rows of the world."""

    clip: ClipModel
    embeddings: np.ndarray
    views: Views
    truth: np.ndarray
    rows: np.ndarray


def faces(data: Path) -> World:
    known, other = faces_data.read_faces(data / _FACES_TABLE)

    def train(out: Path, steps: int, seed: int) -> None:
        texts = (*known.phrases, *faces_data.CAPTIONS, "and")
        train_clip(out, channels_first(known.pictures()), known.caption, texts, steps, side=64, context=24, seed=seed)

    return World(
        name=FACES,
        phrases=tuple(faces_data.PHRASES.values()),
        templates=(
            "a photo of a face with {}.",
            "a face photo of {}.",
            "{}.",
            "a portrait with {}.",
            "an old painting of somebody with {} at night.",
            "a photo of a smiling face with {}.",
            "a face with blond hair and {}.",
            "a photo of a male face with {}.",
            "a face with eyeglasses and a hat, and {}.",
            "a close-up photo of heavy makeup, lipstick and {}.",
        ),
        table=other.table,
        truth=other.truth(),
        pictures=other.pictures,
        train=train,
        qualities={"short": 200, "medium": 500, "long": 1500},
    )


def animals(data: Path) -> World:
    known, other, _ = read_animals(data, _ANIMALS_ROWS, "cifar10-animals")

    def train(out: Path, steps: int, seed: int) -> None:
        animals_models.train_clip(out, known, steps, seed)

    return World(
        name=ANIMALS,
        phrases=known.names,
        templates=(
            "a photo of a {}.",
            "an image of the {}.",
            "{}.",
            "a small picture of a {}.",
            "an old painting of some wild {} at night.",
            "a photo of a frog and a {}.",
            "a photo of a cat and a {}.",
            "a bird, a deer and a {}.",
            "a photo of a {} with a dog.",
            "a blurry photo of the horse near the {}.",
        ),
        table=other.table,
        truth=other.truth(),
        pictures=other.pictures,
        train=train,
        qualities={"short": 200, "medium": 600, "long": 2000},
    )


def stored(world: World, work: Path, quality: str, seed: int) -> Stored:
    """Trained, embedded and cropped, unless the work folder has it: ``WORLD/QUALITY-SEED/`` with ``clip`` and
    ``store``."""
    folder = work / world.name / f"{quality}-{seed}"
    images, truth = world.write(work / world.name)
    clip_folder, store_folder = folder / "clip", folder / "store"
    if not (clip_folder / REPORT).is_file():
        console.note(f"training a CLIP of {world.name}, {world.qualities[quality]} steps, seed {seed}")
        world.train(clip_folder, world.qualities[quality], seed)
    clip = load_clip(str(clip_folder))
    embed([images], store_folder, clip)
    store = Store.open(store_folder)
    views = make_views(store, clip, most=store.ok)
    table = store.images(["image_id", "path"])
    order = np.argsort(table["image_id"].to_numpy())
    place = {path: row for row, path in enumerate(world.table["path"].to_pylist())}
    rows = np.array([place[path] for path in table["path"].to_pylist()])[order]
    return Stored(clip, store.embeddings()[order], views, truth_of(store, truth, world.phrases)[order], rows)
