"""Does the sample CLIP notice what it was not made for? ``python -m benchmarks.strangers PHOTOS...``

Each input (a folder, tar or table of photographs) is embedded, and samples of its images are asked about in turn, as
are as many sets of drawn faces of seeds that the limit was not fixed on. Prints how many of either are warned of.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from pipeline.clip.models import ClipModel, load_clip
from pipeline.embedding.embed import embed
from pipeline.sample_world.faces import draw_faces
from pipeline.store.store import Store
from pipeline.store.store_clip import are_strangers

SAMPLES, IMAGES = 20, 60
FIRST_SEED = 9000


def photographs(clip: ClipModel, inputs: list[str], rng: np.random.Generator) -> list[np.ndarray]:
    """Embeddings, float32 (IMAGES×k), of samples that take turns among the inputs."""
    with tempfile.TemporaryDirectory() as folder:
        stores = [Path(folder) / str(number) for number in range(len(inputs))]
        for name, store in zip(inputs, stores, strict=True):
            embed([name], store, clip)
        held = [Store.open(store).embeddings_of(np.arange(Store.open(store).ok)) for store in stores]
    return [rng.permutation(held[number % len(held)])[:IMAGES] for number in range(SAMPLES)]


def faces(clip: ClipModel, seed: int) -> np.ndarray:
    drawn, _ = draw_faces(seed, range(IMAGES), 64)
    with torch.inference_mode():
        pixels = clip.preprocessing(torch.from_numpy(drawn).permute(0, 3, 1, 2))
        found: np.ndarray = clip.encode_preprocessed(pixels).numpy()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+")
    clip, rng = load_clip("sample"), np.random.default_rng(0)
    assert clip.world is not None
    sets = {
        "photographs": photographs(clip, parser.parse_args().photos, rng),
        "drawn faces": [faces(clip, FIRST_SEED + number) for number in range(SAMPLES)],
    }
    for name, samples in sets.items():
        shares = [float(clip.world.outside(sample).mean()) for sample in samples]
        warned = sum(are_strangers(clip.world, sample) for sample in samples)
        print(f"{name}: warned of {warned} of {len(samples)}; outside {min(shares):.0%} to {max(shares):.0%}")


if __name__ == "__main__":
    main()
