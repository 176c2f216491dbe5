"""A hint as it stands, typed: the command lines that come of it."""

from __future__ import annotations

import functools
import re
import shlex
from typing import Any

from benchmarks.breaking.world import TRAIN

_STANDS_FOR = {
    "--prompts": "../prompts.txt", "--labels": "../people-faces.csv", "--truth": "../faces/truth.csv",
    "--words": "../words.txt", "--vocabulary": "../words.txt", "--out": "elsewhere", "--store": "elsewhere",
    "--image": "../faces/face-00000.png", "--reference": "../faces/face-00000.png", "--clip": "sample",
    "--compare": "1 2", "--image-column": "image_path", "--clip-arch": "ViT-B-32", "--model": "sample",
}  # fmt: skip
"""What a user would put for a word in capitals."""
_METAVARIABLE = re.compile(r"[A-Z][A-Z]+(?:\|[a-z]+)?|[A-Z]")
_COMMAND = re.compile(
    r"(?:: |\brun |\bsee |\btype )(?:the same )?lanit ([a-z]+(?:-[a-z]+)?(?: (?:'[^']*'|\"[^\"]*\"|[^\s;,\"']+))*)",
    re.IGNORECASE,
)
_SENTENCE_GOES_ON = re.compile(r"\.(?:\s|$)| again\b| to (?:write|continue)\b| as \b| command\b")
_SENTENCES = re.compile(r";\s+|,? or (?=leave|give|add|use|try|train|name|--)|(?<=[^.])\.\s+|\.$|, or ", re.IGNORECASE)
_AGAIN = re.compile(
    r"\b(run|repeat) (it|the same|this one)\b.*\b(again|command)|\bthe same command goes on", re.IGNORECASE
)
_LEAVE_OUT = re.compile(r"\bleave\b|^remove\b|^unset\b|\bwithout\b", re.IGNORECASE)
_ELSEWHERE = re.compile(r"\bnew folder\b|\bnew name\b|name of a new|another one\b", re.IGNORECASE)
_OTHER_INPUT = re.compile(r"\banother folder\b|^check the path", re.IGNORECASE)
_CHOICE = re.compile(r"(?:choose one of|it has|did you mean|give its folder:) (.+)", re.IGNORECASE)
_OPTION = re.compile(r"(--[a-z][a-z-]*)((?:[ =](?:'[^']*'|\"[^\"]*\"|[^\s,;:]+))*)")


@functools.cache
def _commands() -> dict[str, Any]:
    import typer

    from cli import app

    found: Any = typer.main.get_command(app)
    return dict(found.commands)


def _options(command: str) -> dict[str, Any]:
    options = _commands()[command].params if command in _commands() else []
    return {name: option for option in options for name in option.opts}


def typed(hint: str, line: str, message: str) -> list[str]:
    """Command lines that a reader of ``hint`` may type after ``line`` ended with ``message``; empty where none."""
    lines = []
    rest = hint
    for match in _COMMAND.finditer(hint):
        text = _SENTENCE_GOES_ON.split(match[1])[0]
        if text == "train":  # "the same lanit train command"
            lines.append(line if line.startswith("train ") else f"{TRAIN} --out run --revision 2 --steps 4")
        elif text.split()[0] in _commands():
            lines.append(_command(text))
        if text.split()[0] in _commands():
            rest = rest.replace(text, "")
    for clause in _SENTENCES.split(rest):
        if clause and (new := _clause(clause.strip(" ."), line, message)):
            lines.append(new)
    if re.search(
        r"\b(run|the|repeat) (it|the same|this one)\b(?! lanit).*\b(again|command)|^The same command",
        hint,
        re.IGNORECASE,
    ):
        lines.append(line)
    return list(dict.fromkeys(lines))


def _command(text: str) -> str:
    """A whole command, with its capitals filled in, cut where the sentence goes on."""
    command, *words = shlex.split(text)
    filled: list[str] = []
    for word in words:
        if _METAVARIABLE.fullmatch(word):
            option = filled[-1] if filled and filled[-1].startswith("--") else ""
            word = _STANDS_FOR.get(option, "../faces")
        filled.append(word)
    return shlex.join([command, *filled])


def _clause(clause: str, line: str, message: str) -> str | None:
    """What one clause makes of the line; none where there is nothing to type."""
    command, *words = shlex.split(line)
    clause = clause.replace("(", "").replace(")", "").replace("such as ", "")
    named = [(match[1], _values(match[2])) for match in _OPTION.finditer(clause)]
    if "itself" in clause:  # a file that the reader has to have
        return None
    if _LEAVE_OUT.search(clause):
        told = [
            option for option in re.findall(r"--[a-z-]+", re.split(r" with | without ", message)[0]) if option in words
        ]
        gone = [option for option, _ in named] or (told if "them" in clause else told[:1])
        for option in gone:
            words = _without(command, words, option)
    elif re.search(r"^keep (one|it)", clause, re.IGNORECASE):
        twice = [word for word in words if word.startswith("--") and word in message]
        words = _without(command, words, twice[0], once=True) if twice else words
    elif named:
        for option, values in named:
            if option in _options(command):
                words = _with(command, words, option, values)
    elif _ELSEWHERE.search(clause) or (_OTHER_INPUT.search(clause) and "--out" in message):
        out = "--out" in words
        words = _with(command, words, "--out", ["elsewhere"]) if out else _first_argument(words, "elsewhere")
    elif _OTHER_INPUT.search(clause):
        words = _first_argument(words, "../more")
    elif match := _CHOICE.search(clause):
        words = _replaced(words, message, re.split(r", | or ", match[1])[0].strip(" '?."))
    return shlex.join([command, *words]) if words != shlex.split(line)[1:] else None


def _values(text: str) -> list[str]:
    """Words after an option, quoted ones as one; what a sentence has no quotes for is left as it is."""
    return [word.strip("'\"") for word in re.findall(r"'[^']*'|\"[^\"]*\"|[^\s=]\S*", text)]


def _takes(command: str, option: str) -> int:
    found = _options(command).get(option)
    return 0 if found is None or getattr(found, "is_flag", False) else int(found.nargs)


def _without(command: str, words: list[str], option: str, once: bool = False) -> list[str]:
    words = list(words)
    while option in words:
        at = words.index(option)
        del words[at : at + 1 + _takes(command, option)]
        if once:
            break
    return words


def _with(command: str, words: list[str], option: str, values: list[str]) -> list[str]:
    count = _takes(command, option)
    values = [value for value in values if not re.fullmatch(r"for|to|with|in|needs|means|and|on|is|out|gives?", value)]
    values = values[:count]
    if any(_METAVARIABLE.fullmatch(value) for value in values) or len(values) < count:
        values = shlex.split(_STANDS_FOR.get(option, ""))[:count]
    if len(values) < count:  # such as "fewer --actors"
        return words
    if option == "--set" and values:  # may be repeated, each name once
        kept, name = list(words), values[0].partition("=")[0]
        for at in [at for at, word in enumerate(kept) if word == "--set" and kept[at + 1].partition("=")[0] == name]:
            kept[at : at + 2] = ["", ""]
        return [word for word in kept if word != ""] + [option, *values]
    return [*_without(command, words, option), option, *values]


def _first_argument(words: list[str], value: str) -> list[str]:
    """For commands whose folder has no option."""
    return [value, *words[1:]] if words and not words[0].startswith("--") else words


def _replaced(words: list[str], message: str, better: str) -> list[str]:
    """``words`` with the one that the message quotes replaced."""
    quoted = [*re.findall(r"'([^']+)'", message), *re.findall(r"\S+", message)]
    for wrong in quoted:
        for at, word in enumerate(words):
            if word == wrong or (wrong in word and len(wrong) > 3 and not word.startswith("--")):
                return [*words[:at], word.replace(wrong, better), *words[at + 1 :]]
    return words
