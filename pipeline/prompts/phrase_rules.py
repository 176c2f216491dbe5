"""What a phrase may not be, the settings that may follow it, and what to do about either."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lanit.errors import LanitError, excerpt

LONGEST_PHRASE = 1000
"""Characters of a phrase: more cannot be meant as one, and no CLIP has a context for it."""

UNSET = (0.0, 1.0)
"""Offset and weight of a phrase without either."""

FILE_HELP = "A prompt file has one phrase a line, and optionally 'noun: face' or 'template: a face with {}.'."
SETTINGS_HELP = "Write it like: smiling | offset=0.01 weight=2"


def wrong_with(domain: str) -> tuple[str, str] | None:
    """Why ``domain`` cannot be a phrase, and what to do about it; none where it can."""
    if domain.count("{}") == 1 and "{" not in domain.replace("{}", ""):
        return "has braces", f"Write a template as 'template: {excerpt(domain)}'."
    if "{" in domain or "}" in domain:
        return "has braces", "Leave them out."
    if "|" in domain:
        return "has a bar", SETTINGS_HELP
    if "," in domain or ";" in domain:
        return "has a comma or semicolon", "Put each phrase on a line of its own."
    if not any(character.isalnum() for character in domain):
        return "has no letter or digit", FILE_HELP
    if len(domain) > LONGEST_PHRASE:
        return f"has {len(domain):,} characters, more than any CLIP reads", "Put each phrase on a line of its own."
    return None


def parse_settings(text: str, where: str) -> tuple[float, float]:
    """Offset and weight from what follows a phrase's bar: ``offset=0.01 weight=2``, each at most once."""
    values: dict[str, object] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or name in values:
            raise LanitError(f"{where}: cannot read '{excerpt(word)}' after the '|'", SETTINGS_HELP)
        values[name] = value
    if not values:
        raise LanitError(f"{where}: nothing after the '|'", SETTINGS_HELP)
    return check_settings(values, where)


def check_settings(values: Mapping[str, object], where: str) -> tuple[float, float]:
    """Offset and weight among ``values``, by name. Raises LanitError where one is neither or out of its bounds."""
    for name in values:
        if name not in ("offset", "weight"):
            raise LanitError(f"{where}: a phrase has no '{excerpt(name)}'", SETTINGS_HELP)
    offset, weight = _number(values.get("offset", UNSET[0])), _number(values.get("weight", UNSET[1]))
    if not -2 <= offset <= 2:  # of the difference of two cosines; NaN fails too
        raise LanitError(
            f"{where}: the offset '{excerpt(str(values['offset']))}' is no number from -2 to 2",
            f"It is a margin. {SETTINGS_HELP}",
        )
    if not (weight > 0 and math.isfinite(weight)):
        weight_text = excerpt(str(values["weight"]))
        raise LanitError(f"{where}: the weight '{weight_text}' is no number above 0", SETTINGS_HELP)
    return offset, weight


def _number(value: object) -> float:
    """The number that ``value`` is or writes; NaN where it is none."""
    try:
        return math.nan if isinstance(value, bool) or not isinstance(value, str | int | float) else float(value)
    except ValueError:
        return math.nan
