"""Options as dataclasses, nested where they belong together and flat where people name them: each declared once."""

from __future__ import annotations

import math
from dataclasses import field, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from lanit.errors import UsageError

_Options = TypeVar("_Options")
GIVEN = {"given": True}


def given(default: Any) -> Any:
    """A field that is no setting: the data or the machine give its value."""
    return field(default=default, metadata=GIVEN)


def flat(options: Any) -> dict[str, Any]:
    """Every setting by its name, those of nested dataclasses in their place. options: an instance."""
    found: dict[str, Any] = {}
    for each in fields(options):
        value = getattr(options, each.name)
        if is_dataclass(value):
            found |= flat(value)
        elif each.metadata != GIVEN:
            found[each.name] = value
    return found


def nested(kind: type[_Options], settings: dict[str, Any]) -> _Options:
    """An instance of ``kind`` from settings by name, all others at their defaults; the names that it lacks are left."""
    hints, values = get_type_hints(kind), {}
    for each in fields(kind):  # type: ignore[arg-type]
        if is_dataclass(hints[each.name]):
            values[each.name] = nested(hints[each.name], settings)
        elif each.name in settings and each.metadata != GIVEN:
            values[each.name] = settings[each.name]
    return kind(**values)


def choices(kind: type) -> dict[str, tuple[Any, ...]]:
    """What each setting can be that is one of a few, those of nested dataclasses in their place."""
    hints, found = get_type_hints(kind), dict[str, tuple[Any, ...]]()
    for each in fields(kind):
        if is_dataclass(hints[each.name]):
            found |= choices(hints[each.name])
        elif get_origin(hints[each.name]) is Literal:
            found[each.name] = get_args(hints[each.name])
    return found


def check_settings(options: Any, shares: tuple[str, ...] = ()) -> None:
    """Raise UsageError for a setting of ``options`` itself that is negative, not finite, or none of its choices.

    shares: names of those that lie between 0 and 1.
    """
    hints = get_type_hints(type(options))
    for name in (each.name for each in fields(options) if each.metadata != GIVEN):
        hint = hints[name]
        value, choices = getattr(options, name), get_args(hint)
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise UsageError(f"{name} must be a number of at least 0, not {value:g}")
        if choices and value not in choices:
            raise UsageError(f"{name} '{value}' is unknown", f"Choose one of {', '.join(choices)}.")
        if name in shares and value > 1:
            raise UsageError(f"{name} is a share and lies between 0 and 1, not {value:g}")
