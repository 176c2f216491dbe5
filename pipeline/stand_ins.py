"""What stands in the place of a file that was not fetched: pointers of Git LFS, web pages, messages of servers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from lanit.errors import LanitError, excerpt

_HEAD = 4096  # bytes that tell
_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGE = re.compile(rb"(?i)(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype html|<html|<head)", re.DOTALL)
_TITLE = re.compile(rb"(?i)<title[^>]*>(.*?)</title>", re.DOTALL)
_XML_ERROR = re.compile(rb"(<\?xml[^>]*>\s*)?<Error>.*?<Code>([^<]+)</Code>", re.DOTALL)  # of S3, GCS and Azure
_JSON_ERROR = re.compile(rb'\{\s*"(?:error|errors|message|detail)"\s*:')
_TEXT_ERROR = re.compile(
    rb"(?i)(error )?([45]\d\d\W+)?(not found|entry not found|forbidden|access denied|unauthorized|bad gateway|"
    rb"service unavailable|too many requests|internal server error)\W*"
)


class StandInError(LanitError):
    """A file that stands in the place of another."""


class StandIn(NamedTuple):
    """what: it is, as in "x.jpg is a Git LFS pointer". hint: what to do."""

    what: str
    hint: str

    @property
    def reason(self) -> str:
        """Both, in one clause."""
        return f"{self.what}: {self.hint[0].lower()}{self.hint[1:].rstrip('.')}"


def stand_in(data: bytes) -> StandIn | None:
    """What the beginning of a file says it is; none for anything but a stand-in."""
    head = data[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(_POINTER):
        return StandIn("a Git LFS pointer and not the file itself", "Fetch the files of the repository: git lfs pull")
    if _PAGE.match(head):
        title = _TITLE.search(head)
        return _answer("a web page", title[1] if title else b"")
    if found := _XML_ERROR.match(head):
        return _answer("an error message of a server", found[2])
    if len(data) < _HEAD and (_JSON_ERROR.match(head) or _TEXT_ERROR.fullmatch(head)):
        return _answer("an error message of a server", head)
    return None


def refuse_stand_in(path: Path) -> None:
    """Raise StandInError where a file on this machine is a stand-in; nothing is said of one that cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError):
        return
    if found := stand_in(head):
        raise refusal(str(path), found)


def refusal(name: str, found: StandIn) -> StandInError:
    """What to tell a person of a stand-in."""
    return StandInError(f"{name} is {found.what}", found.hint)


def _answer(what: str, text: bytes) -> StandIn:
    words = excerpt(" ".join(text.decode("utf-8", "replace").split()), 60)
    return StandIn(f"{what} ({words})" if words else what, "Download it again.")
