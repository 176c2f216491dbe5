"""A few images translated to every domain as a run goes on: what people look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lanit.inference import drawn_codes, edited, translate
from pipeline.clip.models import ClipModel
from pipeline.decoding.grids import labelled_grid, to_uint8, write_png
from pipeline.training.learner import Learner
from pipeline.training.training_data import TrainingData

_SHOWN = 8  # images in a sample grid
_SEED = 2**31


@torch.no_grad()
def draw_sample(path: Path, learner: Learner, data: TrainingData, clip: ClipModel) -> dict[str, Any]:
    """Add each domain to a few fixed images with the averaged networks, as ``lanit translate --add`` does: writes the
    grid, and returns CLIP's own view of it, or that of the guiding network, the metric line."""
    nets, device = learner.method.averaged, next(learner.method.networks.parameters()).device
    rows = np.linspace(0, len(data.images) - 1, _SHOWN).round().astype(int)
    images = torch.from_numpy(data.images.take(rows)).to(device).float() / 127.5 - 1
    own = torch.from_numpy(data.labels.active[rows]).to(device)
    randomness = torch.Generator(device).manual_seed(_SEED)
    codes = drawn_codes(nets, torch.randn(own.shape[1], nets.latent_dim, generator=randomness, device=device))
    columns, recognised, kept = [images], [], []
    for domain, add in enumerate(torch.eye(own.shape[1], device=device)):
        target = edited(own, add, torch.zeros_like(add, dtype=torch.bool), data.exclusive.to(device))
        made = translate(nets, images, target, codes[domain, None])[0]
        seen = learner.seen(made, clip.encode_images(made))
        recognised.append(seen[:, domain])
        kept.append((seen == (target.weights > 0))[:, add == 0])
        columns.append(made)
    named = ["source", *data.labels.domains]
    if own.shape[1] == 1:  # of one word, its absence is the other thing to see
        nothing = torch.zeros_like(own[0])
        target = edited(own, nothing.float(), ~nothing, data.exclusive.to(device))
        columns.append(translate(nets, images, target, codes[0, None])[0])
        named.append(f"no {data.labels.domains[0]}")
    grid = [to_uint8(torch.stack(row)) for row in zip(*columns, strict=True)]
    write_png(path, labelled_grid(grid, named))
    shares = {"recognised": torch.stack(recognised).float().mean().item()}
    if own.shape[1] > 1:
        shares["kept"] = torch.cat(kept).float().mean().item()
    return {"kind": "sample", "judge": judge_name(learner)} | {name: round(value, 4) for name, value in shares.items()}


def judge_name(learner: Learner) -> str:
    """Who says what translations show, in the lines of a run."""
    return "guide" if learner.finds_clusters else "clip"
