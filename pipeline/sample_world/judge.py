"""The judge of the sample world: a small classifier of true attributes, apart from everything it judges.

It is trained on faces of its own world with their drawn truth, never on CLIP's labels or a generator's pictures, and
nothing in labelling or training reads it. ``python -m pipeline.sample_world.judge --out DIR`` makes it, seeded.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lanit.errors import LanitError
from pipeline.computing.devices import native_bf16
from pipeline.sample_world.faces import ATTRIBUTES, HAIR, draw_faces

JUDGE_SEED = 202  # the judge's world; CLIP learned from 101
JUDGE_DIR = Path(__file__).parent.parent / "assets" / "sample-judge"
_SIZE = 64


class Judge(nn.Module):
    """Attribute logits (B×12) of images (B×3×S×S) in [-1, 1], any S."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.Conv2d(inner, outer, 3, 2 if inner > 3 else 1, 1), nn.GroupNorm(8, outer), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Conv2d(128, 128, 3, 2, 1), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(128 * 16, len(ATTRIBUTES)))

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != _SIZE:
            images = F.interpolate(images, (_SIZE, _SIZE), mode="bicubic", antialias=True, align_corners=False)
        return self.head(self.features(images))

    @torch.no_grad()
    def predict(self, images: np.ndarray) -> np.ndarray:
        """Recognised attributes, bool (n×12), of uint8 RGB images (n×S×S×3)."""
        batches = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).split(256)
        return np.concatenate([(self(batch.float() / 127.5 - 1) > 0).numpy() for batch in batches])


def load_judge(folder: Path = JUDGE_DIR) -> Judge:
    """The shipped judge. Raises LanitError where its weights are missing."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise LanitError(f"no judge at {folder}", "Make one: python -m pipeline.sample_world.judge.")
    judge = Judge()
    judge.load_state_dict(load_file(path))
    return judge.eval()


@dataclass(frozen=True)
class Scores:
    """How translations of faces with known truth came out, per domain (float arrays of length 12).

    recognised: share of translations to the domain in which the judge sees it.
    kept: share of the other attributes that the judge sees as they were drawn in the source; attributes that cannot
    stand beside the requested one (another hair colour; bangs on a bald head) do not count.
    """

    recognised: np.ndarray
    kept: np.ndarray
    count: np.ndarray


def open_to_change(requested: int, truth: np.ndarray) -> np.ndarray:
    """Which attributes asking for ``requested`` leaves open, itself included: bool (n×12) for truths bool (n×12)."""
    bald, bangs = ATTRIBUTES.index("bald"), ATTRIBUTES.index("bangs")
    opened = np.zeros_like(truth)
    opened[:, requested] = True
    if ATTRIBUTES[requested] in HAIR:
        opened[:, : len(HAIR)] = True
    if requested == bald:
        opened[:, bangs] = True
    if requested == bangs:  # a bald head must first grow hair, of whatever colour
        opened[:, : len(HAIR)] |= truth[:, bald, None]
    return opened


def score(seen: np.ndarray, truth: np.ndarray, requested: np.ndarray) -> Scores:
    """Score judged translations; nan for an attribute that was never requested.

    seen: bool (n×12), attributes the judge sees in each translation. truth: bool (n×12), of its source.
    requested: int (n), index of the attribute asked for.
    """
    columns = len(ATTRIBUTES)
    recognised, kept, count = np.full(columns, np.nan), np.full(columns, np.nan), np.zeros(columns, int)
    for attribute in np.unique(requested):
        rows = requested == attribute
        fixed = ~open_to_change(int(attribute), truth[rows])
        count[attribute] = rows.sum()
        recognised[attribute] = seen[rows, attribute].mean()
        kept[attribute] = (seen[rows] == truth[rows])[fixed].mean()
    return Scores(recognised, kept, count)


def train(out: Path, steps: int, faces: int, batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    started = time.monotonic()
    pictures, truths = draw_faces(JUDGE_SEED, range(faces), 64)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    targets = torch.from_numpy(truths).float()
    judge = Judge()
    optimiser = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.from_numpy(rng.integers(0, faces, batch))
        view = images[rows].float() / 127.5 - 1
        size = int(rng.choice((32, 48, 64)))
        view = F.interpolate(view, (size, size), mode="bilinear", antialias=True, align_corners=False)
        shift = tuple(int(n) for n in rng.integers(-size // 16, size // 16 + 1, 2))
        view = torch.roll(view, shift, (2, 3)) + float(rng.uniform(0, 0.1)) * torch.randn(view.shape)
        view = view.flip(3) if rng.random() < 0.5 else view
        with native_bf16("cpu"):
            logits = judge(view)
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.4f} {time.monotonic() - started:.0f} s", flush=True)
    judge.eval()
    report: dict[str, object] = {"steps": steps, "faces": faces, "batch": batch, "seed": seed}
    report["seconds"] = round(time.monotonic() - started)
    for size in (32, 64):
        pictures, truths = draw_faces(JUDGE_SEED + 1, range(2000), size)
        right = judge.predict(pictures) == truths
        report[f"held_out_accuracy_{size}"] = round(float(right.mean()), 5)
        report[f"worst_attribute_{size}"] = round(float(right.mean(axis=0).min()), 5)
    print(report, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    save_file(judge.state_dict(), out / "model.safetensors")
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=JUDGE_DIR)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--faces", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
