"""The worlds that experiments run in: images to train on, images held out, their truth, a CLIP and a judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import small_clip
from benchmarks.experiments import animals_models
from benchmarks.experiments.animals_data import AnimalTable, read_animals, read_large_animals, write_table
from benchmarks.experiments.animals_models import Photographs
from benchmarks.experiments.plan import Plan
from benchmarks.photographs import faces_data
from lanit.sentences import without_phrase
from pipeline.clip.models import ClipModel, load_clip
from pipeline.decoding.grids import to_float
from pipeline.decoding.squares import fit_square
from pipeline.embedding.embed import embed
from pipeline.labelling.known_labels import image_keys, read_truth
from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
from pipeline.sample_world.dataset import TRUTH_NAME, write_faces
from pipeline.sample_world.evaluation import EVALUATION_SEED
from pipeline.sample_world.faces import HAIR, draw_faces
from pipeline.sample_world.judge import load_judge
from pipeline.sample_world.train_generator import GENERATOR_SEED
from pipeline.showing import console
from pipeline.store.store import Store

SIZE = 32
_BATCH = 250
_LEARNING = {"prompts_from": 0.7, "prompt_learning_rate": 2e-4, "refresh_every": 35}  # by pilots on seed 9
_NETWORKS = {"channels": 16, "max_channels": 64, "batch_size": 16}
"""Of every arm. As many images as the most clusters need; four times as many would cost a step four times the time."""
_POOR_FACES = ("a face with gray hair and {}.",)
_ANIMALS, _MAMMALS, _CELEBA = "cifar10-animals", "animals14", "celeba10k"  # what the tables are named
CELEBA = (*faces_data.PHRASES.values(), "bangs", "open mouth", "black hair")
CELEBA_SIZE = 64
_POOR_CELEBA = ("a photo of a male face with {}.",)
_POOR_ANIMALS = ("a photo of a frog and a {}.",)


@dataclass(frozen=True)
class Judge:
    """An independent classifier.

    view: what it recognises in images, float32 (B×3×S×S) in [-1, 1]: bool (B×N), and its last features, float32 (B×d).
    described: what it is and how often it is right on held-out images.
    """

    view: Callable[[Tensor], tuple[Tensor, Tensor]]
    described: str


@dataclass
class World:
    """Where an experiment runs.

    folder: of its store, tables and runs. prompts: as a user would write them; poor_prompts: with misleading templates.
    store: the images to train on; truth: theirs, bool (n×N), in store order; truth_table: the same as a file.
    pictures: uint8 (m×S×S×3), held out; held_truth: bool (m×N). options: changes to the preset;
    learning: those under which prompts learn.
    remark: what must be said wherever figures of this world stand. kinds: columns of the truth of which each image has
    just one, which clusters may be compared with; empty where there are none.
    """

    name: str
    folder: Path
    clip: ClipModel
    judge: Judge
    prompts: PromptSet
    poor_prompts: PromptSet
    store: Store
    truth_table: Path
    pictures: np.ndarray
    held_truth: np.ndarray
    preset: str
    options: Mapping[str, Any]
    learning: Mapping[str, Any]
    remark: str
    kinds: range = range(0)
    truth: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.truth = truth_of(self.store, self.truth_table, self.domains)
        self.held_embeddings = embed_pictures(self.clip, self.pictures)
        self.held_features = judged(self.judge, self.pictures)[1]

    @property
    def domains(self) -> tuple[str, ...]:
        return self.prompts.domains


def truth_of(store: Store, table: Path, domains: tuple[str, ...]) -> np.ndarray:
    """Known labels of the images of a store, in its order: bool (n×N)."""
    given = read_truth(table, domains)
    return given.values(given.align(*image_keys(store)), domains) == 1


@torch.no_grad()
def embed_pictures(clip: ClipModel, pictures: np.ndarray) -> np.ndarray:
    """Unit-norm embeddings, float32 (n×k), of uint8 (n×S×S×3)."""
    rows = [clip.encode_images(images) for images in to_float(pictures).split(_BATCH)]
    return torch.cat(rows).numpy()


@torch.no_grad()
def judged(judge: Judge, pictures: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """What the judge recognises, bool (n×N), in uint8 (n×S×S×3), and its features, float32 (n×d)."""
    seen, features = [], []
    for images in to_float(pictures).split(_BATCH):
        recognised, last = judge.view(images)
        seen.append(recognised)
        features.append(last)
    return torch.cat(seen).numpy(), torch.cat(features)


def sample_world(plan: Plan) -> World:
    """Drawn faces, labelled and judged by the models that lanit ships."""
    folder = plan.work / "sample"
    faces, store = folder / "faces", folder / "store"
    if not (faces / TRUTH_NAME).is_file():
        write_faces(faces, plan.images, GENERATOR_SEED, 64)
    clip = load_clip("sample")
    embed([faces], store, clip)
    pictures, truth = draw_faces(EVALUATION_SEED, range(plan.held_out), 64)
    prompts, judge = read_prompt_set("sample-faces"), load_judge()

    def view(images: Tensor) -> tuple[Tensor, Tensor]:
        maps = judge.features(F.interpolate(images, (64, 64), mode="bicubic", antialias=True, align_corners=False))
        return judge.head(maps) > 0, maps.mean(dim=(2, 3))

    return World(
        name="sample",
        folder=folder,
        clip=clip,
        judge=Judge(view, "the judge of the package, attributes of drawn faces"),
        prompts=prompts,
        poor_prompts=with_templates(prompts, _POOR_FACES),
        store=Store.open(store),
        truth_table=faces / TRUTH_NAME,
        pictures=fitted(pictures, SIZE),
        held_truth=truth,
        preset="small-32",
        options=_NETWORKS,
        learning=_LEARNING,
        remark="drawn faces; the CLIP of the package, which learned such faces and their words",
        kinds=range(len(HAIR)),
    )


def animals_world(plan: Plan, data: Path) -> World:
    """Photographs of six animals, 32 px."""
    return _world_of_classes("animals", plan, read_animals(data, name=_ANIMALS), "small-32", {"output": "image"})


def animals14_world(plan: Plan, data: Path) -> World:
    """Photographs of fourteen mammals, 64 px, of which the animal's box covers half at least."""
    return _world_of_classes("animals14", plan, read_large_animals(data, _MAMMALS, 64, 0.5), "photos-64", {})


def _world_of_classes(
    name: str, plan: Plan, tables: tuple[AnimalTable, ...], preset: str, options: Mapping[str, Any]
) -> World:
    """Photographs of one class each, in tables as of :func:`read_animals`; CLIP and judge are trained first, unless the
    work folder has them."""
    folder = plan.work / name
    clip_folder, store = folder / "clip", folder / "store"
    known, unlabelled, held_out = tables
    of_known, of_held = (Photographs(part.pictures(), part.truth()) for part in (known, held_out))
    judge = judge_of(folder / "judge", known.names, of_known, of_held, plan.judge_epochs)
    if not (clip_folder / "training.json").is_file():
        console.note(f"training the CLIP of {name}, {plan.clip_steps} steps")
        animals_models.train_clip(clip_folder, known, plan.clip_steps)
    table, truth = unlabelled.write(folder)
    clip = load_clip(str(clip_folder))
    embed([table], store, clip)
    prompts = PromptSet(
        known.names, animals_models.TEMPLATES, tuple(map(without_phrase, animals_models.TEMPLATES)), name
    )
    return World(
        name=name,
        folder=folder,
        clip=clip,
        judge=judge,
        prompts=prompts,
        poor_prompts=with_templates(prompts, _POOR_ANIMALS),
        store=Store.open(store),
        truth_table=truth,
        pictures=of_held.pictures,
        held_truth=of_held.truth,
        preset=preset,
        options={**_NETWORKS, **options},
        learning=_LEARNING,
        remark="photographs; its CLIP was trained for this purpose on other photographs with captions that name "
        "their class, so it saw class names",
        kinds=range(len(known.names)),
    )


def celeba_world(plan: Plan, data: Path) -> World:
    """Faces of CelebA with thirteen attributes; CLIP and judge are trained on one half, the other is unlabelled."""
    folder = plan.work / "celeba"
    clip_folder, store = folder / "clip", folder / "store"
    known, unlabelled = faces_data.read_faces(data / f"{_CELEBA}-train.parquet")
    held_out = faces_data.read_held_out(data / f"{_CELEBA}-test.parquet")
    of_known, of_held = (
        Photographs(fitted(part.pictures(), CELEBA_SIZE), part.truth(CELEBA)) for part in (known, held_out)
    )
    judge = judge_of(folder / "judge", CELEBA, of_known, of_held, plan.judge_epochs)
    if not (clip_folder / "training.json").is_file():
        console.note(f"training the CLIP of CelebA, {plan.clip_steps} steps")
        texts = (*known.phrases, *faces_data.CAPTIONS, "and")
        pictures = small_clip.channels_first(known.pictures())
        small_clip.train_clip(clip_folder, pictures, known.caption, texts, plan.clip_steps, side=64, context=24)
    table, truth = write_table(folder, unlabelled.table, CELEBA, unlabelled.truth(CELEBA))
    clip = load_clip(str(clip_folder))
    embed([table], store, clip)
    prompts = PromptSet(
        CELEBA, faces_data.CAPTIONS[:1], tuple(map(without_phrase, faces_data.CAPTIONS[:1])), "celeba-13"
    )
    return World(
        name="celeba",
        folder=folder,
        clip=clip,
        judge=judge,
        prompts=prompts,
        poor_prompts=with_templates(prompts, _POOR_CELEBA),
        store=Store.open(store),
        truth_table=truth,
        pictures=of_held.pictures,
        held_truth=of_held.truth,
        preset="photos-64",
        options=_NETWORKS,
        learning=_LEARNING,
        remark="faces of CelebA; its CLIP was trained for this purpose on other faces with captions made of their "
        "attributes, so it saw these words",
    )


WORLDS: Mapping[str, Callable[[Plan, Path], World]] = {
    "animals": animals_world,
    "animals14": animals14_world,
    "celeba": celeba_world,
}
"""Of photographs: what makes each of a plan and the folder of the tables."""


def judge_of(folder: Path, names: tuple[str, ...], known: Photographs, held_out: Photographs, epochs: int) -> Judge:
    """Trained on true labels, unless the folder has it."""
    if not (folder / "training.json").is_file():
        console.note(f"training the judge in {folder}, {epochs} epochs")
        animals_models.train_judge(folder, names, known, held_out, epochs)
    judge, report = animals_models.load_plain_judge(folder), animals_models.training_report(folder)

    def view(images: Tensor) -> tuple[Tensor, Tensor]:
        features = judge.trunk(images)
        return animals_models.recognised(judge.head(features), classes=report["classes"]), features

    what = "classes, right on" if report["classes"] else "attributes, right (with and without each, on average) on"
    described = (
        f"a plain CNN classifier of the true {what} {report['held_out_accuracy']:.1%} of the held-out photographs"
    )
    return Judge(view, described)


def fitted(pictures: np.ndarray, size: int) -> np.ndarray:
    """Uint8 (n×S×S×3) at another size."""
    return np.stack([fit_square(picture, size) for picture in pictures])


def with_templates(prompts: PromptSet, templates: tuple[str, ...]) -> PromptSet:
    """The domains of ``prompts`` in other templates."""
    return PromptSet(prompts.domains, templates, tuple(map(without_phrase, templates)), f"{prompts.name}-poor")
