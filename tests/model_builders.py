"""For tests: trained models that were never trained. ``from tests.model_builders import random_bundle``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lanit.networks import GenerativeNetworks, NetworkOptions, Output
from pipeline.clip.fingerprint import Fingerprint
from pipeline.models.bundle import Bundle, save_bundle
from pipeline.prompts.embed_prompts import with_texts
from pipeline.prompts.prompt_sets import PromptSet

DOMAINS = ("blond hair", "black hair", "größer <5 | x")
EXCLUSIVE = ((0, 1, 0), (1, 0, 0), (0, 0, 0))  # blond or black, not both
COUNTS = {"blond hair": 12, "black hair": 1000, "größer <5 | x": 0}
TRAINING = {
    "steps": 70, "images_seen": 560, "seconds": 9, "precision": "float32", "images": 1600, "labelled": 1010,
    "images_per_domain": COUNTS, "options": {"size": 32, "learning_rate": 0.0001},
}  # fmt: skip


def random_networks(options: NetworkOptions, seed: int = 0) -> GenerativeNetworks:
    """Every weight drawn, those that training begins at zero or one too, and results mostly within [-1, 1]."""
    torch.manual_seed(seed)
    networks = GenerativeNetworks(options)
    for name, parameter in networks.named_parameters():
        if parameter.ndim == 1 or "biases" in name or "to_rgb" in name:
            torch.nn.init.normal_(parameter, std=0.2)
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return networks.eval().requires_grad_(False)


def random_bundle(
    size: int = 32,
    output: Output = "image",
    clip: Any = None,
    spec: str = "sample",
    seed: int = 0,
) -> Bundle:
    """A small model of three domains, of the given CLIP, or of one that is made up."""
    options = NetworkOptions(
        image_size=size, domains=4, channels=4, max_channels=8, style_dim=6, mapping_width=8, output=output
    )
    fingerprint = Fingerprint("tiny", "ab" * 32, {"size": 32}, "gelu", "fp32", 5) if clip is None else clip.fingerprint
    networks = random_networks(options, seed)
    texts = torch.nn.functional.normalize(torch.randn(4, fingerprint.embedding_dim), dim=1)
    prompts = PromptSet(DOMAINS, ("a {}.", "one {}"), ("a.", "one"), "test", (0.0, 0.01, 0.0), (1.0, 1.0, 2.0))
    return Bundle(
        networks=networks,
        options=options,
        prompt_set=prompts,
        fingerprint=fingerprint,
        clip_spec=spec if clip is None else clip.spec,
        clip_architecture=None,
        exclusive=torch.tensor(EXCLUSIVE, dtype=torch.bool),
        prompts=with_texts(prompts, texts[:3], texts[3]),
        training=TRAINING,
    )


def write_run(folder: Path, bundle: Bundle) -> Path:
    """The folder of a run as training leaves it, interrupted while it wrote a line of metrics; checkpoints left out."""
    save_bundle(folder / "model", bundle)
    (folder / "config.json").write_text("{}")
    lines = [
        {"step": 35, "images": 280, "seconds": 4.0, "kind": "sample", "judge": "clip", "recognised": 0.5, "kept": 0.7},
        {"step": 70, "images": 560, "seconds": 9.0, "kind": "sample", "judge": "clip", "recognised": 0.75, "kept": 0.8},
        {"step": 70, "images": 560, "seconds": 9.0, "kind": "losses", "cycle": 0.25},
        {"step": 99, "images": 792, "seconds": 12.0, "kind": "losses", "cycle": 0.2},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 70, "kind": "sam')
    return folder
