"""Text from files, tables, models and servers as a terminal may show it: nothing in it steers, hides or floods."""

from __future__ import annotations

import re

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters, among them what begins an escape sequence, and ends a line
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # turn text around, or show nothing
    "\ud800-\udfff\U000e0000-\U000e007f]"  # bytes that are not UTF-8, as Python keeps them; tags
)
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}
_QUOTED = re.compile(r"(?<![^\s(\[{=:,])(['\"])((?:(?!\1).){81,}?)\1(?![^\s.,;:)\]}?!])", re.DOTALL)
_SHOWN = 60
_MOST = 600


def visible(text: str) -> str:
    """``text`` with every character that a terminal would obey or hide written as an escape, such as ``\\x1b``.

    A byte that is not UTF-8 (a surrogate escape) is written as ``\\xNN``; so any text can be printed.
    """
    return _UNSEEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shortened(text: str, most: int = _SHOWN) -> str:
    """``text``, or its first ``most`` characters and an ellipsis: for what a user wrote, in a sentence."""
    return text if len(text) <= most else text[:most] + "…"


def brief(text: str) -> str:
    """A message with what it quotes shortened, and itself cut in the middle where it is longer than a screen."""
    text = _QUOTED.sub(lambda found: found[1] + shortened(found[2]) + found[1], text)
    return text if len(text) <= _MOST else f"{text[: 2 * _MOST // 3]} … {text[-_MOST // 4 :]}"
