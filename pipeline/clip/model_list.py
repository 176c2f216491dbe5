"""The recommended CLIPs with what can be said of them without loading one: configuration, cache, expected speed."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import torch
from torch import nn

from pipeline.clip.presets import PRESETS, Preset
from pipeline.clip.sources import weight_files
from pipeline.computing.devices import pick_device

_WIDTH, _HEADS, _TOKENS, _IMAGES = 768, 12, 197, 1  # of ViT-B/16
_SECONDS = 0.2  # of measuring


@dataclass(frozen=True)
class ListedModel:
    """A row. preset: what ``--clip`` takes. size: of its images, pixels. parameters: of both towers, in millions.

    context: tokens that it reads of a text. learns: whether its prompts can be learned. extra: the extra of lanit that
    its texts need, if any. cached: whether its weights are on this machine. images_per_second: an estimate.
    """

    preset: str
    clip: str
    size: int
    parameters: int
    context: int
    languages: str
    accuracy: float
    licence: str
    learns: bool
    extra: str | None
    cached: bool
    images_per_second: float


@dataclass(frozen=True)
class ModelList:
    """models: in the order of the presets. device: that the speed is of; gigaflops: that it computed, a second."""

    models: tuple[ListedModel, ...]
    device: str
    gigaflops: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def list_models(device: str = "auto") -> ModelList:
    """The recommended CLIPs, none loaded and nothing fetched. Raises UsageError for a device that is not there."""
    where = pick_device(device)
    speed = gigaflops_per_second(where)
    return ModelList(tuple(_row(name, preset, speed) for name, preset in PRESETS.items()), str(where), round(speed, 1))


def gigaflops_per_second(device: torch.device) -> float:
    """How fast ``device`` computes a block of a transformer in float32, measured for a moment."""
    block = nn.TransformerEncoderLayer(_WIDTH, _HEADS, 4 * _WIDTH, 0.0, batch_first=True, device=device).eval()
    tokens = torch.randn(_IMAGES, _TOKENS, _WIDTH, device=device)
    flops = _IMAGES * (24 * _TOKENS * _WIDTH**2 + 4 * _TOKENS**2 * _WIDTH)
    with torch.inference_mode():
        _ended(block(tokens))
        began, runs = time.perf_counter(), 0
        while time.perf_counter() - began < _SECONDS:
            _ended(block(tokens))
            runs += 1
    return runs * flops / (time.perf_counter() - began) / 1e9


def _ended(result: torch.Tensor) -> None:
    if result.is_cuda:
        torch.cuda.synchronize(result.device)


def _row(name: str, preset: Preset, speed: float) -> ListedModel:
    architecture, _, tag = preset.clip.partition("/")
    config: dict[str, Any] = open_clip.get_model_config(architecture)
    text = config["text_cfg"]
    needs = bool(text.get("hf_tokenizer_name") or text.get("hf_model_name"))
    return ListedModel(
        preset=name,
        clip=preset.clip,
        size=config["vision_cfg"]["image_size"],
        parameters=preset.parameters,
        context=text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
        languages=preset.languages,
        accuracy=preset.accuracy,
        licence=preset.licence,
        learns=not needs,
        extra="transformers" if needs else None,
        cached=is_cached(architecture, tag),
        images_per_second=float(f"{speed / preset.gigaflops:.2g}"),
    )


def is_cached(architecture: str, tag: str) -> bool:
    """Whether the weights of open_clip's tag are on this machine."""
    repository, names = weight_files(architecture, tag)
    if repository is not None:
        return any(isinstance(huggingface_hub.try_to_load_from_cache(repository, name), str) for name in names)
    return any((Path("~/.cache/clip").expanduser() / name).is_file() for name in names)
