"""From the options of a command to what the library takes: rules, models, NAME=VALUE settings."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from lanit.errors import UsageError
from lanit.labels import Rule, RuleKind
from pipeline.clip_models import ClipModel, load_clip

if TYPE_CHECKING:
    from pipeline.store import Store

DEFAULT_K = 2
DEFAULT_THRESHOLD = 0.25


def make_rule(kind: RuleKind, k: int | None, threshold: float | None) -> Rule:
    """The labelling rule of ``--rule``, ``--k`` and ``--threshold``; raises UsageError where they contradict."""
    if k is not None and kind != "top-k":
        raise UsageError(f"--k does not go with --rule {kind}", "Add --rule top-k, or leave --k out.")
    if threshold is not None and kind != "fixed":
        raise UsageError(f"--threshold does not go with --rule {kind}", "Add --rule fixed, or leave --threshold out.")
    if kind == "top-k":
        return Rule(kind, DEFAULT_K if k is None else k)
    return Rule(kind, DEFAULT_THRESHOLD if threshold is None else threshold) if kind == "fixed" else Rule(kind)


def clip_of(store: Store, spec: str | None, architecture: str | None, device: str = "cpu") -> ClipModel:
    """The CLIP that filled ``store``, or the one that ``--clip`` names instead.

    Raises LanitError where that is a model of other weights or other preprocessing.
    """
    if spec is None and architecture is None:
        model = load_clip(store.clip_spec, device, store.clip_architecture)
    else:
        model = load_clip(spec or store.clip_spec, device, architecture)
    store.check_fingerprint(model.fingerprint)
    return model


def merge_settings(options: type[Any], texts: Sequence[str], named: dict[str, Any]) -> dict[str, Any]:
    """``--set`` texts and options of their own (None: not given) as one dict; UsageError where both name one."""
    settings = parse_settings(options, texts)
    given = {name: value for name, value in named.items() if value is not None}
    for name in settings:
        if name in given:
            raise UsageError(f"--{name.replace('_', '-')} and --set {name} are both given", "Keep one of them.")
    return settings | given


def parse_settings(options: type[Any], texts: Sequence[str]) -> dict[str, Any]:
    """Values by field name, each of the type of its field's default (int, float or str).

    options: a dataclass whose fields all have plain defaults.
    Raises UsageError for a text without "=", an unknown name, a name given twice, or a value of another type.
    """
    defaults = {field.name: field.default for field in fields(options) if field.default is not MISSING}
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        name = name.replace("-", "_")
        if not equals:
            raise UsageError(f"--set '{text}' is not NAME=VALUE", "Write it like --set domain=1.0")
        if name not in defaults:
            names = difflib.get_close_matches(name, defaults, n=3, cutoff=0.5) or list(defaults)
            raise UsageError(f"--set: there is no option '{name}'", f"Choose one of {', '.join(names)}.")
        if name in found:
            raise UsageError(f"--set {name} is given twice", "Keep one of them.")
        kind = type(defaults[name])
        try:
            found[name] = kind(value)
        except ValueError as error:
            kinds = {int: "a whole number", float: "a number"}
            raise UsageError(f"--set {name}={value}: not {kinds[kind]}", f"The default is {defaults[name]}.") from error
    return found
