"""What a label refresh costs a run: relabelling a stored set by new prompts, against the steps between two refreshes.

    python -m benchmarks.label_refresh [--rows 100000] [--preset small-64]

A store of random unit vectors with 16 prompts × 9 templates is relabelled by slightly different text embeddings, the
revision written, read back and given to the sampler. Beside it, in the same run, steps of the preset are timed on drawn
faces with the sample CLIP. Medians of rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.labels_at_scale import write_clip, write_store
from lanit.labels import Rule
from pipeline.clip.models import load_clip
from pipeline.embedding.embed import embed
from pipeline.labelling.label import label, relabel
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import read_prompt_set
from pipeline.sample_world.dataset import write_faces
from pipeline.store.store import Store
from pipeline.training.sampling import LabelSampler
from pipeline.training.train_options import options_from
from pipeline.training.training import train


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--preset", default="small-64")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    options = options_from(given.preset, {})
    with tempfile.TemporaryDirectory() as folder:
        seconds = refresh_seconds(Path(folder), given.rows, given.dim, given.rounds)
        step = step_seconds(Path(folder), given.preset, given.steps)
    between = options.refresh_every * step
    print(f"refresh of {given.rows:,} × {given.dim}, 16 prompts: {seconds:.2f} s")
    print(f"{options.refresh_every} steps of {given.preset}, {step:.3f} s each: {between:.0f} s")
    print(f"share of the training time: {seconds / (between + seconds):.2%}      at most 1 %")


def refresh_seconds(folder: Path, rows: int, dim: int, rounds: int) -> float:
    write_clip(folder / "clip", dim)
    write_store(folder / "store", folder / "clip", rows, dim)
    store, clip, prompts = (
        Store.open(folder / "store"),
        load_clip(str(folder / "clip")),
        read_prompt_set("celeba-hq-16"),
    )
    label(store, clip, prompts, Rule())
    embedded = embed_prompts(clip, prompts)
    labels, seconds = store.labels(), []
    for number in range(rounds):
        noise = torch.Generator().manual_seed(number)
        moved = embedded.domains + 0.01 * torch.randn(embedded.domains.shape, generator=noise)
        begun = time.perf_counter()
        embed_prompts(clip, prompts)  # a run asks its learner; the cost is the same
        labels = store.labels(
            relabel(
                store,
                labels,
                embedded.moved(F.normalize(moved, dim=-1), embedded.base),
                f"train:benchmark step {number}",
            )
        )
        LabelSampler(labels.active, "domain", "domain")
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def step_seconds(folder: Path, preset: str, steps: int) -> float:
    write_faces(folder / "faces", 200, 0)
    clip = load_clip("sample")
    embed([folder / "faces"], folder / "faces-store", clip)
    store = Store.open(folder / "faces-store")
    label(store, clip, read_prompt_set("sample-faces"), Rule())
    options = options_from(preset, {"steps": steps, "evaluate_images": 2})
    return train(store, folder / "run", options, clip).seconds_per_step


if __name__ == "__main__":
    main()
