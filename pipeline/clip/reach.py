"""Whether the weights of a CLIP can be had at all, found out before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import huggingface_hub.constants

from lanit.errors import LanitError
from pipeline.clip.hub import PREFIX, hub_answers
from pipeline.clip.local_folders import local_folder
from pipeline.clip.presets import DEFAULT, OF_TRANSFORMERS, PRESETS

HUB_WEIGHTS = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
"""Of a repository in open_clip's form: the first it has."""
ELSEWHERE = "Give local weights: --clip FILE or FOLDER (--clip sample needs none, and knows drawn faces only)."


def check_reachable(spec: str) -> None:
    """Raise LanitError where the weights of ``spec`` are neither in the cache of the Hugging Face hub nor to be had.

    Nothing is said of what lies on this machine, nor of most names of open_clip, whose places it alone knows.
    """
    if spec not in PRESETS and Path(spec).expanduser().exists():
        return
    clip, repository = _clip_of(spec), _repository(spec)
    if repository is None or _in_cache(repository):
        return
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise unavailable(clip, "HF_HUB_OFFLINE is set, and they are not in the cache")
    if not hub_answers():
        raise unavailable(clip, "Hugging Face cannot be reached from here")


def is_here(spec: str) -> bool:
    """Whether the weights of ``spec`` lie on this machine, as far as is known, which it is not of all of open_clip."""
    repository = _repository(spec)
    return local_folder(spec) is not None or (repository is not None and _in_cache(repository))


def _repository(spec: str) -> str | None:
    """Of the hub, where that is known without open_clip."""
    clip = _clip_of(spec)
    named = spec.removeprefix(PREFIX) if clip == spec and spec.startswith(PREFIX) else None
    return next((preset.repository for preset in PRESETS.values() if preset.clip == clip), named)


def _in_cache(repository: str) -> bool:
    name, _, revision = repository.partition("@")
    files = (huggingface_hub.try_to_load_from_cache(name, file, revision=revision or None) for file in HUB_WEIGHTS)
    return any(isinstance(file, str) for file in files)


def _clip_of(spec: str) -> str:
    """open_clip's name of what ``spec`` is another name of, else ``spec``."""
    if spec in PRESETS:
        return PRESETS[spec].clip
    default = PRESETS[DEFAULT].clip
    return default if spec == default.partition("/")[0] else OF_TRANSFORMERS.get(spec.removeprefix(PREFIX), spec)


def unavailable(spec: str, reason: str) -> LanitError:
    """What to say of weights that cannot be had."""
    return LanitError(f"the weights of CLIP '{spec}' cannot be had: {reason}", ELSEWHERE)
