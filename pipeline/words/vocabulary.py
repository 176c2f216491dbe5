"""Vocabularies: words that might describe images, from a file or built in, and which of them are worth comparing."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lanit.errors import LanitError, excerpt
from lanit.sentences import sentence
from pipeline.stand_ins import refuse_stand_in

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel

_ASSETS = Path(__file__).parents[1] / "assets" / "vocabulary"
_BUILT_IN = ("words.txt", "phrases.txt")
_HELP = "A vocabulary is a UTF-8 text file with one word or phrase a line; '#' starts a comment."
_STANDARD_INPUT = Path("-")
_MARKS = 3  # tokens that stand for no text, at most
_SHORTEST_STEM = 3  # letters that an inflected word keeps at least: "red" is no form of "r"


@dataclass(frozen=True)
class Vocabulary:
    """Words and phrases, each once, in the order of the file. name: of the file, or "built-in"."""

    name: str
    words: tuple[str, ...]


def read_vocabulary(path: Path | None = None) -> Vocabulary:
    """The words of a file, of standard input where it is "-", or those that lanit ships.

    Raises LanitError, one line, where the file is missing, not text or without a word, or where a line has a brace,
    a comma or a semicolon, which no prompt may have.
    """
    if path is None:
        texts = [(_ASSETS / name).read_text(encoding="utf-8") for name in _BUILT_IN]
        return Vocabulary("built-in", _words("\n".join(texts), "built-in"))
    refuse_stand_in(path)
    try:
        read = sys.stdin.buffer.read() if path == _STANDARD_INPUT else path.read_bytes()
        text = read.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LanitError(f"the vocabulary '{path}' is not UTF-8 text", _HELP) from error
    except OSError as error:
        raise LanitError(f"cannot read the vocabulary '{path}': {error.strerror or error}", _HELP) from error
    words = _words(text, str(path))
    if not words:
        raise LanitError(f"the vocabulary '{path}' has no word", _HELP)
    return Vocabulary(str(path), words)


def _words(text: str, source: str) -> tuple[str, ...]:
    words: dict[str, str] = {}  # by what tells them apart
    for number, raw in enumerate(text.splitlines(), 1):
        line = " ".join(unicodedata.normalize("NFC", re.sub(r"(^|\s)#.*$", "", raw)).split())
        if not line:
            continue
        if re.search(r"[{},;|]", line) or not any(character.isalnum() for character in line):
            raise LanitError(
                f"{source}, line {number}: '{excerpt(line)}' cannot be a prompt", "Write one word or phrase a line."
            )
        words.setdefault(line.casefold(), line)
    return tuple(words.values())


def readable_words(words: Iterable[str], clip: ClipModel, templates: Sequence[str]) -> list[str]:
    """Those of ``words`` that ``clip`` can read: without words that it never saw, where it lists those that it did, and
    without phrases that a template makes longer than its context."""
    longest = max(templates, key=lambda template: len(template.encode()))
    room = clip.context_length - _MARKS
    seen = (word for word in words if not clip.unknown_words([word]))
    # a token is a byte at least, so what is short in bytes need not be cut into tokens
    return [
        word
        for word in seen
        if len(sentence(longest, word).encode()) <= room or all(clip.reads(sentence(t, word)) for t in templates)
    ]


def new_words(words: Sequence[str], known: Iterable[str]) -> list[int]:
    """Positions of those that are none of the ``known`` phrases in other inflections: no "smiles" beside "smiling"."""
    said = [_content(phrase) for phrase in known]
    contents = [_content(word) for word in words]
    return [n for n, one in enumerate(contents) if not any(_same_words(one, other) for other in said)]


def _content(phrase: str) -> list[frozenset[str]]:
    return [_base_forms(word) for word in re.findall(r"[^\W_]+", phrase.casefold())]


def _same_words(one: list[frozenset[str]], other: list[frozenset[str]]) -> bool:
    return len(one) == len(other) and all(any(word & theirs for theirs in other) for word in one)


def _base_forms(word: str) -> frozenset[str]:
    """The word and what it may be an inflection of: smiling → smile; berries → berry; running → run."""
    forms = {word}
    for suffix in ("s", "es", "ed", "ing"):
        stem = word.removesuffix(suffix)
        if stem == word or len(stem) < _SHORTEST_STEM or not re.search("[aeiouy]", stem) or word.endswith("ss"):
            continue
        forms.add(stem)
        if suffix in ("ed", "ing"):
            forms |= {stem + "e", stem[:-1] if stem[-1] == stem[-2] else stem}
        elif stem.endswith("i"):
            forms.add(stem[:-1] + "y")
    return frozenset(forms)
