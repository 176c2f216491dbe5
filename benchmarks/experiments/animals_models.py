"""A small CLIP for the animals and judges for photographs, trained here and kept in the work folder.

This CLIP saw class names: its captions are "a photo of a {class}." in several templates, or name no class. Figures made
with it say so wherever they stand. A judge is a plain CNN classifier of true labels, of another architecture than
CLIP's; it saw the same rows as that, and nothing in labelling or training reads it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import small_clip
from benchmarks.experiments.animals_data import AnimalTable
from benchmarks.small_clip import REPORT, channels_first, random_view, step
from lanit.sentences import without_phrase
from pipeline.computing.devices import native_bf16
from pipeline.files import json_bytes, read_json
from pipeline.models.tensor_folders import write_folder

TEMPLATES = (
    "a photo of a {}.",
    "a good photo of a {}.",
    "a blurry photo of the {}.",
    "a small picture of a {}.",
    "an image of the {}.",
)
NO_CLASS = 0.15
"""Share of captions that name no class: what the base prompt means to this CLIP."""


def train_clip(out: Path, known: AnimalTable, steps: int, seed: int = 0) -> None:
    """Contrastive training on ``known`` and its captions; written to ``out`` as open_clip's folder layout. CLIP sees
    48 pixels, or as many as the photographs have."""

    def caption(row: int, rng: np.random.Generator) -> str:
        return _caption(known.names[known.classes[row]], rng)

    pictures = channels_first(known.pictures())
    side = max(48, pictures.shape[-1])
    small_clip.train_clip(out, pictures, caption, (*known.names, *TEMPLATES), steps, side=side, seed=seed)


def _caption(name: str, rng: np.random.Generator) -> str:
    template = str(rng.choice(TEMPLATES))
    return without_phrase(template) if rng.random() < NO_CLASS else template.format(name)


class PlainJudge(nn.Module):
    """Logits (B×N) of images (B×3×S×S) in [-1, 1]: a plain CNN without shortcuts or attention."""

    def __init__(self, domains: int) -> None:
        super().__init__()
        widths = (32, 64, 128)
        layers: list[nn.Module] = []
        for inner, outer in pairwise((3, *widths)):
            for a in (inner, outer):
                layers += [nn.Conv2d(a, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(widths[-1], domains)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images))


@dataclass(frozen=True)
class Photographs:
    """pictures: uint8 (n×S×S×3). truth: bool (n×N)."""

    pictures: np.ndarray
    truth: np.ndarray


def train_judge(
    out: Path, names: Sequence[str], known: Photographs, held_out: Photographs, epochs: int, batch: int = 64
) -> None:
    """Train on the true labels of ``known``, seed 0: classes where each image has one, else attributes, of which images
    with and without one count alike in sum, so that the rare are seen too.

    ``training.json`` says how often it is right on ``held_out``: in classes the accuracy, of attributes the mean of
    that on images with and on images without each.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    begun = time.monotonic()
    classes = bool((known.truth.sum(axis=1) == 1).all())
    images, targets = channels_first(known.pictures), torch.from_numpy(known.truth).float()
    judge = PlainJudge(len(names)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(judge.parameters(), 4e-3, weight_decay=0.05)
    carried = targets.mean(dim=0).clamp(1 / len(targets), 1 - 1 / len(targets))
    odds = (1 - carried) / carried
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.2)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(images)), len(images) // batch):
            view = random_view(images[rows], rng).contiguous(memory_format=torch.channels_last)
            with native_bf16("cpu"):
                logits = judge(view).float()
            if classes:
                loss = F.cross_entropy(logits, targets[rows], label_smoothing=0.05)
            else:
                loss = F.binary_cross_entropy_with_logits(logits, targets[rows], pos_weight=odds)
            step(loss, optimiser, schedule)
    judge.eval()
    with torch.no_grad():
        views = (channels_first(held_out.pictures).float() / 127.5 - 1).split(256)
        seen = torch.cat([recognised(judge(view), classes=classes) for view in views]).numpy()
    report: dict[str, Any] = {"epochs": epochs, "batch": batch, "images": len(images), "classes": classes}
    report |= {"held_out_accuracy": round(_accuracy(seen, held_out.truth, classes=classes), 4)}
    files, tensors = {"names.json": json_bytes(names)}, {"model.safetensors": judge.state_dict()}
    report |= {"seconds": round(time.monotonic() - begun)}
    write_folder(out, {*files, *tensors, REPORT}, (REPORT, report), tensors, files)


def recognised(logits: Tensor, *, classes: bool) -> Tensor:
    """Bool (B×N) of logits (B×N): the largest alone, or those above 0."""
    return F.one_hot(logits.argmax(dim=1), logits.shape[1]).bool() if classes else logits > 0


def _accuracy(seen: np.ndarray, truth: np.ndarray, *, classes: bool) -> float:
    right = seen == truth
    if classes:
        return float(right.all(axis=1).mean())
    sides = [right[:, n][truth[:, n] == side].mean() for n in range(truth.shape[1]) for side in (False, True)]
    return float(np.mean(sides))


def load_plain_judge(folder: Path) -> PlainJudge:
    judge = PlainJudge(len(read_json(folder / "names.json")))
    judge.load_state_dict(load_file(folder / "model.safetensors"))
    return judge.eval().requires_grad_(False)


def training_report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = read_json(folder / REPORT)
    return report
