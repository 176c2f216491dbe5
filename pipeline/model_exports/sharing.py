"""``lanit push`` and ``lanit pull``: exported models to and from the Hugging Face hub."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants

from lanit.errors import LanitError, UsageError
from pipeline.clip.hub import LOGIN, Repository, fetch, hub_answers, hub_error
from pipeline.files import json_bytes, read_json, sealed
from pipeline.model_exports.bundle_folder import CARD_NAME, FILES, appearing_export, check_out, files_of
from pipeline.model_exports.space import appearing_space, check_clip, write_space
from pipeline.models.bundle import check_prompts, load_bundle
from pipeline.models.run_folder import BUNDLE_FILES


@dataclass(frozen=True)
class PushReport:
    """folder: the model; url: of the commit, none where nothing was sent; files: sent, or written; private: of the
    repository, as asked; space: whether it is a Space; out: where a Space was written instead."""

    folder: str
    repository: str
    url: str | None
    files: tuple[str, ...]
    private: bool
    space: bool = False
    out: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class PullReport:
    """out: the folder written; files: in it."""

    repository: str
    out: str
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def push(
    folder: Path, repository: Repository, *, private: bool = False, space: bool = False, out: Path | None = None
) -> PushReport:
    """Send an exported model to the hub, as one commit; the repository is made where there is none.

    space: send the page of lanit play for it, as a Space; out: write that folder instead, and send nothing. Only files
    of an export are sent, and of a CLIP that lay on this machine its file's name, without the folders.
    private: of the repository; one that is there already has to be so. Raises LanitError where ``folder`` is no whole
    export, there is no token, or the hub refuses or cannot be reached; nothing is then sent.
    """
    if not (folder / CARD_NAME).is_file():
        raise LanitError(
            f"{folder} is no exported model: it has no {CARD_NAME}",
            f"Export it first: lanit export-model {shlex.quote(str(folder))} --out DIR",
        )
    if out is not None and not space:
        raise UsageError("--out is for a Space", "Add --space.")
    bundle = load_bundle(folder)
    check_prompts(folder, bundle)  # nobody should download what does not load
    if space:
        check_clip(bundle)
    if out is not None:
        with appearing_space(out) as whole:
            write_space(folder, bundle, whole, repository.name)
        return PushReport(str(folder), repository.name, None, _files_below(out), private, space, str(out))
    if repository.revision:
        raise LanitError(f"cannot push to {repository}: a revision is made by the hub", f"Write {repository.name}.")
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise LanitError(f"cannot push to {repository}: HF_HUB_OFFLINE is set", "Unset it.")
    if huggingface_hub.get_token() is None:
        raise LanitError(f"cannot push to {repository}: there is no token", LOGIN)
    if not hub_answers():
        raise LanitError(
            f"cannot push to {repository}: Hugging Face cannot be reached from here", "Try where there is a network."
        )
    if not space:
        return PushReport(str(folder), *_sent(folder, tuple(files_of(folder)), repository, private, None), private)
    with tempfile.TemporaryDirectory() as made:
        write_space(folder, bundle, Path(made), repository.name)
        sent = _sent(Path(made), _files_below(Path(made)), repository, private, "space")
    return PushReport(str(folder), *sent, private, space)


def _files_below(folder: Path) -> tuple[str, ...]:
    """POSIX paths."""
    return tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))


def _sent(
    folder: Path, files: tuple[str, ...], repository: Repository, private: bool, kind: str | None
) -> tuple[str, str, tuple[str, ...]]:
    """Name of the repository, URL of the commit, files. kind: of the repository, as the hub calls it."""
    operations = [huggingface_hub.CommitOperationAdd(name, _content(folder, name)) for name in files]
    sdk = "gradio" if kind == "space" else None
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repository.name, repo_type=kind, space_sdk=sdk, private=private, exist_ok=True)
        if private and not api.repo_info(repository.name, repo_type=kind).private:
            raise LanitError(f"{repository} is there already, and public", "Give another name, or leave out --private.")
        text = f"Upload a {'page' if kind else 'model'} exported by lanit"
        commit = api.create_commit(repository.name, operations, commit_message=text, repo_type=kind)
    except LanitError:
        raise
    except Exception as error:  # the hub's client and the libraries below it raise anything
        raise hub_error(f"cannot push to {repository}", error) from error
    return repository.name, str(commit.commit_url), files


def _content(folder: Path, name: str) -> Path | bytes:
    """A file as it is sent: ``model.json`` without the folders of this machine."""
    if Path(name).name != "model.json":
        return folder / name
    document = read_json(folder / name)
    spec = document["clip_spec"]
    if Path(spec).is_absolute():
        document["clip_spec"] = Path(spec).name
    return json_bytes(sealed(document))


def pull(repository: Repository, out: Path, *, overwrite: bool = False) -> PullReport:
    """Fetch an exported model from the hub into the folder ``out``, which appears whole.

    Only files of an export are fetched. overwrite: replace an earlier export. Raises LanitError where the repository
    cannot be had, holds no model that loads, or ``out`` is taken.
    """
    check_out(out, overwrite)
    cached = fetch(repository, FILES)
    if not all((cached / name).is_file() for name in BUNDLE_FILES):
        raise LanitError(f"{repository} on the Hugging Face hub holds no model of lanit", "Check the name.")
    with appearing_export(out, overwrite) as folder:
        for name in files_of(cached):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cached / name, folder / name)
        check_prompts(folder, load_bundle(folder))
    return PullReport(str(repository), str(out), tuple(files_of(out)))
