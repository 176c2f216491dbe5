"""``metrics.jsonl`` of a run: one sealed JSON object a line; a line that is torn or damaged counts for nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.files import sealed, sha256_bytes, unsealed, write_bytes


def add_line(path: Path, line: dict[str, Any]) -> None:
    """Append ``line``, which has a ``step`` and a ``kind``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(sealed(line), ensure_ascii=False) + "\n")


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines, without their seals, and how many are damaged; a last one that is being written is not among them."""
    found = [_parsed(line) for line in _whole_lines(path)]
    whole = [line for line in found if line is not None]
    return whole, len(found) - len(whole)


def forget_later_lines(path: Path, step: int) -> None:
    """Drop lines of steps after ``step``, and what cannot be read."""
    lines = _whole_lines(path)
    kept = [line for line in lines if (parsed := _parsed(line)) is not None and parsed["step"] <= step]
    if path.is_file() and path.read_bytes() != b"".join(kept):
        write_bytes(path, b"".join(kept))


def record_of(path: Path) -> dict[str, Any]:
    """What tells the lines there are now from any others: their number and digest."""
    lines = _whole_lines(path)
    return {"lines": len(lines), "sha256": sha256_bytes(b"".join(lines))}


def begins_with(path: Path, record: dict[str, Any]) -> bool:
    """Whether the file still begins with the lines of :func:`record_of`."""
    lines = _whole_lines(path)[: record["lines"]]
    return len(lines) == record["lines"] and sha256_bytes(b"".join(lines)) == record["sha256"]


def _whole_lines(path: Path) -> list[bytes]:
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines if line.endswith(b"\n")]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """None where it was changed since it was written."""
    try:
        value = unsealed(json.loads(line))
    except (AttributeError, ValueError, RecursionError):
        return None
    return value if isinstance(value.get("step"), int) and isinstance(value.get("kind"), str) else None
