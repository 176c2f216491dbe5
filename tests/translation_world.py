"""A small world to translate in, for tests: images, one of them broken, and a model of random networks.

For tests: ``from tests.translation_world import make_source, make_model``.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lanit.networks import GenerativeNetworks, NetworkOptions
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.squares import fit_square
from pipeline.models.bundle import Bundle, save_bundle
from pipeline.prompts.embed_prompts import with_texts
from pipeline.prompts.prompt_sets import PromptSet

DOMAINS = ("blond hair", "black hair", "hat")
SIZES = NetworkOptions(image_size=32, domains=4, channels=4, max_channels=8, style_dim=8, mapping_width=8)
EXCLUSIVE = [[0, 1, 0], [1, 0, 0], [0, 0, 0]]  # blond or black, not both


def make_source(make_images: Callable[..., Path]) -> Path:
    """Seven images in two folders, one file that is no image, and one that only says so."""
    folder = make_images(7, "photos")
    (folder / "a" / "broken.jpg").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("ignored")
    return folder


def make_model(folder: Path, source: Path, clip: Any) -> Path:
    """A bundle of random networks, with text embeddings that part the images about evenly in each domain."""
    torch.manual_seed(0)
    networks = GenerativeNetworks(SIZES)
    with torch.no_grad():
        networks.generator.to_rgb.weight.mul_(0.3)  # within [-1, 1]: clamped images would all look alike
        seen = torch.cat([clip.encode_images(as_batch(source / name)) for name in good(source)])
        base = seen.mean(dim=0)
        axes = torch.linalg.svd(seen - base).Vh[:3]
        ordered = (seen @ axes.T).sort(dim=0).values
        middle = (ordered[2] + ordered[3]) / 2
        texts = base + axes - middle[:, None] * base / base.square().sum()
    prompts = PromptSet(DOMAINS, ("a {}.",), ("a.",), "test")
    bundle = Bundle(
        networks, SIZES, prompts, clip.fingerprint, clip.spec, None, torch.tensor(EXCLUSIVE, dtype=torch.bool),
        with_texts(prompts, texts, base), {},
    )  # fmt: skip
    save_bundle(folder, bundle)
    return folder


def as_batch(path: Path) -> Tensor:
    pixels = torch.from_numpy(fit_square(decode_rgb(path), 32).copy())
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


def good(source: Path) -> list[str]:
    return sorted(path.relative_to(source).as_posix() for path in source.rglob("*.png"))


def margins_of(bundle: Bundle, clip: Any, path: Path) -> list[float]:
    """f_n − f_base, one image and one domain at a time."""
    seen = clip.encode_images(as_batch(path))[0]
    of_base = float((seen * bundle.prompts.base).sum())
    return [float((seen * text).sum()) - of_base for text in bundle.prompts.domains]


def own_labels(bundle: Bundle, clip: Any, path: Path) -> set[str]:
    """METHOD (1), one image at a time."""
    return {name for name, value in zip(DOMAINS, margins_of(bundle, clip, path), strict=True) if value > 0}


def table(out: Path, name: str = "translations.csv") -> list[dict[str, str]]:
    with (out / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pictures(folder: Path) -> dict[str, bytes]:
    """What a run wrote, without its tables."""
    return {name: data for name, data in files(folder).items() if name not in TABLES}


TABLES = ("translations.csv", "translations.parquet", "labels.csv")


def to_pixels(image: Tensor) -> np.ndarray:
    return ((image.clamp(-1, 1)[0].permute(1, 2, 0) + 1) / 2 * 255).round().numpy().astype(int)


def latent(seed: int) -> Tensor:
    return torch.randn(1, 16, generator=torch.Generator().manual_seed(seed))
