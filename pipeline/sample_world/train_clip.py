"""Train the small CLIP of the sample world: ``python -m pipeline.sample_world.train_clip --out DIR``.

Contrastive training (Radford et al., 2021) of an open_clip architecture on drawn faces and captions
that name one or two of a picture's attributes in a random template, or none. Pictures are shown at
every size from 32 to 128 px, since that is what a generator will show it later. The weights of
words that never occur are zeroed, and the words that do occur are listed beside the weights, so that
lanit can warn about prompts the model cannot read, and so are mean and covariance of the embeddings of
its pictures, so that it can warn about others; ``--world`` makes these anew from weights that are there.

Seeded; the report of the last run stands in ``training.json`` beside the weights.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from pipeline.clip.models import load_clip
from pipeline.clip.world import FILE_NAME, World
from pipeline.computing.devices import native_bf16
from pipeline.files import write_bytes
from pipeline.sample_world.faces import ATTRIBUTES, draw_faces

CONTEXT = 24
MODEL_CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "shortest"}
TEMPLATES = (
    "a face with {}.",
    "a face photo with {}.",
    "a face photo of the {}.",
    "the face photo of the {}.",
    "a good face photo of the {}.",
    "high quality face photo of {}.",
    "a face image of {}.",
    "the face image of {}.",
    "high quality face image of {}.",
    "a high quality face image of {}.",
)
SIZES = (32, 40, 48, 64, 64, 96, 128)
EMPHASIS = np.array([4.0 if name in ("bangs", "eyeglasses", "smiling", "mustache") else 1.0 for name in ATTRIBUTES])
TRAIN_SEED = 101  # worlds: 101 for CLIP, 202 for the judge, 303 for the generator, 404 for evaluation
LIMIT_SEED = 505  # of the faces that say how far the embedding of a face may lie from the mean
WORLD_SIZES = tuple(sorted(set(SIZES)))
WORLD_FACES = 400  # of each size


def caption(truth: np.ndarray, rng: np.random.Generator) -> str:
    """Name none (15 %), two (30 %) or one of the attributes in a random template.

    Small things are named more often than hair colours, which cost the model no effort; a contrastive similarity
    estimates p(picture | caption) / p(picture), which does not depend on how often a caption occurs.
    """
    template = str(rng.choice(TEMPLATES))
    held = np.flatnonzero(truth)
    draw = rng.random()
    if draw < 0.15:
        return re.sub(r"\s*\{\}", "", template)
    count = min(len(held), 2 if draw < 0.45 else 1)
    weight = EMPHASIS[held] / EMPHASIS[held].sum()
    names = [ATTRIBUTES[position] for position in rng.choice(held, count, replace=False, p=weight)]
    return template.format(" and ".join(names))


def view(faces: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A batch as CLIP may meet it: cropped, mirrored, reduced to some size, slightly degraded.

    faces: uint8 (B, 3, 128, 128). Returns float32 (B, 3, 64, 64), normalised for the model.
    """
    images = faces.float().div_(127.5).sub_(1)
    zoom = rng.uniform(0.8, 1.0)
    side = round(zoom * 128)
    top, left = rng.integers(0, 128 - side + 1, 2)
    images = images[:, :, top : top + side, left : left + side]
    if rng.random() < 0.5:
        images = images.flip(3)
    size = int(rng.choice(SIZES))
    images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    batch = len(images)
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (batch, 3, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.uniform(0, 0.05, (batch, 1, 1, 1)).astype(np.float32))
    images = images * gain + noise * torch.randn(images.shape)
    images = F.interpolate(images, (64, 64), mode="bicubic", antialias=True, align_corners=False)
    return images.clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def train(out: Path, steps: int, faces: int, batch: int, learning_rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    started = time.monotonic()
    pictures, truths = draw_faces(TRAIN_SEED, range(faces), 128)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    print(f"{faces} faces drawn in {time.monotonic() - started:.0f} s", flush=True)

    model = open_clip.CLIP(**MODEL_CONFIG).to(memory_format=torch.channels_last)
    tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
    optimiser = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.1)
    order = np.concatenate([rng.permutation(faces) for _ in range(math.ceil(steps * batch / faces))])
    target = torch.arange(batch)
    for step in range(steps):
        rows = order[step * batch : (step + 1) * batch]
        tokens = tokenizer([caption(truths[row], rng) for row in rows])
        with native_bf16("cpu"):
            image_features = model.encode_image(view(images[torch.from_numpy(rows)], rng), normalize=True)
            text_features = model.encode_text(tokens, normalize=True)
        logits = model.logit_scale.exp() * image_features.float() @ text_features.float().T
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 50 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            print(
                f"step {step} loss {loss.item():.3f} scale {model.logit_scale.exp().item():.1f} {seconds:.0f} s",
                flush=True,
            )
    report = {"steps": steps, "faces": faces, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    save(
        model,
        tokenizer,
        out,
        report | {"seconds": round(time.monotonic() - started), "final_loss": round(loss.item(), 4)},
    )


def save(model: torch.nn.Module, tokenizer: open_clip.SimpleTokenizer, out: Path, report: dict[str, float]) -> None:
    """Write the model as open_clip's own folder layout, float16, with the words it knows."""
    words = {word for text in (*ATTRIBUTES, *TEMPLATES, "and") for word in re.findall(r"[a-z]+", text)}
    seen = torch.unique(
        tokenizer([*ATTRIBUTES, *TEMPLATES, *(t.replace("{}", "") for t in TEMPLATES), "and", ".", "a face with."])
    )
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    known = torch.zeros(state["token_embedding.weight"].shape[0], 1)
    known[seen] = 1
    state["token_embedding.weight"] *= known
    half = {name: (t.half() if t.is_floating_point() and t.ndim else t).contiguous() for name, t in state.items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(half, out / "open_clip_model.safetensors")
    (out / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": MODEL_CONFIG, "preprocess_cfg": PREPROCESS}, indent=2) + "\n"
    )
    (out / "vocabulary.json").write_text(json.dumps(sorted(words)) + "\n")
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n")


def save_world(out: Path) -> None:
    """Write mean and covariance of the embeddings of drawn faces of all sizes beside the weights in ``out``, and the
    distance that a thousandth of other faces exceeds."""
    clip = load_clip(str(out))

    def embed(seed: int) -> np.ndarray:
        found = []
        for size in WORLD_SIZES:
            faces, _ = draw_faces(seed, range(WORLD_FACES), size)
            with torch.inference_mode():
                pixels = clip.preprocessing(torch.from_numpy(faces).permute(0, 3, 1, 2))
                found += [clip.encode_preprocessed(batch).numpy() for batch in pixels.split(100)]
        return np.concatenate(found)

    world = World.of(embed(TRAIN_SEED), 0.0, "faces that lanit draws")
    limit = float(np.quantile(world.distances(embed(LIMIT_SEED)), 0.999))
    write_bytes(out / FILE_NAME, replace(world, limit=round(limit, 1)).to_bytes())
    print(f"{FILE_NAME}: {len(WORLD_SIZES) * WORLD_FACES} faces, limit {limit:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "assets" / "sample-clip")
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--faces", type=int, default=16000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", action="store_true", help="keep the weights; measure their world anew")
    options = vars(parser.parse_args())
    if not options.pop("world"):
        train(**options)
    save_world(options["out"])


if __name__ == "__main__":
    main()
