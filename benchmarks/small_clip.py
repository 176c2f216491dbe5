"""Contrastive training of small CLIPs for experiments, on photographs and captions at hand.

What such a CLIP knows is what it was trained on: figures made with it say so wherever they stand.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.computing.devices import native_bf16
from pipeline.files import json_bytes
from pipeline.models.tensor_folders import write_folder

REPORT = "training.json"
_PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}


def train_clip(
    out: Path,
    images: Tensor,
    caption: Callable[[int, np.random.Generator], str],
    texts: Iterable[str],
    steps: int,
    *,
    side: int = 48,
    context: int = 16,
    batch: int = 128,
    rate: float = 2e-3,
    seed: int = 0,
) -> None:
    """Written to ``out`` as open_clip's folder layout, with ``training.json`` as the last file.

    images: uint8 (n×3×S×S). caption: of the image of a number, anew each time that it is shown. texts: that captions
    are made of; a CLIP knows the words in them. side: pixels that CLIP sees. context: tokens of a caption at most.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    begun = time.monotonic()
    config = _config(side, context)
    model = open_clip.CLIP(**config).to(memory_format=torch.channels_last)
    tokenizer = open_clip.SimpleTokenizer(context_length=context)
    optimiser = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    target = torch.arange(batch)
    for _ in range(steps):
        rows = rng.permutation(len(images))[:batch]
        tokens = tokenizer([caption(int(row), rng) for row in rows])
        view = F.interpolate(random_view(images[rows], rng), (side, side), mode="bicubic", align_corners=False)
        with native_bf16("cpu"):
            pictures = model.encode_image(view.contiguous(memory_format=torch.channels_last), normalize=True)
            sentences = model.encode_text(tokens, normalize=True)
        logits = model.logit_scale.exp() * pictures.float() @ sentences.float().T
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        step(loss, optimiser, schedule)
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
    report = {"steps": steps, "batch": batch, "rate": rate, "seed": seed, "images": len(images)}
    report |= {"loss": round(loss.item(), 4), "seconds": round(time.monotonic() - begun)}
    words = {word for text in texts for word in re.findall(r"[a-z]+", text)}
    files = {
        "open_clip_config.json": json_bytes({"model_cfg": config, "preprocess_cfg": _PREPROCESS}),
        "vocabulary.json": json_bytes(sorted(words)),
    }
    tensors = {"open_clip_model.safetensors": model.state_dict()}
    write_folder(out, {*files, *tensors, REPORT}, (REPORT, report), tensors, files)


def random_view(images: Tensor, rng: np.random.Generator) -> Tensor:
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


def step(loss: Tensor, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()


def channels_first(pictures: np.ndarray) -> Tensor:
    """Uint8 (n×S×S×3) as uint8 (n×3×S×S)."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def _config(side: int, context: int) -> dict[str, Any]:
    return {
        "embed_dim": 64,
        "vision_cfg": {"image_size": side, "layers": [1, 1, 1, 1], "width": 16},
        "text_cfg": {"context_length": context, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    }
