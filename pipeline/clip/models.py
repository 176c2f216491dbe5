"""CLIP models by name, folder or file, all through open_clip, with their fingerprints."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import huggingface_hub.constants
import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lanit.errors import LanitError, UsageError, excerpt
from lanit.preprocessing import ClipPreprocessing
from lanit.prompts import TextTower
from pipeline.clip.fingerprint import Fingerprint
from pipeline.clip.hub import fetch_first
from pipeline.clip.hub import hub_answers as _hub_answers
from pipeline.clip.text_towers import text_tower
from pipeline.computing.quiet import quiet
from pipeline.files import read_json
from pipeline.stand_ins import refuse_stand_in

DEFAULT_CLIP = "ViT-B-32/openai"
DEFAULT_ARCHITECTURE = "ViT-B-32"
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
SAMPLE_FOLDER = Path(__file__).parents[1] / "assets" / "sample-clip"
CONFIG_NAME = "open_clip_config.json"
_HUB_WEIGHTS = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]  # of a repository, the first it has
_ELSEWHERE = "Give local weights (--clip FILE or FOLDER), or try --clip sample."

Precision = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ClipModel:
    """A frozen CLIP.

    spec, architecture: what :func:`load_clip` was given, local paths made absolute.
    logit_scale: α, exp(logit_scale), 100 for OpenAI's models.
    vocabulary: the words the model was trained on, where its folder has a ``vocabulary.json``; else none.
    """

    spec: str
    architecture: str | None
    model: nn.Module = field(repr=False)
    fingerprint: Fingerprint
    preprocessing: ClipPreprocessing
    text: TextTower
    tokenizer: Any = field(repr=False)
    logit_scale: float
    vocabulary: frozenset[str] | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def embedding_dim(self) -> int:
        return self.fingerprint.embedding_dim

    def encode_images(self, images: Tensor) -> Tensor:
        """Unit-norm embeddings v̄, float32 (B×k), of images, float32 (B×3×H×W) in [-1, 1]; differentiable."""
        return self.encode_preprocessed(self.preprocessing(images.float()))

    def encode_preprocessed(self, images: Tensor) -> Tensor:
        """Unit-norm embeddings, float32 (B×k), of images that :attr:`preprocessing` has passed, float32 (B×3×s×s)."""
        dtype = DTYPES[self.fingerprint.precision]
        features: Tensor = self.model.encode_image(images.to(dtype, memory_format=torch.channels_last))  # type: ignore[operator]
        return F.normalize(features.float(), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Projected text features, float32 (P×k), not normalised, by the model's own ``encode_text``.

        Raises LanitError where a text is longer than the context, if the tokenizer can tell.
        """
        if isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            for text in texts:
                if len(self.tokenizer.encode(text)) + 2 > self.text.context_length:
                    raise LanitError(
                        f"'{excerpt(text)}' is longer than the {self.text.context_length} tokens this CLIP reads",
                        "Shorten the text.",
                    )
        features: Tensor = self.model.encode_text(self.tokenizer(list(texts)).to(self.device))  # type: ignore[operator]
        return features.float()

    def unknown_words(self, phrases: Sequence[str]) -> list[str]:
        """Words of ``phrases`` that the model never saw, each once, in order; empty where it lists no vocabulary."""
        if self.vocabulary is None:
            return []
        words = (word for phrase in phrases for word in re.findall(r"[^\W_]+", phrase.lower()))
        return list(dict.fromkeys(word for word in words if word not in self.vocabulary))


def load_clip(
    spec: str, device: torch.device | str = "cpu", architecture: str | None = None, precision: Precision = "fp32"
) -> ClipModel:
    """Load a CLIP, frozen, in evaluation mode.

    spec: ``sample``; a folder with ``open_clip_config.json`` and weights; a weights file (.pt, .pth, .bin,
        .safetensors); ``NAME`` or ``NAME/TAG`` of open_clip; ``hf-hub:org/name``.
    architecture: open_clip name for a weights file. Without it the configuration beside the file is used, else
        ViT-B-32. OpenAI's own archives are recognised; their weights saved otherwise need ViT-B-32-quickgelu.
    precision: of the image tower's weights and arithmetic; the text tower is always in float32.
    Raises LanitError (UsageError for an unknown name) with what to type next. The network is used only for names
    and ``hf-hub:``, and not where HF_HUB_OFFLINE is set or the hub cannot be reached.
    """
    with quiet():
        source = _resolve(spec, architecture)
        model = source.build()
    model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    preprocessing = _preprocessing(model)
    fingerprint = Fingerprint(
        architecture=_architecture_name(source.config),
        weights_sha256=weights_digest(model),
        preprocessing=preprocessing.to_json(),
        activation="quick_gelu" if source.config.get("quick_gelu") else "gelu",
        precision=precision,
        embedding_dim=int(source.config["embed_dim"]),
    )
    model.visual.to(DTYPES[precision])
    with quiet():
        tokenizer = _tokenizer(source)
    return ClipModel(
        spec=source.spec,
        architecture=architecture,
        model=model.to(device),
        fingerprint=fingerprint,
        preprocessing=preprocessing,
        text=text_tower(model, tokenizer),
        tokenizer=tokenizer,
        logit_scale=float(model.logit_scale.detach().exp()),
        vocabulary=_vocabulary(source.folder),
    )


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the sorted state dict: names, types, shapes and bytes. Independent of the kind of file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@dataclass
class _Source:
    """A resolved spec. name: for open_clip's factory; tag: of pretrained weights; weights: a file of our own choice.

    config: open_clip's model configuration, with ``quick_gelu`` as it will be built. remote: may use the network.
    """

    spec: str
    name: str
    config: dict[str, Any]
    tag: str | None = None
    weights: Path | None = None
    folder: Path | None = None
    remote: bool = False

    def build(self) -> Any:
        quick = bool(self.config.get("quick_gelu", False))
        own = self.weights is not None
        try:
            weights, preprocessing = _weights_of_tag(self.name, self.tag) if self.tag else (None, None)
            model = open_clip.create_model(
                self.name,
                pretrained=weights,
                load_weights=not own,
                require_pretrained=not own,
                pretrained_text=False,
                force_quick_gelu=quick,
                force_preprocess_cfg=preprocessing,
            )
        except Exception as error:  # open_clip, timm, transformers and the hub raise anything
            if self.remote:
                raise _unavailable(self.spec, error) from error
            hint = f"Check the weights and {CONFIG_NAME} there."
            raise LanitError(f"CLIP '{self.spec}' does not load ({_reason(error)})", hint) from error
        if self.weights is not None:
            self._load_file(model, self.weights)
        return model

    def _load_file(self, model: Any, file: Path) -> None:
        try:
            if _is_torchscript(file):
                state = torch.jit.load(str(file), map_location="cpu").state_dict()
                for key in ("input_resolution", "context_length", "vocab_size"):
                    state.pop(key, None)
                model.load_state_dict(state, strict=True)
            else:
                open_clip.load_checkpoint(model, str(file), strict=True)
        except Exception as error:
            # open_clip resizes position embeddings and asserts what it cannot
            mismatch = isinstance(error, RuntimeError | AttributeError | AssertionError)
            if mismatch and re.search("size mismatch|key|shape|pos_embed", str(error)):
                raise LanitError(
                    f"the weights in {file} do not fit the architecture {self.name} ({_reason(error)})",
                    f"Name theirs with --clip-arch (such as ViT-L-14), or give a folder with {CONFIG_NAME}.",
                ) from error
            raise LanitError(f"{file} cannot be read as CLIP weights ({_reason(error)})", _ELSEWHERE) from error


def _resolve(spec: str, architecture: str | None) -> _Source:
    path = Path(spec.removeprefix("local-dir:")).expanduser()
    if spec == "sample":
        if not (SAMPLE_FOLDER / CONFIG_NAME).is_file():
            raise LanitError("the sample CLIP is missing from this installation", "Reinstall lanit.")
        source = _from_folder(SAMPLE_FOLDER, "sample")
    elif path.is_dir():
        source = _from_folder(path.resolve(), str(path.resolve()))
    elif path.is_file() or path.suffix in WEIGHT_SUFFIXES:
        return _from_file(path.resolve(), architecture)
    elif spec.startswith("hf-hub:"):
        source = _from_hub(spec)
    else:
        source = _from_name(spec)
    if architecture is not None:
        raise UsageError(f"--clip-arch is only for a weights file, not for --clip {spec}", "Leave it out.")
    return source


def _from_folder(folder: Path, spec: str) -> _Source:
    if not (folder / CONFIG_NAME).is_file():
        hint = "Give the weights file itself, with --clip-arch NAME."
        raise LanitError(f"the folder {folder} has no {CONFIG_NAME}", hint)
    weights = [file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES]
    if not weights:
        raise LanitError(f"the folder {folder} has no weights ({', '.join(WEIGHT_SUFFIXES)})", _ELSEWHERE)
    for file in sorted(weights):
        refuse_stand_in(file)
    return _Source(spec, f"local-dir:{folder}", _folder_config(folder), folder=folder)


def _folder_config(folder: Path) -> dict[str, Any]:
    value = read_json(folder / CONFIG_NAME, _ELSEWHERE)
    config = value.get("model_cfg") if isinstance(value, dict) else None
    if not isinstance(config, dict) or "embed_dim" not in config:
        raise LanitError(f"{folder / CONFIG_NAME} has no model_cfg", _ELSEWHERE)
    return config


def _from_file(file: Path, architecture: str | None) -> _Source:
    if not file.is_file():
        raise LanitError(f"there is no weights file {file}", _ELSEWHERE)
    refuse_stand_in(file)
    if architecture is None and (file.parent / CONFIG_NAME).is_file():
        return _Source(str(file), f"local-dir:{file.parent}", _folder_config(file.parent), weights=file)
    name = architecture or DEFAULT_ARCHITECTURE
    config = _builtin_config(name)
    if _is_torchscript(file):
        config["quick_gelu"] = True  # only OpenAI published TorchScript archives, trained with QuickGELU
    return _Source(str(file), name, config, weights=file)


def _from_name(spec: str) -> _Source:
    name, _, tag = spec.partition("/")
    config = _builtin_config(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tag:
        tag = "openai" if "openai" in tags or not tags else tags[0] if len(tags) == 1 else ""
    if tag not in tags:
        raise UsageError(
            f"CLIP {name} has no weights '{tag}'" if tag else f"CLIP {name} has several weights",
            f"Choose {name}/TAG, with TAG one of {', '.join(tags)}.",
        )
    if open_clip.get_pretrained_cfg(name, tag).get("quick_gelu"):
        config["quick_gelu"] = True  # open_clip only warns, and the embeddings would be silently wrong
    return _Source(f"{name}/{tag}", name, config, tag=tag, remote=True)


def _from_hub(spec: str) -> _Source:
    """A repository, by its copy in the hub's cache."""
    repository = spec.removeprefix("hf-hub:")
    try:
        cached = _cached_only()
        folder = fetch_first(repository, [CONFIG_NAME], cached=cached).parent
        fetch_first(repository, _HUB_WEIGHTS, cached=cached)
    except Exception as error:
        raise _unavailable(spec, error) from error
    return _Source(spec, f"local-dir:{folder}", _folder_config(folder), remote=True)


def _weights_of_tag(name: str, tag: str) -> tuple[str, dict[str, Any]]:
    """The file of a tag's weights, as open_clip chooses it, and how its images are to be prepared."""
    known: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    preprocessing = {key: value for key, value in known.items() if key not in ("url", "hf_hub", "quick_gelu")}
    if not known.get("hf_hub"):
        return str(open_clip.download_pretrained(known)), preprocessing
    repository, _, file = known["hf_hub"].rpartition("/")
    names = [f"{file[:-4]}.safetensors", file] if file.endswith((".bin", ".pth")) else [file] if file else _HUB_WEIGHTS
    return str(fetch_first(repository, names, cached=_cached_only())), preprocessing


def _builtin_config(name: str) -> dict[str, Any]:
    config: dict[str, Any] | None = open_clip.get_model_config(name)
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}? Or try --clip sample." if close else _ELSEWHERE
        raise UsageError(f"there is no CLIP '{name}': neither a file, nor a folder, nor a name open_clip knows", hint)
    return config


def _architecture_name(config: dict[str, Any]) -> str:
    """open_clip's name of an equal configuration, activation aside, else a digest; wherever it came from."""
    bare = {key: value for key, value in config.items() if key != "quick_gelu"}
    for name in open_clip.list_models():
        known: dict[str, Any] = open_clip.get_model_config(name) or {}
        if {key: value for key, value in known.items() if key != "quick_gelu"} == bare:
            return str(name).removesuffix("-quickgelu")
    return f"custom-{hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:8]}"


def _preprocessing(model: Any) -> ClipPreprocessing:
    config = model.visual.preprocess_cfg
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise LanitError(f"this CLIP reads images of {height}×{width}; lanit feeds squares only", _ELSEWHERE)
    red, green, blue = (float(value) for value in config["mean"])
    mean = (red, green, blue)
    red, green, blue = (float(value) for value in config["std"])
    return ClipPreprocessing(
        size=int(height),
        mean=mean,
        std=(red, green, blue),
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",  # as open_clip reads "random"
        resize_mode=config["resize_mode"],
        fill_color=int(config["fill_color"]),
    )


def _tokenizer(source: _Source) -> Any:
    text = source.config.get("text_cfg", {})
    try:
        if source.remote and text.get("hf_tokenizer_name"):
            return open_clip.tokenizer.HFTokenizer(
                text["hf_tokenizer_name"],
                context_length=text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
                tokenizer_mode=text.get("tokenizer_mode"),
                local_files_only=_cached_only(),
                **text.get("tokenizer_kwargs", {}),
            )
        return open_clip.get_tokenizer(source.name)
    except Exception as error:
        raise _unavailable(source.spec, error, "tokenizer") from error


def _vocabulary(folder: Path | None) -> frozenset[str] | None:
    if folder is None or not (folder / "vocabulary.json").is_file():
        return None
    words = read_json(folder / "vocabulary.json")
    return frozenset(str(word).lower() for word in words)


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("/code/" in name for name in archive.namelist())


def _reason(error: BaseException) -> str:
    """One short line of a long message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


def _unavailable(spec: str, error: Exception, what: str = "weights") -> LanitError:
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set, and they are not in the cache"
    else:
        reason = _reason(error) if _hub_answers() else "Hugging Face cannot be reached from here"
    return LanitError(f"the {what} of CLIP '{spec}' cannot be had: {reason}", _ELSEWHERE)


def _cached_only() -> bool:
    """Whether to ask the hub's cache alone: an unreachable hub is as good as HF_HUB_OFFLINE, and what is cached then
    loads at once, not after a minute of retries."""
    return huggingface_hub.constants.HF_HUB_OFFLINE or not _hub_answers()
