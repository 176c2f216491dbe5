"""``lanit push`` and ``lanit pull``: exported models to and from the Hugging Face hub."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants

from lanit.errors import LanitError
from pipeline.clip.hub import LOGIN, Repository, fetch, hub_answers, hub_error
from pipeline.files import json_bytes, read_json, sealed
from pipeline.model_exports.bundle_folder import CARD_NAME, FILES, appearing_export, check_out, files_of
from pipeline.models.bundle import check_prompts, load_bundle
from pipeline.models.run_folder import BUNDLE_FILES


@dataclass(frozen=True)
class PushReport:
    """folder: what was sent; url: of the commit; files: sent; private: of the repository, as asked."""

    folder: str
    repository: str
    url: str
    files: tuple[str, ...]
    private: bool

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


def push(folder: Path, repository: Repository, *, private: bool = False) -> PushReport:
    """Send an exported model to the hub, as one commit; the repository is made where there is none.

    Only files of an export are sent, and of a CLIP that lay on this machine its file's name, without the folders.
    private: of the repository; one that is there already has to be so. Raises LanitError where ``folder`` is no whole
    export, there is no token, or the hub refuses or cannot be reached; nothing is then sent.
    """
    if not (folder / CARD_NAME).is_file():
        raise LanitError(
            f"{folder} is no exported model: it has no {CARD_NAME}",
            f"Export it first: lanit export-model {shlex.quote(str(folder))} --out DIR",
        )
    check_prompts(folder, load_bundle(folder))  # nobody should download what does not load
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
    files = tuple(files_of(folder))
    operations = [huggingface_hub.CommitOperationAdd(name, _content(folder, name)) for name in files]
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repository.name, private=private, exist_ok=True)
        if private and not api.model_info(repository.name).private:
            raise LanitError(f"{repository} is there already, and public", "Give another name, or leave out --private.")
        commit = api.create_commit(repository.name, operations, commit_message="Upload a model exported by lanit")
    except LanitError:
        raise
    except Exception as error:  # the hub's client and the libraries below it raise anything
        raise hub_error(f"cannot push to {repository}", error) from error
    return PushReport(str(folder), repository.name, str(commit.commit_url), files, private)


def _content(folder: Path, name: str) -> Path | bytes:
    """A file as it is sent: ``model.json`` without the folders of this machine."""
    if name != "model.json":
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
