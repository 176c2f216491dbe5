"""Names that stand for several files: braces as shells expand them, and wildcards."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator

from lanit.errors import LanitError
from pipeline.inputs.storage import is_url, scheme_of

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")
_MOST = 100_000


def expand_braces(text: str) -> list[str]:
    """``{00000..00010}`` (with leading zeros where one of the ends has them), ``{0..10..2}``, ``{train,val}``, several
    of them, and nested. Braces around neither a range nor a comma stay. Raises LanitError beyond 100 000 names."""
    names: list[str] = []
    for name in _expanded(text):
        names.append(name)
        if len(names) > _MOST:
            raise LanitError(f"{text} stands for more than {_MOST:,} names", "Check the range.")
    return names


def has_wildcards(text: str) -> bool:
    """A question mark is none in a web address, where a query begins with it."""
    return any(char in text for char in ("*[" if scheme_of(text) in ("http", "https") else "*?["))


def matches(pattern: str) -> list[str]:
    """Sorted names of the files and folders that fit; ``**`` goes into subfolders. Raises LanitError behind a URL."""
    if is_url(pattern):
        from pipeline.inputs.remote import RemoteStorage

        return RemoteStorage().glob(pattern)
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes hidden files for matches


def _expanded(text: str) -> Iterator[str]:
    for start, char in enumerate(text):
        options = _options(text, start) if char == "{" else None
        if options is None:
            continue
        inside, end = options
        for option in inside:
            for middle in _expanded(option):
                for tail in _expanded(text[end:]):
                    yield text[:start] + middle + tail
        return
    yield text


def _options(text: str, start: int) -> tuple[list[str] | Iterator[str], int] | None:
    """What the brace at ``start`` stands for, and where the text goes on; none for a brace that stands for itself."""
    depth, begin, options = 0, start + 1, []
    for index in range(start, len(text)):
        char = text[index]
        depth += (char == "{") - (char == "}")
        if (depth == 1 and char == ",") or depth == 0:
            options.append(text[begin:index])
            begin = index + 1
        if depth == 0:
            if len(options) > 1:
                return options, index + 1
            span = _RANGE.fullmatch(options[0])
            return (_numbers(*span.groups()), index + 1) if span else None
    return None


def _numbers(first: str, last: str, step: str | None) -> Iterator[str]:
    low, high = int(first), int(last)
    stride = abs(int(step or 1)) or 1
    padded = any(end.lstrip("-").startswith("0") and end.lstrip("-") != "0" for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    numbers = range(low, high + 1, stride) if low <= high else range(low, high - 1, -stride)
    return (f"{number:0{width}d}" for number in numbers)
