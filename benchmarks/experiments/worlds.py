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

from benchmarks.experiments import animals_models
from benchmarks.experiments.animals_data import read_animals
from benchmarks.experiments.plan import Plan
from lanit.sentences import without_phrase
from pipeline.clip.models import ClipModel, load_clip
from pipeline.decoding.grids import to_float
from pipeline.decoding.squares import fit_square
from pipeline.embedding.embed import embed
from pipeline.labelling.known_labels import image_keys, read_truth
from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
from pipeline.sample_world.dataset import TRUTH_NAME, write_faces
from pipeline.sample_world.evaluation import EVALUATION_SEED
from pipeline.sample_world.faces import draw_faces
from pipeline.sample_world.judge import load_judge
from pipeline.sample_world.train_generator import GENERATOR_SEED
from pipeline.showing import console
from pipeline.store.store import Store

SIZE = 32
_BATCH = 250
_LEARNING = {"prompts_from": 0.7, "prompt_learning_rate": 2e-4, "refresh_every": 35}  # by pilots on seed 9
_POOR_FACES = ("a face with gray hair and {}.",)
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
    remark: what must be said wherever figures of this world stand.
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
        pictures=np.stack([fit_square(picture, SIZE) for picture in pictures]),
        held_truth=truth,
        preset="small-32",
        options={"channels": 16, "max_channels": 64},
        learning=_LEARNING,
        remark="drawn faces; the CLIP of the package, which learned such faces and their words",
    )


def animals_world(plan: Plan, data: Path) -> World:
    """Photographs of six animals; CLIP and judge are trained first, unless the work folder has them."""
    folder = plan.work / "animals"
    clip_folder, judge_folder, store = folder / "clip", folder / "judge", folder / "store"
    known, unlabelled, held_out = read_animals(data)
    if not (judge_folder / "training.json").is_file():
        console.note(f"training the judge of the animals, {plan.judge_epochs} epochs")
        animals_models.train_judge(judge_folder, known, held_out, plan.judge_epochs)
    if not (clip_folder / "training.json").is_file():
        console.note(f"training the CLIP of the animals, {plan.clip_steps} steps")
        animals_models.train_clip(clip_folder, known, plan.clip_steps)
    table, truth = unlabelled.write(folder)
    clip, judge = load_clip(str(clip_folder)), animals_models.load_animals_judge(judge_folder)
    embed([table], store, clip)
    accuracy = animals_models.training_report(judge_folder)["held_out_accuracy"]

    def view(images: Tensor) -> tuple[Tensor, Tensor]:
        features = judge.trunk(images)
        return F.one_hot(judge.head(features).argmax(dim=1), len(known.names)).bool(), features

    prompts = PromptSet(
        known.names, animals_models.TEMPLATES, tuple(map(without_phrase, animals_models.TEMPLATES)), "animals"
    )
    return World(
        name="animals",
        folder=folder,
        clip=clip,
        judge=Judge(
            view,
            f"a plain CNN classifier of the true classes, right on {accuracy:.1%} of the held-out photographs",
        ),
        prompts=prompts,
        poor_prompts=with_templates(prompts, _POOR_ANIMALS),
        store=Store.open(store),
        truth_table=truth,
        pictures=held_out.pictures(),
        held_truth=held_out.truth(),
        preset="small-32",
        options={"channels": 16, "max_channels": 64, "output": "image"},
        learning=_LEARNING,
        remark="photographs; its CLIP was trained for this purpose on other photographs with captions that name "
        "their class, so it saw class names",
    )


def with_templates(prompts: PromptSet, templates: tuple[str, ...]) -> PromptSet:
    """The domains of ``prompts`` in other templates."""
    return PromptSet(prompts.domains, templates, tuple(map(without_phrase, templates)), f"{prompts.name}-poor")
