"""Prompt sets: the domains a user lists, and the templates that put them into sentences (METHOD §1).

A prompt file is plain text, one phrase a line::

    # hair and glasses                 a comment; so is anything after " #"
    noun: face                         adds the nine-template ensemble about faces
    template: a face with {}.          optional, repeatable
    base: a face with.                 optional, one for each template line; else the template without its phrase
    blond hair
    eyeglasses | offset=0.01 weight=2  optional: the margin that it takes, and how much it counts against the others

or JSON with the keys ``noun``, ``templates``, ``bases`` and ``domains``, a phrase being a text or an object with
``phrase``, ``offset`` and ``weight``. A file without noun and template gets a few general templates. Built-in sets are
prompt files of the same JSON form (``assets/prompt-sets.json``).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import shlex
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lanit.errors import LanitError, UsageError, excerpt
from lanit.sentences import sentence, without_phrase
from pipeline.prompts.learned_context import LearnedContext
from pipeline.prompts.phrase_rules import FILE_HELP, UNSET, check_settings, parse_settings, wrong_with
from pipeline.stand_ins import refuse_stand_in

_ASSET = Path(__file__).parents[1] / "assets" / "prompt-sets.json"
_HEADERS = ("noun", "template", "base")
GENERAL_TEMPLATES = (
    "a photo of {}.",
    "a good photo of {}.",
    "a close-up photo of {}.",
    "a picture of {}.",
    "an image of {}.",
)
STANDARD_INPUT = "-"
_INPUT_NAME = "standard input"
_STORED_KEYS = {"name", "domains", "templates", "bases"}
_OPTIONAL_KEYS = {"offsets", "weights", "learned"}


@dataclass(frozen=True)
class PromptSet:
    """Domains and the sentences they are put into.

    domains: N phrases. templates: M strings with one ``{}`` each. bases: M strings, the base prompt of each template.
    name: of the built-in set, or the prompt file's stem; for people, no part of the set's identity.
    offsets: N margins that f_n − f_base has to exceed, 0 unless set; weights: N factors of the margin where domains
    compete (top-k, arg-max), 1 unless set (METHOD 1, 2). Left out, they are filled in.
    learned: what training made of the templates' words before ``{}`` (METHOD 12), in their place; none as written.
    """

    domains: tuple[str, ...]
    templates: tuple[str, ...]
    bases: tuple[str, ...]
    name: str
    offsets: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    learned: LearnedContext | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", self.offsets or (0.0,) * len(self.domains))
        object.__setattr__(self, "weights", self.weights or (1.0,) * len(self.domains))

    def to_json(self) -> dict[str, object]:
        """The set as it is stored; offsets and weights only where one was set, ``learned`` only where it was."""
        stored: dict[str, object] = {
            "name": self.name,
            "domains": list(self.domains),
            "templates": list(self.templates),
            "bases": list(self.bases),
        }
        if any(self.offsets):
            stored["offsets"] = list(self.offsets)
        if any(weight != 1 for weight in self.weights):
            stored["weights"] = list(self.weights)
        if self.learned is not None:
            stored["learned"] = self.learned.to_json()
        return stored

    @classmethod
    def from_json(cls, data: object) -> PromptSet:
        """The set that ``to_json`` wrote; LanitError where ``data`` is anything else."""
        anew = "Label the store again: lanit label --prompts FILE, with its --store."
        if not isinstance(data, dict) or not _STORED_KEYS <= set(data) <= _STORED_KEYS | _OPTIONAL_KEYS:
            raise LanitError("this is not a stored prompt set", anew)
        domains, templates, bases = (_strings(data[key], key) for key in ("domains", "templates", "bases"))
        if not domains or not templates or len(bases) != len(templates):
            raise LanitError("the stored prompt set is incomplete", anew)
        offsets, weights = (tuple(float(value) for value in data.get(key, ())) for key in ("offsets", "weights"))
        if any(len(values) not in (0, len(domains)) for values in (offsets, weights)):
            raise LanitError("the stored prompt set is incomplete", anew)
        learned = LearnedContext.from_json(data["learned"]) if "learned" in data else None
        if learned is not None and learned.shape[0] != len(templates):
            raise LanitError("the stored prompt set is incomplete", anew)
        return cls(domains, templates, bases, str(data["name"]), offsets, weights, learned)

    def digest(self) -> str:
        """SHA-256 (hex) of what decides the labels: all but the name."""
        numbers = [[*self.offsets], [*self.weights]] if {"offsets", "weights"} & set(self.to_json()) else []
        learned = [{"learned": self.learned.digest()}] if self.learned is not None else []
        content = json.dumps([self.domains, self.templates, self.bases, *numbers, *learned], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def about(self, phrases: Sequence[str]) -> PromptSet:
        """Other phrases in the same sentences, without offsets and weights."""
        return replace(self, domains=tuple(phrases), offsets=(), weights=())

    def of_domains(self, columns: Sequence[int]) -> PromptSet:
        """Some of its domains alone, with their offsets and weights."""
        domains = tuple(self.domains[n] for n in columns)
        offsets, weights = (tuple(values[n] for n in columns) for values in (self.offsets, self.weights))
        return replace(self, domains=domains, offsets=offsets, weights=weights)

    def first_template(self) -> PromptSet:
        """The set with its first template alone."""
        learned = self.learned.first_template() if self.learned is not None else None
        return replace(self, templates=self.templates[:1], bases=self.bases[:1], learned=learned)

    def sentences(self) -> list[str]:
        """Every text that CLIP reads: each domain in each template, then the bases."""
        return [sentence(template, domain) for domain in self.domains for template in self.templates] + [*self.bases]


@dataclass
class _Draft:
    """A prompt file as read, before templates are completed. Each text comes with where it stands, for errors."""

    source: str
    noun: str | None = None
    domains: list[tuple[str, str]] = field(default_factory=list)
    templates: list[tuple[str, str]] = field(default_factory=list)
    bases: list[tuple[str, str]] = field(default_factory=list)
    settings: list[tuple[float, float]] = field(default_factory=list)  # (offset, weight) of each domain
    advice: str = ""  # what to do about a phrase that cannot be one, where they come from no prompt file


def read_prompt_set(name_or_path: str, noun: str | None = None) -> PromptSet:
    """The built-in set of that name, or the set in that file; of "-", that which standard input says.

    noun: replaces the noun of the set ("face" gives "a face photo with {}." and eight more templates).
    Raises LanitError, one line, naming the file and the line, where the set is missing or malformed.
    """
    built_in = _read_asset()["sets"]
    if name_or_path in built_in:
        draft = _parse_json(built_in[name_or_path], f"built-in set {name_or_path}")
        return _complete(draft, noun, name_or_path)
    if name_or_path == STANDARD_INPUT:
        return _complete(_parse(_decoded(sys.stdin.buffer.read(), _INPUT_NAME), _INPUT_NAME), noun, _INPUT_NAME)
    path = Path(name_or_path)
    return _complete(_parse(_read_text(path, list(built_in)), str(path), path.suffix), noun, path.stem)


def _parse(text: str, source: str, suffix: str = "") -> _Draft:
    """The draft in a file of phrases, or of JSON, which its name or its beginning tells."""
    if suffix.lower() == ".json" or re.match(r'\s*\{\s*"', text):
        return _parse_json(_load_json(text, source), source)
    return _parse_text(text, source)


def prompt_set_of(
    phrases: Sequence[str], source: str, name: str, noun: str | None = None, advice: str = ""
) -> PromptSet:
    """The set of ``phrases`` in the templates of ``noun``, or in general ones.

    source: where they stand, for errors; advice: what to do where one of them cannot be a phrase.
    """
    draft = _Draft(source, advice=advice)
    draft.domains = [(_tidy(phrase), f"{source}, phrase {number}") for number, phrase in enumerate(phrases, 1)]
    draft.settings = [UNSET] * len(draft.domains)
    return _complete(draft, noun, name)


def prompt_set_of_words(words: Sequence[str], noun: str | None = None) -> PromptSet:
    """The set of ``words`` as they were typed after a command: each as a line of a prompt file, without comments.

    Raises UsageError where one of them is the name of a prompt file or of a built-in set.
    """
    for word in words:
        if word in built_in_names() or Path(word).is_file():
            raise UsageError(f"'{word}' names a set of prompts", f"Type: lanit label --prompts {shlex.quote(word)}")
    each = 'Give each phrase on its own, in quotes where it has spaces: lanit label smiling "wearing hat"'
    draft = _Draft("the command line", advice=each)
    for number, word in enumerate(words, 1):
        phrase, bar, settings = _tidy(word).partition("|")
        where = f"the command line, phrase {number}"
        draft.domains.append((phrase.strip(), where))
        draft.settings.append(parse_settings(settings, where) if bar else UNSET)
    return _complete(draft, noun, "words")


def built_in_names() -> list[str]:
    """Names of the sets that lanit ships."""
    return list(_read_asset()["sets"])


def ensemble(noun: str) -> tuple[str, ...]:
    """The nine templates of the paper's ensemble about ``noun``."""
    return tuple(template.replace("{noun}", noun) for template in _read_asset()["ensemble"])


def _read_asset() -> dict[str, Any]:
    asset: dict[str, Any] = json.loads(_ASSET.read_text(encoding="utf-8"))
    return asset


def _read_text(path: Path, built_in: Sequence[str]) -> str:
    if path.is_dir():
        raise LanitError(f"the prompt file '{path}' is a folder", FILE_HELP)
    if not path.exists():
        close = difflib.get_close_matches(str(path), built_in, n=3, cutoff=0.5)
        families = dict.fromkeys(name.rstrip("0123456789") for name in built_in)
        sets = ", ".join(f"'{name}'" for name in close) or ", ".join(
            f + "N" if f.endswith("-") else f for f in families
        )
        raise LanitError(f"no prompt file or built-in set '{path}'", f"Give a file of phrases, or a set: {sets}.")
    refuse_stand_in(path)
    return _decoded(path.read_bytes(), f"the prompt file '{path}'")


def _decoded(data: bytes, source: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LanitError(f"{source} is not UTF-8 text", FILE_HELP) from error
    if any(unicodedata.category(character) == "Cc" for character in text if character not in "\t\r\n"):
        raise LanitError(f"{source} is not a text file", FILE_HELP)
    return text


def _parse_text(text: str, source: str) -> _Draft:
    draft = _Draft(source)
    for number, raw in enumerate(text.splitlines(), 1):
        line = _tidy(re.sub(r"(^|\s)#.*$", "", raw))
        where = f"{source}, line {number}"
        header, colon, value = (part.strip() for part in line.partition(":"))
        if not line:
            continue
        if colon and header.lower() in _HEADERS:
            _add_header(draft, header.lower(), value, where)
        elif colon and difflib.get_close_matches(header.lower(), _HEADERS, cutoff=0.7):
            message = f"{where}: unknown header '{excerpt(header)}:'"
            raise LanitError(message, "Headers are noun:, template: and base:.")
        else:
            phrase, bar, settings = line.partition("|")
            draft.domains.append((phrase.strip(), where))
            draft.settings.append(parse_settings(settings, where) if bar else UNSET)
    return draft


def _add_header(draft: _Draft, header: str, value: str, where: str) -> None:
    if not value:
        raise LanitError(f"{where}: '{header}:' has no text", FILE_HELP)
    if header == "template":
        draft.templates.append((value, where))
    elif header == "base":
        draft.bases.append((value, where))
    elif draft.noun is not None:
        raise LanitError(f"{where}: a second 'noun:' line", "Keep one of them.")
    else:
        draft.noun = _check_noun(value, where)


def _load_json(text: str, source: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise LanitError(f"{source}, line {error.lineno}: not valid JSON ({error.msg})", "Mend that line.") from error


def _parse_json(data: object, source: str) -> _Draft:
    keys = ("noun", "templates", "bases", "domains")
    if not isinstance(data, dict):
        raise LanitError(f"{source}: a JSON prompt file is an object", f"Its keys are {', '.join(keys)}.")
    for key in data:
        if key not in (*keys, "name"):
            raise LanitError(f"{source}: unknown key '{excerpt(key)}'", f"The keys are {', '.join(keys)}.")
    draft = _Draft(source)
    if data.get("noun") is not None:
        draft.noun = _check_noun(data["noun"], source)
    given, texts_of = data.get("domains", []), data
    if isinstance(given, list):
        phrases = [_json_phrase(each, f"{source}, domains {number}") for number, each in enumerate(given, 1)]
        draft.settings = [settings for _, settings in phrases]
        texts_of = data | {"domains": [phrase for phrase, _ in phrases]}
    for key, entries in (("domains", draft.domains), ("templates", draft.templates), ("bases", draft.bases)):
        texts = _strings(texts_of.get(key, []), f"{source}: '{key}'")
        entries.extend((_tidy(text), f"{source}, {key} {number}") for number, text in enumerate(texts, 1))
    return draft


def _json_phrase(value: object, where: str) -> tuple[object, tuple[float, float]]:
    """A phrase, and its offset and weight, from a text or from an object with ``phrase``."""
    if not isinstance(value, dict) or "phrase" not in value:
        return value, UNSET
    return value["phrase"], check_settings({key: value[key] for key in value if key != "phrase"}, where)


def _strings(value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise LanitError(f"{what} must be a list of texts", 'Write it as JSON: ["blond hair", "smiling"].')
    return tuple(value)


def _complete(draft: _Draft, noun: str | None, name: str) -> PromptSet:
    """Check a draft and fill in its templates and bases."""
    _check_domains(draft)
    _check_templates(draft)
    given = [template for template, _ in draft.templates]
    bases = [base for base, _ in draft.bases] or [without_phrase(template) for template in given]
    noun = _check_noun(noun, "--noun") if noun is not None else draft.noun
    added = [t for t in (ensemble(noun) if noun else ()) if t not in given]
    if not given and not added:
        added = list(GENERAL_TEMPLATES)
    templates = (*given, *added)
    return PromptSet(
        domains=tuple(domain for domain, _ in draft.domains),
        templates=templates,
        bases=(*bases, *(without_phrase(template) for template in added)),
        name=name,
        offsets=tuple(offset for offset, _ in draft.settings),
        weights=tuple(weight for _, weight in draft.settings),
    )


def _check_domains(draft: _Draft) -> None:
    if not draft.domains:
        raise LanitError(f"{draft.source}: no phrase in it", FILE_HELP)
    seen: dict[str, str] = {}
    for domain, where in draft.domains:
        wrong = wrong_with(domain)
        if wrong is not None:
            message, hint = wrong
            raise LanitError(f"{where}: '{excerpt(domain)}' {message}", draft.advice or hint)
        first = seen.setdefault(domain.casefold(), where)
        if first != where:
            place = first.removeprefix(f"{draft.source}, ")
            raise LanitError(f"{where}: '{excerpt(domain)}' repeats {place}", "Remove one of the two.")


def _check_templates(draft: _Draft) -> None:
    example = "Write it like 'a face with {}.'."
    seen: set[str] = set()
    for template, where in draft.templates:
        if template.count("{}") != 1 or re.search(r"[{}]", template.replace("{}", "")):
            raise LanitError(f"{where}: the template '{excerpt(template)}' must contain {{}} exactly once", example)
        if not without_phrase(template) and not draft.bases:
            message = f"{where}: the template '{excerpt(template)}' leaves no base prompt without its phrase"
            raise LanitError(message, "Write '{}.' for the phrase alone, or add a base: line.")
        if template in seen:
            raise LanitError(f"{where}: the template '{excerpt(template)}' is there twice", "Remove one of the two.")
        seen.add(template)
    for base, where in draft.bases:
        if "{" in base or "}" in base or not base:
            raise LanitError(
                f"{where}: the base '{excerpt(base)}' must be a text without braces", "Leave the phrase out of it."
            )
    if draft.bases and len(draft.bases) != len(draft.templates):
        counts = f"{len(draft.bases)} base and {len(draft.templates)} template texts"
        raise LanitError(f"{draft.source}: {counts}", "Give one base for each template, or no base at all.")


def _check_noun(noun: object, where: str) -> str:
    text = _tidy(noun) if isinstance(noun, str) else ""
    if not text or re.search(r"[{},;]", text):
        like = "--noun face" if where == "--noun" else "'noun: face'"
        raise LanitError(f"{where}: '{excerpt(str(noun))}' is no noun", f"Give one word or a few, such as {like}.")
    return text


def _tidy(text: str) -> str:
    """One form for texts that look the same: composed characters, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())
