"""Folders of safetensors files beside one sealed JSON document that holds their digests: written whole, and checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lanit.errors import LanitError
from pipeline.files import json_bytes, read_json, sealed, sha256_file
from pipeline.folders import appearing_folder
from pipeline.stand_ins import refuse_stand_in

_DIGESTS = "files"

Tensors = Mapping[str, Mapping[str, Tensor]]
"""Of each file its tensors by name."""


def write_folder(
    folder: Path,
    names: Collection[str],
    document: tuple[str, Mapping[str, object]],
    tensors: Tensors,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Fill a folder (:func:`fill_folder`) that replaces ``folder`` whole, by rename.

    names: of all files that such a folder may hold. Raises LanitError where the one before holds another.
    """
    with appearing_folder(folder, frozenset(names).__contains__) as filling:
        fill_folder(filling, document, tensors, files)


def fill_folder(
    folder: Path,
    document: tuple[str, Mapping[str, object]],
    tensors: Tensors,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write safetensors and other files into ``folder``, then the document, a name and its content, which with their
    digests is sealed. Raises OSError where the disk refuses."""
    digests = {}
    for name, group in tensors.items():
        try:
            save_file({key: value.detach().contiguous().cpu() for key, value in group.items()}, folder / name)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        digests[name] = sha256_file(folder / name)
    for name, data in (files or {}).items():
        (folder / name).write_bytes(data)
        digests[name] = sha256_file(folder / name)
    name, content = document
    (folder / name).write_bytes(json_bytes(sealed(dict(content) | {_DIGESTS: digests})))


def read_document(path: Path, hint: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What :func:`fill_folder` wrote as a document: its content, and the digests; none in folders of an older lanit.

    Raises LanitError, with ``hint``, where it is missing, damaged, or something else.
    """
    content = read_json(path, hint)
    if not isinstance(content, dict):
        raise LanitError(f"{path} is damaged: it holds no object", hint)
    digests = content.pop(_DIGESTS, {})
    if not isinstance(digests, dict) or not all(isinstance(value, str) for value in digests.values()):
        raise LanitError(f"{path} is damaged: its digests are none", hint)
    return content, digests


def check_files(folder: Path, names: Collection[str], digests: Mapping[str, str], hint: str) -> None:
    """Raise LanitError, with ``hint``, for the first file of ``names`` that is there and not the one of its digest."""
    for name in names:
        path = folder / name
        try:
            other = name in digests and path.exists() and sha256_file(path) != digests[name]
        except OSError as error:
            raise LanitError(f"cannot read {path}: {error.strerror or error}", hint) from error
        if other:
            raise LanitError(f"{path} is damaged, or of another run: it has not the digest written beside it", hint)


def _shapes(path: Path, hint: str) -> dict[str, tuple[int, ...]]:
    """Of each tensor of a safetensors file, by its header alone. Raises LanitError where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        refuse_stand_in(path)
        raise LanitError(f"cannot read {path}: {error}", hint) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises LanitError where it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        refuse_stand_in(path)
        raise LanitError(
            f"cannot read {path}: {error}", "The file is damaged: use another checkpoint or train again."
        ) from error


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], origin: Path) -> None:
    """Load all of ``state`` into all of ``module``; raises LanitError that names the first differences."""
    own, given = (
        {name: tuple(value.shape) for name, value in tensors.items()} for tensors in (module.state_dict(), state)
    )
    _check_shapes(own, given, origin, "Use the options it was trained with, or another --out.")
    module.load_state_dict(dict(state))


def _check_shapes(
    own: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], origin: Path, hint: str
) -> None:
    """Raise LanitError, with ``hint``, that names the first differences of what ``origin`` holds."""
    differences = [f"{name} is missing" for name in own if name not in given]
    differences += [f"{name} is unknown" for name in given if name not in own]
    differences += [
        f"{name} is {given[name]}, not {own[name]}" for name in own if name in given and given[name] != own[name]
    ]
    if differences:
        shown = "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
        raise LanitError(
            f"{origin} is of another architecture: {shown}",
            hint,
        )
