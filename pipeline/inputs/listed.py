"""Inputs that come from standard input: what ``find photos -name '*.jpg' | lanit embed -`` names."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lanit.errors import UsageError

STANDARD_INPUT = "-"


def listed_inputs(inputs: Sequence[str]) -> list[str]:
    """``inputs`` with the lines of standard input in the place of "-". Raises UsageError where it has none, or is no
    UTF-8 text."""
    if STANDARD_INPUT not in inputs:
        return list(inputs)
    try:
        lines = [line for line in sys.stdin.buffer.read().decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UsageError("standard input is not UTF-8 text", "Write one input a line.") from error
    if not lines:
        raise UsageError("standard input names no input", "Write one input a line, or name them: lanit embed photos/")
    place = list(inputs).index(STANDARD_INPUT)
    return [*inputs[:place], *lines, *(name for name in inputs[place:] if name != STANDARD_INPUT)]
