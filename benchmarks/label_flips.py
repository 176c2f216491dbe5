"""Labels that change with the type of the stored embeddings and with the precision of CLIP's image tower.

    python benchmarks/label_flips.py [--photos photos.tar] [--faces 2000] [--crops 8]

Counts the bits of adaptive labels (METHOD 1) that differ from those of float32 embeddings by a float32 image tower: on
drawn faces with the sample CLIP and its twelve prompts, and on crops of photographs with ViT-B/32 of random weights and
the prompts of animal-faces-10.
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image

from lanit.labels import Rule
from pipeline.clip.models import load_clip
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.labelling.label import label
from pipeline.prompts.prompt_sets import read_prompt_set
from pipeline.sample_world.dataset import write_faces
from pipeline.store.schemas import StoredType
from pipeline.store.store import Store

ARCHITECTURE = "ViT-B-32"


def labels_of(folder: Path, scratch: Path, spec: str, prompts: str, precision: str, storage: StoredType) -> np.ndarray:
    architecture = None if spec == "sample" else ARCHITECTURE
    clip = load_clip(spec, architecture=architecture, precision="bf16" if precision == "bf16" else "fp32")
    store = scratch / f"{prompts}-{precision}-{storage}"
    embed([folder], store, clip, EmbedOptions(batch_size=32, storage=storage))
    label(Store.open(store), clip, read_prompt_set(prompts), Rule("adaptive"))
    return Store.open(store).labels().active


def write_crops(photos: Path, folder: Path, count: int) -> None:
    """``count`` random crops of each photograph, seeded."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    with tarfile.open(photos) as archive:
        for member in sorted((m for m in archive if m.isfile()), key=lambda m: m.name):
            image = Image.open(archive.extractfile(member)).convert("RGB")  # type: ignore[arg-type]
            side = min(image.size)
            for number in range(count):
                part = int(rng.integers(side // 2, side + 1))
                left, top = (int(rng.integers(0, length - part + 1)) for length in image.size)
                crop = image.crop((left, top, left + part, top + part))
                crop.save(folder / f"{Path(member.name).stem}-{number}.jpg", quality=95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--faces", type=int, default=2000)
    parser.add_argument("--crops", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_faces(scratch / "faces", given.faces, 404, 64)
        worlds = [(scratch / "faces", "sample", "sample-faces")]
        if given.photos:
            torch.manual_seed(0)
            torch.save(open_clip.create_model(ARCHITECTURE).state_dict(), scratch / "random.pt")
            write_crops(given.photos, scratch / "crops", given.crops)
            worlds.append((scratch / "crops", str(scratch / "random.pt"), "animal-faces-10"))
        for folder, spec, prompts in worlds:
            truth = labels_of(folder, scratch, spec, prompts, "fp32", "float32")
            print(f"{prompts}: {truth.shape[0]} images, {truth.size} bits, {truth.mean():.3f} of them set")
            for precision, storage in (("fp32", "float16"), ("bf16", "float32"), ("bf16", "float16")):
                flips = labels_of(folder, scratch, spec, prompts, precision, storage) != truth  # type: ignore[arg-type]
                print(f"  image tower {precision}, stored as {storage}: {int(flips.sum())} bits flip, "
                      f"{100 * flips.mean():.4f} %", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
