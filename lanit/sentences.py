"""Prompts as text: phrases, templates, and the sentences that they make (METHOD §1)."""

from __future__ import annotations

import re

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana and Chinese characters
)
"""Letters of scripts without spaces between words, in which a phrase has to touch its neighbours."""

_LETTER = rf"(?:(?![{_UNSPACED}])[^\W\d_])"
_WORD = rf"{_LETTER}+(?:['’-]{_LETTER}+)*"
_TOUCHED = re.compile(rf"\s*(?:{_WORD}['’-]?)?\{{\}}(?:['’-]?{_WORD})?")


def sentence(template: str, phrase: str) -> str:
    """What CLIP reads of a phrase."""
    return template.replace("{}", phrase)


def before_phrase(template: str) -> str:
    """The words before the phrase, which are what prompt learning learns (METHOD 12)."""
    return template.split("{}")[0].strip()


def without_phrase(template: str) -> str:
    """The base prompt of a template: without its phrase, and without what makes one word with that ("many {}s")."""
    return _TOUCHED.sub("", template).strip()


def touches_phrase(template: str) -> bool:
    """Whether a letter touches the phrase ("many {}s", "non{}", "{}-like"): the two are one word to CLIP."""
    touched = _TOUCHED.search(template)
    return touched is not None and touched[0].strip() != "{}"
