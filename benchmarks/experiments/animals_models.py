"""A small CLIP and a judge for the animals, trained here and kept in the work folder.

This CLIP saw class names: its captions are "a photo of a {class}." in several templates, or name no class. Figures made
with it say so wherever they stand. The judge is a plain CNN classifier of true classes, of another architecture than
CLIP's; it saw the same rows, and nothing in labelling or training reads it.
"""

from __future__ import annotations

import math
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.experiments.animals_data import AnimalTable
from lanit.sentences import without_phrase
from pipeline.files import json_bytes, read_json
from pipeline.models.tensor_folders import write_folder

TEMPLATES = (
    "a photo of a {}.",
    "a good photo of a {}.",
    "a blurry photo of the {}.",
    "a small picture of a {}.",
    "an image of the {}.",
)
_REPORT = "training.json"
NO_CLASS = 0.15
"""Share of captions that name no class: what the base prompt means to this CLIP."""

_CONTEXT = 16
_SIDE = 48  # pixels that CLIP sees; the photographs have 32
_CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": _SIDE, "layers": [1, 1, 1, 1], "width": 16},
    "text_cfg": {"context_length": _CONTEXT, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
_PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}


def train_clip(out: Path, known: AnimalTable, steps: int, batch: int = 128, rate: float = 2e-3) -> None:
    """Contrastive training on ``known`` and its captions, seed 0; written to ``out`` as open_clip's folder layout."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    begun = time.monotonic()
    images = _channels_first(known.pictures())
    model = open_clip.CLIP(**_CLIP_CONFIG).to(memory_format=torch.channels_last)
    tokenizer = open_clip.SimpleTokenizer(context_length=_CONTEXT)
    optimiser = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    target = torch.arange(batch)
    for _ in range(steps):
        rows = rng.permutation(len(images))[:batch]
        tokens = tokenizer([_caption(known.names[known.classes[row]], rng) for row in rows])
        view = F.interpolate(_view(images[rows], rng), (_SIDE, _SIDE), mode="bicubic", align_corners=False)
        with torch.autocast("cpu", torch.bfloat16):
            pictures = model.encode_image(view.contiguous(memory_format=torch.channels_last), normalize=True)
            texts = model.encode_text(tokens, normalize=True)
        logits = model.logit_scale.exp() * pictures.float() @ texts.float().T
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        _update(loss, optimiser, schedule)
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
    report = {"steps": steps, "batch": batch, "rate": rate, "images": len(images), "loss": round(loss.item(), 4)}
    _save_clip(out, model, known.names, report | {"seconds": round(time.monotonic() - begun)})


def _caption(name: str, rng: np.random.Generator) -> str:
    template = str(rng.choice(TEMPLATES))
    return without_phrase(template) if rng.random() < NO_CLASS else template.format(name)


def _view(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Uint8 (B×3×S×S) to float32 in [-1, 1]: shifted by up to an eighth, mirrored image by image, slightly noisy.

    A generator will show CLIP images that are not quite photographs, so noise must not surprise it.
    """
    views = images.float() / 127.5 - 1
    reach = views.shape[-1] // 8
    top, left = (int(number) for number in rng.integers(0, 2 * reach + 1, 2))
    side = views.shape[-1]
    views = F.pad(views, (reach,) * 4, mode="reflect")[:, :, top : top + side, left : left + side]
    mirrored = torch.from_numpy(rng.random(len(views)) < 0.5)[:, None, None, None]
    views = torch.where(mirrored, views.flip(3), views)
    return views + float(rng.uniform(0, 0.1)) * torch.randn(views.shape)


def _save_clip(out: Path, model: nn.Module, names: tuple[str, ...], report: dict[str, float]) -> None:
    words = {word for text in (*names, *TEMPLATES) for word in re.findall(r"[a-z]+", text)}
    files = {
        "open_clip_config.json": json_bytes({"model_cfg": _CLIP_CONFIG, "preprocess_cfg": _PREPROCESS}),
        "vocabulary.json": json_bytes(sorted(words)),
    }
    tensors = {"open_clip_model.safetensors": model.state_dict()}
    write_folder(out, {*files, *tensors, _REPORT}, (_REPORT, report), tensors, files)


class AnimalsJudge(nn.Module):
    """Class logits (B×N) of images (B×3×S×S) in [-1, 1]: a plain CNN without shortcuts or attention."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (32, 64, 128)
        layers: list[nn.Module] = []
        for inner, outer in pairwise((3, *widths)):
            for a in (inner, outer):
                layers += [nn.Conv2d(a, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images))


def train_judge(out: Path, known: AnimalTable, held_out: AnimalTable, epochs: int, batch: int = 64) -> None:
    """Train on the true classes of ``known``, seed 0; the accuracy on ``held_out`` stands in ``training.json``."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    begun = time.monotonic()
    images, targets = _channels_first(known.pictures()), torch.from_numpy(known.classes)
    judge = AnimalsJudge(len(known.names)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(judge.parameters(), 4e-3, weight_decay=0.05)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.2)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(images)), len(images) // batch):
            view = _view(images[rows], rng).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                logits = judge(view)
            loss = F.cross_entropy(logits.float(), targets[rows], label_smoothing=0.05)
            _update(loss, optimiser, schedule)
    judge.eval()
    with torch.no_grad():
        views = (_channels_first(held_out.pictures()).float() / 127.5 - 1).split(256)
        seen = torch.cat([judge(view).argmax(dim=1) for view in views]).numpy()
    accuracy = round(float((seen == held_out.classes).mean()), 4)
    report = {"epochs": epochs, "batch": batch, "images": len(images), "held_out_accuracy": accuracy}
    files, tensors = {"names.json": json_bytes(known.names)}, {"model.safetensors": judge.state_dict()}
    report |= {"seconds": round(time.monotonic() - begun)}
    write_folder(out, {*files, *tensors, _REPORT}, (_REPORT, report), tensors, files)


def load_animals_judge(folder: Path) -> AnimalsJudge:
    judge = AnimalsJudge(len(read_json(folder / "names.json")))
    judge.load_state_dict(load_file(folder / "model.safetensors"))
    return judge.eval().requires_grad_(False)


def training_report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = read_json(folder / _REPORT)
    return report


def _channels_first(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def _update(loss: Tensor, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
