"""Shared fixtures: a tiny CLIP with random weights, saved as open_clip saves its own, and folders of drawn images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

TINY_CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
TINY_PREPROCESS: dict[str, Any] = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


def save_clip(folder: Path, config: dict[str, Any], seed: int, preprocess: dict[str, Any] | None = None) -> Path:
    """A random open_clip model in open_clip's folder layout."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    custom = config.get("custom_text", False)
    torch.manual_seed(seed)
    bare = {key: value for key, value in config.items() if key != "custom_text"}
    model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**bare)
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):  # zero at initialisation: the blocks would do nothing
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    document = {"model_cfg": config, "preprocess_cfg": TINY_PREPROCESS if preprocess is None else preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_clip(seed=0, **changes)`` saves a tiny random CLIP and returns its folder; changes go to its config."""
    made: dict[str, Path] = {}

    def make(seed: int = 0, preprocess: dict[str, Any] | None = None, **changes: Any) -> Path:
        key = json.dumps([seed, preprocess, changes], sort_keys=True)
        if key not in made:
            made[key] = save_clip(tmp_path_factory.mktemp("clip"), TINY_CONFIG | changes, seed, preprocess)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_clip_folder(make_clip: Callable[..., Path]) -> Path:
    """Folder of a tiny random CLIP: 32 px, 24 dimensions, context of 20 tokens."""
    return make_clip()


@pytest.fixture(scope="session")
def tiny_clip(tiny_clip_folder: Path) -> Any:
    """The model of :func:`tiny_clip_folder`, loaded."""
    from pipeline.clip_models import load_clip

    return load_clip(str(tiny_clip_folder))


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """``make_images(count, name="images", seed=0)`` writes that many small PNG files of noise, in two folders."""

    def make(count: int, name: str = "images", seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        folder = tmp_path / name
        for number in range(count):
            path = folder / ("a" if number % 2 else "b") / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            side = rng.integers(20, 60, 2)
            Image.fromarray(rng.integers(0, 256, (*side, 3), dtype=np.uint8)).save(path)
        return folder

    return make
