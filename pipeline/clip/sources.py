"""From what ``--clip`` names to a model of open_clip: by name, file, folder or hub."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import huggingface_hub.constants
import open_clip
import torch
from huggingface_hub import errors
from torch import Tensor
from torch.utils import serialization

from lanit.errors import LanitError, UsageError
from pipeline.clip.hub import PREFIX, fetch_first, find_repository
from pipeline.clip.hub import hub_answers as _hub_answers
from pipeline.clip.local_folders import SAMPLE_FOLDER, WEIGHT_SUFFIXES
from pipeline.clip.presets import OF_TRANSFORMERS, PRESETS
from pipeline.clip.reach import ELSEWHERE, HUB_WEIGHTS, unavailable
from pipeline.clip.tokenizers import local_text, make_tokenizer
from pipeline.clip.towers import Uninitialised, check_weights
from pipeline.files import read_json
from pipeline.stand_ins import refuse_stand_in

DEFAULT_ARCHITECTURE = "ViT-B-32"
CONFIG_NAME = "open_clip_config.json"
_FOLDER_WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A resolved spec. name: for open_clip's factory; tag: of pretrained weights; weights: a file of our own choice.

    config: open_clip's model configuration, with ``quick_gelu`` as it will be built. remote: may use the network.
    folder: with the weights, whose other files describe the model, where there is one.
    """

    spec: str
    name: str
    config: dict[str, Any]
    tag: str | None = None
    weights: Path | None = None
    folder: Path | None = None
    remote: bool = False

    def build(self) -> tuple[Any, dict[str, Tensor]]:
        """open_clip's model, which has no weights, and those that it is to have, by its names."""
        text = self.config.get("text_cfg", {})
        towers = {"text_cfg": self._local_text()} if text.get("hf_model_name") else {}
        try:
            file, preprocessing = _weights_of_tag(self.name, self.tag) if self.tag else (self.weights, None)
            with Uninitialised():
                model = open_clip.create_model(
                    self.name,
                    load_weights=False,
                    pretrained_text=False,
                    force_quick_gelu=bool(self.config.get("quick_gelu", False)),
                    force_preprocess_cfg=preprocessing,
                    **towers,
                )
            if self.weights is None:
                weights = _read_weights(model, str(file or _weights_in(Path(self.name.partition(":")[2]))))
                check_weights(model, weights)
        except Exception as error:  # open_clip, timm, transformers and the hub raise anything
            if self.remote:
                raise _unavailable(self.spec, error) from error
            hint = f"Check the weights and {CONFIG_NAME} there."
            raise LanitError(f"CLIP '{self.spec}' does not load ({_reason(error)})", hint) from error
        return model, weights if self.weights is None else self._own_weights(model, self.weights)

    def tokenizer(self) -> Any:
        """What cuts texts into this CLIP's tokens. Raises LanitError where it cannot be had."""
        return make_tokenizer(self.spec, self.config.get("text_cfg", {}), self.folder, remote=self.remote)

    def _local_text(self) -> dict[str, Any]:
        return local_text(self.spec, self.config["text_cfg"], self.folder, remote=self.remote)

    def _own_weights(self, model: Any, file: Path) -> dict[str, Tensor]:
        try:
            weights = _read_weights(model, str(file))
            check_weights(model, weights)
            return weights
        except Exception as error:
            # open_clip resizes position embeddings and asserts what it cannot
            mismatch = isinstance(error, RuntimeError | AttributeError | AssertionError)
            if mismatch and re.search("size mismatch|key|shape|pos_embed", str(error)):
                raise LanitError(
                    f"the weights in {file} do not fit the architecture {self.name} ({_reason(error)})",
                    f"Name theirs with --clip-arch (such as ViT-L-14), or give a folder with {CONFIG_NAME}.",
                ) from error
            raise LanitError(f"{file} cannot be read as CLIP weights ({_reason(error)})", ELSEWHERE) from error


class _Receiver:
    """Stands for a model before open_clip's ``load_checkpoint``, which converts what a file holds to the names and
    shapes of the model, and takes that from it."""

    def __init__(self, model: Any) -> None:
        self._model, self.weights = model, dict[str, Tensor]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def load_state_dict(self, weights: dict[str, Tensor], strict: bool = True) -> None:
        self.weights = weights


def _weights_in(folder: Path) -> Path:
    """The file that open_clip takes of a folder. Raises FileNotFoundError where there is none of its kinds."""
    found = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".pth"))
    if not found:
        raise FileNotFoundError("it has no .safetensors, .bin or .pth")
    known = [folder / name for name in _FOLDER_WEIGHTS if folder / name in found]
    return next(iter(known), min(found, key=lambda file: file.suffix != ".safetensors"))


def _read_weights(model: Any, file: str) -> dict[str, Tensor]:
    """The weights of a file by the names of ``model``: mapped into memory where it is of a kind that can be."""
    if _is_torchscript(Path(file)):
        weights: dict[str, Tensor] = torch.jit.load(file, map_location="cpu").state_dict()
        for key in ("input_resolution", "context_length", "vocab_size"):
            weights.pop(key, None)
        return weights
    receiver, settings = _Receiver(model), cast(Any, serialization.config)
    with settings.patch("load.mmap", zipfile.is_zipfile(file)):
        open_clip.load_checkpoint(receiver, file)
    return receiver.weights


def resolve(spec: str, architecture: str | None) -> Source:
    path = Path(spec.removeprefix("local-dir:")).expanduser()
    repository = find_repository(spec)
    if spec == "sample":
        if not (SAMPLE_FOLDER / CONFIG_NAME).is_file():
            raise LanitError("the sample CLIP is missing from this installation", "Reinstall lanit.")
        source = _from_folder(SAMPLE_FOLDER, "sample")
    elif spec in PRESETS:
        source = _from_name(PRESETS[spec].clip)
    elif path.is_dir():
        source = _from_folder(path.resolve(), str(path.resolve()))
    elif path.is_file() or path.suffix in WEIGHT_SUFFIXES:
        return _from_file(path.resolve(), architecture)
    elif spec.removeprefix(PREFIX) in OF_TRANSFORMERS:
        source = _from_name(OF_TRANSFORMERS[spec.removeprefix(PREFIX)])
    elif spec.startswith(PREFIX) or (repository is not None and not _is_like_a_name(repository.name)):
        source = _from_hub(PREFIX + spec.removeprefix(PREFIX))
    else:
        source = _from_name(spec)
    if architecture is not None:
        raise UsageError(f"--clip-arch is only for a weights file, not for --clip {spec}", "Leave it out.")
    return source


def _from_folder(folder: Path, spec: str) -> Source:
    if not (folder / CONFIG_NAME).is_file():
        hint = "Give the weights file itself, with --clip-arch NAME."
        raise LanitError(f"the folder {folder} has no {CONFIG_NAME}", hint)
    weights = sorted(file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    if not weights:
        raise LanitError(f"the folder {folder} has no weights ({', '.join(WEIGHT_SUFFIXES)})", ELSEWHERE)
    for file in weights:
        refuse_stand_in(file)
    return Source(spec, f"local-dir:{folder}", _folder_config(folder), folder=folder)


def _folder_config(folder: Path) -> dict[str, Any]:
    value = read_json(folder / CONFIG_NAME, ELSEWHERE)
    config = value.get("model_cfg") if isinstance(value, dict) else None
    if not isinstance(config, dict) or "embed_dim" not in config:
        raise LanitError(f"{folder / CONFIG_NAME} has no model_cfg", ELSEWHERE)
    return config


def _from_file(file: Path, architecture: str | None) -> Source:
    if not file.is_file():
        raise LanitError(f"there is no weights file {file}", ELSEWHERE)
    refuse_stand_in(file)
    if architecture is None and (file.parent / CONFIG_NAME).is_file():
        config = _folder_config(file.parent)
        return Source(str(file), f"local-dir:{file.parent}", config, weights=file, folder=file.parent)
    name = architecture or DEFAULT_ARCHITECTURE
    config = _builtin_config(name)
    if _is_torchscript(file):
        config["quick_gelu"] = True  # only OpenAI published TorchScript archives, trained with QuickGELU
    return Source(str(file), name, config, weights=file, folder=file.parent)


def _from_name(spec: str) -> Source:
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
    return Source(f"{name}/{tag}", name, config, tag=tag, remote=True)


def _from_hub(spec: str) -> Source:
    """A repository, by its copy in the hub's cache."""
    repository = spec.removeprefix(PREFIX)
    try:
        cached = _cached_only()
        folder = fetch_first(repository, [CONFIG_NAME], cached=cached).parent
        fetch_first(repository, HUB_WEIGHTS, cached=cached)
    except Exception as error:
        if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            message = f"the repository {repository} holds no CLIP in open_clip's form ({CONFIG_NAME} and its weights)"
            raise LanitError(message, "Choose one of: lanit models") from error
        raise _unavailable(spec, error) from error
    return Source(spec, f"local-dir:{folder}", _folder_config(folder), remote=True)


def _is_like_a_name(text: str) -> bool:
    """Whether NAME/TAG of open_clip was meant, perhaps misspelt, and not the name of a repository."""
    return bool(difflib.get_close_matches(text.partition("/")[0], open_clip.list_models(), n=1, cutoff=0.6))


def weight_files(name: str, tag: str) -> tuple[str | None, list[str]]:
    """Where the weights of a tag of open_clip are: a repository of the hub, and the files of which the first it has
    will do; or none, and the file in open_clip's own cache."""
    known: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    if not known.get("hf_hub"):
        return None, [known["url"].rpartition("/")[2]]
    repository, _, file = known["hf_hub"].rpartition("/")
    if file.endswith((".bin", ".pth")):
        return repository, [f"{file[:-4]}.safetensors", file]
    return repository, [file] if file else HUB_WEIGHTS


def _weights_of_tag(name: str, tag: str) -> tuple[str, dict[str, Any]]:
    """The file of a tag's weights, as open_clip chooses it, and how its images are to be prepared."""
    known: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    preprocessing = {key: value for key, value in known.items() if key not in ("url", "hf_hub", "quick_gelu")}
    repository, names = weight_files(name, tag)
    if repository is None:
        return str(open_clip.download_pretrained(known)), preprocessing
    return str(fetch_first(repository, names, cached=_cached_only())), preprocessing


def _builtin_config(name: str) -> dict[str, Any]:
    config: dict[str, Any] | None = open_clip.get_model_config(name)
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}? Or choose one of: lanit models" if close else ELSEWHERE
        raise UsageError(f"there is no CLIP '{name}': neither a file, nor a folder, nor a name open_clip knows", hint)
    return config


def architecture_name(config: dict[str, Any]) -> str:
    """open_clip's name of an equal configuration, activation aside, else a digest; wherever it came from."""
    bare = {key: value for key, value in config.items() if key != "quick_gelu"}
    for name in open_clip.list_models():
        known: dict[str, Any] = open_clip.get_model_config(name) or {}
        if {key: value for key, value in known.items() if key != "quick_gelu"} == bare:
            return str(name).removesuffix("-quickgelu")
    return f"custom-{hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:8]}"


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("/code/" in name for name in archive.namelist())


def _reason(error: BaseException) -> str:
    """One short line of a long message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


def _unavailable(spec: str, error: Exception) -> LanitError:
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set, and they are not in the cache"
    else:
        reason = _reason(error) if _hub_answers() else "Hugging Face cannot be reached from here"
    return unavailable(spec, reason)


def _cached_only() -> bool:
    """Whether to ask the hub's cache alone: an unreachable hub is as good as HF_HUB_OFFLINE, and what is cached then
    loads at once, not after a minute of retries."""
    return huggingface_hub.constants.HF_HUB_OFFLINE or not _hub_answers()
