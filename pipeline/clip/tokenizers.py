"""What cuts a text into a CLIP's tokens: open_clip's own byte pairs, or a tokenizer of transformers."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer

from lanit.errors import LanitError
from pipeline.clip.hub import Repository, fetch
from pipeline.extras import install

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json",
    "vocab.txt", "vocab.json", "merges.txt", "*.model",
)  # fmt: skip
"""Files of a repository that its tokenizer may need; ``config.json`` says of which kind an older one is."""

_HOLDS_WORDS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_PACKAGES = ("transformers", "sentencepiece", "google.protobuf")  # of the extra


def check_transformers(spec: str) -> None:
    """Raise LanitError where the packages that the text side of CLIP ``spec`` needs are not installed."""
    if not all(_installed(name) for name in _PACKAGES):
        raise LanitError(
            f"CLIP '{spec}' reads text with transformers, sentencepiece and protobuf, which are not all installed",
            f"Type: {install('transformers')}",
        )


def make_tokenizer(spec: str, text: Mapping[str, Any], beside: Path | None, *, remote: bool) -> Any:
    """The tokenizer of CLIP ``spec``, callable with texts, of ``text``, open_clip's ``text_cfg``.

    beside: the folder of the weights, whose tokenizer files are used if there are any. remote: whether others may be
    fetched; the cache of the hub alone is asked if not. Raises LanitError with what to do.
    """
    context, options = text.get("context_length", DEFAULT_CONTEXT_LENGTH), dict(text.get("tokenizer_kwargs") or {})
    repository = text.get("hf_tokenizer_name")
    if not repository:
        return open_clip.SimpleTokenizer(context_length=context, **options)
    check_transformers(spec)
    folder = _folder_of(spec, repository, _HOLDS_WORDS, TOKENIZER_FILES, beside, remote=remote)
    try:
        return HFTokenizer(
            str(folder), context_length=context, tokenizer_mode=text.get("tokenizer_mode"), local_files_only=True,
            **options,
        )  # fmt: skip
    except Exception as error:  # transformers raises anything
        reason = (" ".join(str(error).split()) or type(error).__name__)[:160]
        hint = f"Give the files of {repository} as they are there, in the folder of the weights."
        raise LanitError(f"the tokenizer in {folder} cannot be read ({reason})", hint) from error


def local_text(spec: str, text: Mapping[str, Any], beside: Path | None, *, remote: bool) -> dict[str, Any]:
    """``text_cfg`` with a folder in the place of a repository, where transformers builds the text tower."""
    repository = text.get("hf_model_name")
    if not repository:
        return dict(text)
    check_transformers(spec)
    names = ("config.json",)
    folder = _folder_of(spec, repository, names, names, beside, remote=remote)
    return {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}


def _folder_of(
    spec: str, repository: str, one_of: Sequence[str], names: Sequence[str], beside: Path | None, *, remote: bool
) -> Path:
    """Where the files ``names`` are, at least one of ``one_of``: beside the weights, else in the hub's cache."""
    if beside is not None and _holds(beside, one_of):
        return beside
    known = f"CLIP '{spec}' reads text as {repository} does, and "
    try:
        folder = fetch(Repository(repository), names, known, cached=not remote)
    except LanitError as error:
        if remote or beside is None:
            raise
        raise _missing(beside, repository, one_of) from error
    if not _holds(folder, one_of):
        raise _missing(folder if beside is None else beside, repository, one_of)
    return folder


def _missing(folder: Path, repository: str, one_of: Sequence[str]) -> LanitError:
    wanted = "config.json" if "config.json" in one_of else "tokenizer"
    files = "config.json" if wanted == "config.json" else "tokenizer.json and tokenizer_config.json"
    message = f"{folder} has no {wanted} of {repository}, and the cache of the Hugging Face hub neither"
    return LanitError(message, f"Copy {files} of {repository} into {folder}.")


def _holds(folder: Path, patterns: Sequence[str]) -> bool:
    return any(file.is_file() for pattern in patterns for file in folder.glob(pattern))


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that ``name`` is in
        return False
