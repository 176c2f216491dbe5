"""For tests: a small store to train on, options of a tiny run, and how to start one."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.embedding.embed import embed
from pipeline.models.metric_lines import read_lines
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import Store
from pipeline.training.train_options import TrainOptions, make_options
from pipeline.training.training import TrainReport, train
from tests.label_builders import add_labels

IMAGES = 12
PROMPTS = PromptSet(
    ("smiling", "blond hair", "hat"), ("a face with {}.", "the {} face"), ("a face with.", "the face"), "test"
)
STEPS = 6
# Phase 2 begins at half of the steps; labels are refreshed after steps 4 and 6.
TINY = make_options({
    "size": 32, "steps": STEPS, "batch_size": 2, "channels": 4, "max_channels": 8, "mapping_width": 8,
    "precision": "float32", "r1_every": 2, "diversity_until": 0.8, "prompts_from": 0.5, "prompt_learning_rate": 1e-2,
    "learning_rate": 1e-3, "refresh_every": 2, "log_every": 2, "sample_every": 0, "checkpoint_every": 0, "keep": 10,
    "domain": 1.0,
})  # fmt: skip


def changed(options: TrainOptions, **settings: Any) -> TrainOptions:
    return make_options(options.to_json() | settings)


def draw_store(folder: Path, clip: Any) -> Path:
    """Twelve drawn images, and a store of them without labels."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(IMAGES):
        coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 36)).save(folder / "images" / f"{number:02d}.png")
    embed([folder / "images"], folder / "store", clip)
    return folder / "store"


def copy_of(store: Path, to: Path) -> Store:
    shutil.copytree(store, to)
    return Store.open(to)


def labelled(store: Store, prompts: PromptSet = PROMPTS) -> Store:
    rng = np.random.default_rng(1)
    active = rng.random((store.ok, len(prompts.domains))) < 0.4
    active[:3], active[3:5] = False, True
    margin = np.where(active, 0.1, -0.1).astype(np.float32)
    add_labels(store, active, margin, prompts=prompts)
    return store


def metrics(run: Path) -> list[dict[str, Any]]:
    lines, damaged = read_lines(run / "metrics.jsonl")
    assert not damaged
    return lines


class Killed(Exception):
    pass


def killed_after(run: Path, clip: Any, options: TrainOptions, steps: int) -> None:
    """Train, and be gone after so many steps without another word."""

    def watch(done: int, planned: int) -> None:
        if done == steps:
            raise Killed

    with contextlib.suppress(Killed):
        go(run, clip, options, progress=watch)


def go(run: Path, clip: Any, options: TrainOptions = TINY, **more: Any) -> TrainReport:
    return train(Store.open(run.parent / "store"), run, options, clip, device="cpu", **more)
