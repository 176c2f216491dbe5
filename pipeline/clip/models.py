"""CLIP models by name, folder or file, all through open_clip, with their fingerprints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lanit.errors import LanitError, excerpt
from lanit.preprocessing import ClipPreprocessing
from lanit.prompts import TextTower
from pipeline.clip.fingerprint import Fingerprint
from pipeline.clip.kept_texts import KeptTexts
from pipeline.clip.local_folders import read_words, unknown_words
from pipeline.clip.presets import DEFAULT, PRESETS
from pipeline.clip.reach import ELSEWHERE
from pipeline.clip.sources import CONFIG_NAME, architecture_name, resolve
from pipeline.clip.text_towers import check_text, text_tower, token_count
from pipeline.clip.towers import Towers, weights_digest
from pipeline.clip.world import World, read_world
from pipeline.computing.quiet import quiet

DEFAULT_CLIP = PRESETS[DEFAULT].clip

P = ParamSpec("P")
T = TypeVar("T")
Precision = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ClipModel:
    """A frozen CLIP.

    spec, architecture: what :func:`load_clip` was given, local paths made absolute.
    towers: its model; the image tower is loaded when the first image is encoded, the text side with the first text.
    make_tokenizer, make_text: what cuts texts into tokens, and the text side of the model with that. They are made when
        a text is read: images need neither, nor the packages behind them.
    logit_scale: α, exp(logit_scale), 100 for OpenAI's models. A model that was trained with a sigmoid has a bias too,
        which the margin does without: the log-odds of two texts for an image differ by α (f_n − f_base).
    vocabulary: the words the model was trained on, where its folder has a ``vocabulary.json``; else none.
    world: what its images look like to it, where its folder has a ``world.safetensors``; else none.
    kept_texts: text vectors that were made before, of a CLIP that goes with a store; else none.
    """

    spec: str
    architecture: str | None
    towers: Towers = field(repr=False)
    fingerprint: Fingerprint
    preprocessing: ClipPreprocessing
    make_tokenizer: Callable[[], Any] = field(repr=False)
    logit_scale: float
    vocabulary: frozenset[str] | None = field(default=None, repr=False)
    world: World | None = field(default=None, repr=False)
    make_text: Callable[[nn.Module, Any], TextTower] = field(default=text_tower, repr=False)
    kept_texts: KeptTexts | None = field(default=None, repr=False)

    def run(self, work: Callable[Concatenate[ClipModel, P], T], *arguments: P.args, **options: P.kwargs) -> T:
        """``work(clip, …)`` with the model where it is loaded, which for that of a store may be another process."""
        return work(self, *arguments, **options)

    @cached_property
    def tokenizer(self) -> Any:
        with quiet():
            return self.make_tokenizer()

    @cached_property
    def text(self) -> TextTower:
        return self.make_text(self.towers.texts(), self.tokenizer)

    @property
    def model(self) -> Any:
        """open_clip's model with both of its sides."""
        return self.towers.whole()

    @property
    def device(self) -> torch.device:
        return self.towers.device

    @property
    def context_length(self) -> int:
        """Tokens of a text at most, start and end included."""
        return int(self.tokenizer.context_length)

    @property
    def embedding_dim(self) -> int:
        return self.fingerprint.embedding_dim

    def encode_images(self, images: Tensor) -> Tensor:
        """Unit-norm embeddings v̄, float32 (B×k), of images, float32 (B×3×H×W) in [-1, 1]; differentiable."""
        return self.encode_preprocessed(self.preprocessing(images.float()))

    def encode_preprocessed(self, images: Tensor) -> Tensor:
        """Unit-norm embeddings, float32 (B×k), of images that :attr:`preprocessing` has passed, float32 (B×3×s×s)."""
        dtype = DTYPES[self.fingerprint.precision]
        features: Tensor = self.towers.images().encode_image(images.to(dtype, memory_format=torch.channels_last))
        return F.normalize(features.float(), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Projected text features, float32 (P×k), not normalised, by the model's own ``encode_text``.

        Raises LanitError where a text is longer than the context or holds a mark such as ``</s>``, if the tokenizer can
        tell.
        """
        for text in texts:
            check_text(self.tokenizer, text)
        tokens = self.tokenizer(list(texts)).to(self.device)
        features: Tensor = self.towers.texts().encode_text(tokens, normalize=False)
        return features.float()

    def reads(self, text: str) -> bool:
        """Whether ``text`` is no longer than the context, as far as the tokenizer can tell."""
        length = token_count(self.tokenizer, text)
        return length is None or length <= self.tokenizer.context_length

    def unknown_words(self, phrases: Sequence[str]) -> list[str]:
        """Words of ``phrases`` that the model never saw, each once, in order; empty where it lists no vocabulary."""
        return unknown_words(self.vocabulary, phrases)


def load_clip(
    spec: str, device: torch.device | str = "cpu", architecture: str | None = None, precision: Precision = "fp32"
) -> ClipModel:
    """Load a CLIP, frozen, in evaluation mode. Its weights are read here, for the fingerprint, and take memory as
    images or texts are encoded.

    spec: ``sample``; a preset such as ``good`` (``presets.py``); a folder with ``open_clip_config.json`` and weights; a
        weights file (.pt, .pth, .bin, .safetensors); ``NAME`` or ``NAME/TAG`` of open_clip; a repository as
        ``owner/name``, ``hf-hub:`` before it or not.
    architecture: open_clip name for a weights file. Without it the configuration beside the file is used, else
        ViT-B-32. OpenAI's own archives are recognised; their weights saved otherwise need ViT-B-32-quickgelu.
    precision: of the image tower's weights and arithmetic; the text tower is always in float32.
    Raises LanitError (UsageError for an unknown name) with what to type next. The network is used only for names
    and ``hf-hub:``, and not where HF_HUB_OFFLINE is set or the hub cannot be reached.
    """
    with quiet(), torch.inference_mode(False):  # wherever it is first asked for, gradients may pass it later
        source = resolve(spec, architecture)
        model, weights = source.build()
    model.eval().requires_grad_(False)
    preprocessing = _preprocessing(model, source.spec)
    fingerprint = Fingerprint(
        architecture=architecture_name(source.config),
        weights_sha256=weights_digest(model, weights),
        preprocessing=preprocessing.to_json(),
        activation="quick_gelu" if source.config.get("quick_gelu") else "gelu",
        precision=precision,
        embedding_dim=int(source.config["embed_dim"]),
    )
    return ClipModel(
        spec=source.spec,
        architecture=architecture,
        towers=Towers(model, weights, device, DTYPES[precision]),
        fingerprint=fingerprint,
        preprocessing=preprocessing,
        make_tokenizer=source.tokenizer,
        logit_scale=float(weights["logit_scale"].detach().float().exp()),
        vocabulary=read_words(source.folder),
        world=read_world(source.folder),
    )


def _preprocessing(model: Any, spec: str) -> ClipPreprocessing:
    config = model.visual.preprocess_cfg
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise LanitError(f"this CLIP reads images of {height}×{width}; lanit feeds squares only", ELSEWHERE)
    _check_tower_size(model.visual, int(height), spec)
    return ClipPreprocessing(
        size=int(height),
        mean=_three_channels(config["mean"], "mean", spec),
        std=_three_channels(config["std"], "std", spec),
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",  # as open_clip reads "random"
        resize_mode=config["resize_mode"],
        fill_color=int(config["fill_color"]),
    )


def _three_channels(value: Any, name: str, spec: str) -> tuple[float, float, float]:
    """A number for each channel: as given, or one for all of them, which open_clip takes as well."""
    numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    try:
        red, green, blue = (float(number) for number in (numbers * 3 if len(numbers) == 1 else numbers))
    except (TypeError, ValueError):
        red = green = blue = math.nan
    if not all(math.isfinite(number) and (name == "mean" or number > 0) for number in (red, green, blue)):
        message = f"the {name} of CLIP '{spec}' is no number for each of three channels: {excerpt(str(value))}"
        raise LanitError(message, f"Mend preprocess_cfg in its {CONFIG_NAME}.")
    return red, green, blue


def _check_tower_size(visual: Any, size: int, spec: str) -> None:
    """Raise LanitError where images of ``size`` would fail in the patches of a tower of timm, whose size its name
    says: open_clip builds it at that, whatever the configuration wants."""
    patches = getattr(getattr(visual, "trunk", None), "patch_embed", None)
    expected = getattr(patches, "img_size", None)
    if expected and getattr(patches, "strict_img_size", True) and tuple(expected) != (size, size):
        message = f"the image tower of CLIP '{spec}' reads {expected[0]} px, and its configuration says {size} px"
        raise LanitError(message, f"Set image_size to {expected[0]} in its {CONFIG_NAME}.")
