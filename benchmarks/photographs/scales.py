"""Which scale of crops tells most? Hats lie at the edge of a face's image, where crops cut them.

    python -m benchmarks.photographs.scales --work DIR --data DIR [--qualities medium long] [--seed 0]

The faces, CLIPs and samples of ``benchmarks.photographs``, whose work folder it goes on in; crops of other scales than
those that the product makes (an area of 0.8 to 1, a ratio of 0.9 to 1.1, mirrored or not), which are measured first.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.photographs import worlds
from benchmarks.photographs.figures import Case, measure
from benchmarks.small_clip import channels_first
from pipeline.clip.models import ClipModel
from pipeline.stability.views import Views

SCALES = ((0.6, 1.0), (0.9, 1.0), (0.95, 1.0))
_BATCH = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--qualities", nargs="*", default=["medium", "long"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    world = worlds.faces(asked.data)
    print("| CLIP | scale | mean κ | κ of hats | F1 of hats | ρ over ten | ρ over all | most stable | taken |")
    print("|---|---|---|---|---|---|---|---|---|")
    for quality in asked.qualities:
        stored = worlds.stored(world, asked.work, quality, asked.seed)
        show(quality, "of the product", measure(world, quality, stored))
        pixels = channels_first(world.pictures())[stored.rows]
        for scale in SCALES:
            crops = replace(stored, views=views_of_scale(pixels, stored.clip, scale))
            show(quality, f"{scale[0]} to {scale[1]}", measure(world, quality, crops))


def views_of_scale(images: Tensor, clip: ClipModel, scale: tuple[float, float]) -> Views:
    """Two crops of each image, uint8 (n×3×S×S), as large as CLIP sees them before they are cropped; seed 0."""
    torch.manual_seed(0)
    side = clip.preprocessing.size
    crop = v2.Compose([v2.RandomResizedCrop(side, scale, (1 / 1.1, 1.1)), v2.RandomHorizontalFlip()])
    found = []
    for batch in v2.functional.resize(images, [side, side]).split(_BATCH):
        floats = batch.float() / 127.5 - 1
        with torch.no_grad():
            crops = [clip.encode_images(torch.stack([crop(image) for image in floats])) for _ in range(2)]
        found.append(torch.stack(crops))
    return Views(torch.cat(found, dim=1).numpy(), f"scale {scale}")


def show(quality: str, scale: str, cases: list[Case]) -> None:
    hats = [next(each for each in case.domains if each[0] == "wearing a hat") for case in cases]
    starts = [start for case in cases for start in case.starts]
    values = (
        f"{statistics.mean(k for case in cases for _, k, _ in case.domains):.3f}",
        f"{statistics.mean(k for _, k, _ in hats):.3f}",
        f"{statistics.mean(f for _, _, f in hats):.3f}",
        f"{statistics.mean(case.rho for case in cases):.2f}",
        f"{statistics.mean(case.rho_of_all for case in cases):.2f}",
        f"{statistics.mean(start.most_stable - start.own for start in starts):+.3f}",
        f"{statistics.mean(start.taken - start.own for start in starts):+.3f}",
    )
    print(f"| {quality} | {scale} | {' | '.join(values)} |", flush=True)


if __name__ == "__main__":
    main()
