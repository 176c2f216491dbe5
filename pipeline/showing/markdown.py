"""Texts of users in Markdown pages, such as the cards of models and datasets."""

from __future__ import annotations

import html
import unicodedata

_MARKS = "\\`*_~|[]#!"
_TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""What turns the direction of the text that follows."""


def markdown_text(text: str) -> str:
    """``text`` as Markdown shows it letter by letter, on one line, in a table too; no HTML and no link comes of it."""
    shown = "".join(" " if _is_control(letter) else letter for letter in text)
    escaped = html.escape(" ".join(shown.split()), quote=False)
    for mark in _MARKS:
        escaped = escaped.replace(mark, f"\\{mark}")
    return escaped.replace("://", ":&#47;/").replace("www.", "www&#46;").replace("@", "&#64;")


def _is_control(letter: str) -> bool:
    """Ends of lines, codes of terminals, halves of letters."""
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in _TURNING
