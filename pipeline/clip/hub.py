"""The Hugging Face hub: whether it answers, repositories fetched through its cache, its errors as one line."""

from __future__ import annotations

import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
from huggingface_hub import errors

from lanit.errors import LanitError, UsageError

PREFIX = "hf-hub:"
_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
_CONNECT_SECONDS = 5.0
LOGIN = "Log in with: hf auth login, or set HF_TOKEN."


@dataclass(frozen=True)
class Repository:
    """``owner/name``. revision: a branch, a tag or a commit; the newest if none."""

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


def find_repository(text: str) -> Repository | None:
    """The repository that ``text`` names, as owner/name or owner/name@revision, ``hf-hub:`` before it or not; or none.

    Without ``hf-hub:``, what lies in a folder that exists is taken for a path: runs/frist is a typing error.
    """
    named = text.startswith(PREFIX)
    match = _ID.fullmatch(text.removeprefix(PREFIX))
    if match is None or not (named or not Path(match[1]).parent.exists()):
        return None
    return Repository(match[1], match[2])


def parse_repository(text: str) -> Repository:
    """As :func:`find_repository`, of a text that can be nothing else. Raises UsageError where it is no name."""
    match = _ID.fullmatch(text.removeprefix(PREFIX))
    if match is None:
        raise UsageError(f"'{text}' names no repository of the Hugging Face hub", "Write owner/name.")
    return Repository(match[1], match[2])


def hub_answers() -> bool:
    """Whether the hub can be reached; found out in seconds, where its own client would try for a minute."""
    if urllib.request.getproxies():
        return True  # only the proxy can tell
    endpoint = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT)
    port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
    try:
        with socket.create_connection((endpoint.hostname or "huggingface.co", port), timeout=_CONNECT_SECONDS):
            return True
    except OSError:
        return False


def fetch(repository: Repository, patterns: Sequence[str], known: str = "", *, cached: bool = False) -> Path:
    """Folder in the hub's cache with the files of ``repository`` whose names match one of ``patterns``.

    The cache alone is asked where ``cached``, where HF_HUB_OFFLINE is set or the hub cannot be reached. Raises
    LanitError where the repository cannot be had; its message begins with what else is ``known``.
    """
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    try:
        folder = huggingface_hub.snapshot_download(
            repository.name,
            revision=repository.revision,
            allow_patterns=list(patterns),
            local_files_only=cached or offline or not hub_answers(),
        )
    except Exception as error:  # the hub's client and the libraries below it raise anything
        raise hub_error(f"{known}the model {repository} cannot be fetched", error) from error
    return Path(folder)


def fetch_first(repository: str, names: Sequence[str], *, cached: bool) -> Path:
    """The first of the files ``names`` that a repository has, in the hub's cache; ``cached``: ask that alone.

    Raises what the hub's client does where there is none of them.
    """
    *others, last = names
    for name in others:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, local_files_only=cached))
        except errors.EntryNotFoundError:  # of a file that is not in the cache, too
            continue
    return Path(huggingface_hub.hf_hub_download(repository, last, local_files_only=cached))


def hub_error(what: str, error: Exception) -> LanitError:
    """``what`` failed for ``error``, as one line with what to do about it."""
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.GatedRepoError):
        reason, hint = "its owner has to let you in first", f"Ask on its page. {LOGIN}"
    elif isinstance(error, errors.RevisionNotFoundError):
        reason, hint = "it has no such revision", "Leave out what follows the '@'."
    elif isinstance(error, errors.RepositoryNotFoundError):
        reason, hint = "there is no such repository, or not for this token", f"Check the name. {LOGIN}"
    elif status in (401, 403):
        reason, hint = "the token does not allow it", f"Use a token that may. {LOGIN}"
    elif isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        offline = huggingface_hub.constants.HF_HUB_OFFLINE
        reason = "HF_HUB_OFFLINE is set" if offline else "Hugging Face cannot be reached from here"
        reason, hint = f"{reason}, and it is not in the cache", "Give a folder, or try where there is a network."
    else:
        reason = (" ".join(str(error).split()) or type(error).__name__)[:160]
        hint = "Run the same command again."
    return LanitError(f"{what}: {reason}", hint)
