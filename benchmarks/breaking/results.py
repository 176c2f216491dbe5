"""What commands left and said, made comparable: files by digest, JSON without seconds."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

VOLATILE = frozenset({
    "seconds", "images_per_second", "rows_per_second", "rate", "waiting", "model_share", "writing", "decode_share",
    "encode_share", "write_share", "took",
})  # fmt: skip
"""Keys of JSON that tell of the time a command took."""
_SEALED_BY = "sha256:"
_OF_LINES = {"lines", "sha256"}
"""Of what a checkpoint says of the lines of metrics so far, whose digest covers the seconds in them."""

_LEFT = re.compile(
    r"(^|/)\.[^/]+\.(\d+\.(tmp|old)|exporting|replaced|tmp|old)(/|$)|\.(partial|tmp|part|incomplete|sqlite)$"
)
Tree = dict[str, str]
"""Files below a folder by POSIX path, each with a digest of what counts in it; empty folders, with a slash."""


def tree(folder: Path) -> Tree:
    """The files below ``folder``. Locks are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.name.endswith(".lock"):
            found[name] = digest(path, folder)
        elif path.is_dir() and not any(path.iterdir()):
            found[f"{name}/"] = ""
    return found


def digest(path: Path, folder: Path) -> str:
    """Of a file's content: JSON and text without what is volatile and without the name of ``folder``."""
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl", ".html", ".csv", ".md"):
        text = data.decode("utf-8", "surrogateescape").replace(str(folder), ".")
        if path.suffix == ".json":
            text = said(text, folder)
        elif path.suffix == ".jsonl":
            lines = [line for line in text.splitlines() if path.parent.name != "cache" or _is_json(line)]
            text = "\n".join(said(line, folder) for line in lines) + text[-1:]
        elif path.name == "labels.csv":  # ids of translations hold the name of their folder
            text = "\n".join(line.partition(",")[2] for line in text.splitlines())
        data = text.encode("utf-8", "surrogateescape")
    return hashlib.sha256(data).hexdigest()[:16]


def said(text: str, folder: Path) -> str:
    """What a command printed; of JSON without what is volatile."""
    text = text.replace(str(folder), ".")
    try:
        return json.dumps(_stable(json.loads(text)), sort_keys=True)
    except (ValueError, RecursionError):
        return text


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == _OF_LINES:  # the lines themselves are compared in their own file
            return {"lines": value["lines"]}
        return {key: _stable(inner) for key, inner in value.items() if key not in VOLATILE and not _is_seal(inner)}
    if isinstance(value, list):
        return [_stable(inner) for inner in value]
    return value


def _is_json(line: str) -> bool:
    """Of a cache: readers skip the lines that were torn."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _is_seal(value: Any) -> bool:
    """Of a document: it covers the seconds in it."""
    return isinstance(value, str) and value.startswith(_SEALED_BY)


def is_leftover(name: str) -> bool:
    """Whether a file is one that a killed process left half-made."""
    return _LEFT.search(name) is not None


def differences(found: Tree, wanted: Tree) -> list[str]:
    """Files that differ, as ``name (missing, extra or other)``; left-overs are not among them."""
    names = sorted(name for name in found.keys() | wanted.keys() if not is_leftover(name))
    kinds = {name: "missing" if name not in found else "extra" if name not in wanted else "other" for name in names}
    return [f"{name} ({kinds[name]})" for name in names if found.get(name) != wanted.get(name)]


def leftovers(found: Tree) -> list[str]:
    return [name for name in found if is_leftover(name)]


def table(columns: list[str], rows: list[list[object]]) -> str:
    """A table in Markdown; all columns but the first are flush right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *[[str(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
