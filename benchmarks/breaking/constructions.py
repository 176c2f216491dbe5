"""Every place in the source that makes a LanitError, and a record of those that commands made."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from lanit.errors import LanitError

ROOT = Path(__file__).parents[2]
_NAMES = frozenset({"LanitError", "UsageError"})
_TYPEABLE = re.compile(r"--[a-z]|\blanit [a-z]|same command|same lanit|Choose one|Did you mean")


@dataclass(frozen=True)
class Construction:
    """file: below the root of the source, with its first and last line; message, hint: what can be read of them, with
    expressions in braces."""

    file: str
    first: int
    last: int
    message: str
    hint: str

    @property
    def typeable(self) -> bool:
        """Whether its hint holds a command or an option."""
        return _TYPEABLE.search(self.hint) is not None


@dataclass(frozen=True)
class Made:
    """An error that a command made. file, line: where."""

    file: str
    line: int
    message: str
    hint: str


def constructions() -> list[Construction]:
    """All of them, in the order of files and lines."""
    found = []
    for path in sorted([ROOT / "cli.py", *(ROOT / "lanit").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")]):
        module = ast.parse(path.read_text(encoding="utf-8"))
        texts = _named_texts(module)
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _NAMES:
                message, hint = [*(_text(each, texts) for each in node.args[:2]), "", ""][:2]
                place = path.relative_to(ROOT).as_posix()
                found.append(Construction(place, node.lineno, node.end_lineno or node.lineno, message, hint))
    return found


def _named_texts(module: ast.Module) -> dict[str, str]:
    """Texts that the module gives a name, anywhere; of a name with several, all of them together."""
    found: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            found[name] = f"{found.get(name, '')} {_text(node.value, {})}".strip()
    return found


def _text(node: ast.expr, texts: dict[str, str]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value, texts) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        return texts.get(ast.unparse(node.value), "{" + ast.unparse(node.value) + "}")
    if isinstance(node, ast.IfExp):
        return f"{_text(node.body, texts)} {_text(node.orelse, texts)}"
    if isinstance(node, ast.Name) and node.id in texts:
        return texts[node.id]
    return "{" + ast.unparse(node) + "}"


class Record:
    """What commands forked from this process make: one file, which they write to and :meth:`take` empties."""

    def __init__(self) -> None:
        self._file = os.memfd_create("errors")
        made = LanitError.__init__

        @functools.wraps(made)
        def noting(error: LanitError, message: str, hint: str = "") -> None:
            made(error, message, hint)
            caller = sys._getframe(1)
            place = Path(caller.f_code.co_filename)
            name = place.relative_to(ROOT).as_posix() if place.is_relative_to(ROOT) else str(place)
            line = json.dumps([name, caller.f_lineno, error.message, error.hint])
            os.write(self._file, f"{line}\n".encode())

        LanitError.__init__ = noting  # type: ignore[method-assign, assignment]

    def take(self) -> list[Made]:
        """The errors made since the last call; only one command may have run."""
        os.lseek(self._file, 0, os.SEEK_SET)
        lines = os.read(self._file, 1 << 24).decode(errors="replace").splitlines()
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        return [Made(*json.loads(line)) for line in lines]
