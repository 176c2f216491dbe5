"""A prompt file with a phrase or with offsets more, all else in it as a person wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lanit.errors import LanitError

_COMMENT = re.compile(r"\s*(?:^|\s)#.*$")


def with_phrase(path: Path, phrase: str) -> bytes:
    """The file and one phrase more. Raises LanitError where it would not read as just that."""
    text = _read(path)
    if _is_json(text):
        document = json.loads(text)
        document["domains"] = [*document["domains"], phrase]
        return _json_bytes(document)
    if phrase.startswith("#") or " #" in phrase:
        raise LanitError(f"{path.name} would take what follows # for a comment", "Write the phrase without #.")
    return (text + ("" if not text or text.endswith("\n") else "\n") + phrase + "\n").encode()


def with_offsets(path: Path, offsets: Mapping[str, float]) -> bytes:
    """The file with other offsets, by phrases as it has them; weights and comments stay."""
    text = _read(path)
    if _is_json(text):
        document = json.loads(text)
        document["domains"] = [_entry(each, offsets) for each in document["domains"]]
        return _json_bytes(document)
    return "".join(_line(line, offsets) for line in text.splitlines(keepends=True)).encode()


def _line(line: str, offsets: Mapping[str, float]) -> str:
    whole = line.rstrip("\r\n")
    comment = _COMMENT.search(whole)
    written = whole[: comment.start()] if comment else whole
    phrase, _, settings = written.partition("|")
    key = " ".join(phrase.split())
    if key not in offsets:
        return line
    words = [word for word in settings.split() if not word.startswith("offset=")]
    words = [*([f"offset={offsets[key]!r}"] if offsets[key] else []), *words]
    after = f" | {' '.join(words)}" if words else ""
    return phrase.rstrip() + after + whole[len(written) :] + line[len(whole) :]


def _entry(value: Any, offsets: Mapping[str, float]) -> Any:
    """A phrase of a JSON file: a text, or an object with its settings."""
    known = value if isinstance(value, dict) else {"phrase": value}
    key = " ".join(str(known["phrase"]).split())
    if key not in offsets:
        return value
    changed = {name: each for name, each in known.items() if name != "offset"}
    changed |= {"offset": offsets[key]} if offsets[key] else {}
    return changed if len(changed) > 1 else changed["phrase"]


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8-sig")  # line ends stay as they are


def _is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def _json_bytes(document: object) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()
