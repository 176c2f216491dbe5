"""From the options of a command to what the library takes: rules, models, NAME=VALUE settings."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from lanit.errors import UsageError
from lanit.labels import Rule, RuleKind
from pipeline.clip.models import ClipModel

if TYPE_CHECKING:
    from pipeline.computing.ray_cluster import Workforce
    from pipeline.embedding.embed import EmbedOptions, EngineMaker
    from pipeline.labelling.label_decisions import Decider

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


@contextlib.contextmanager
def workforce_of(engine: str, address: str | None, actors: int | None, device: str) -> Iterator[Workforce | None]:
    """The cluster of ``--engine ray --address --actors`` for as long as the block lasts; none for this machine alone.

    Raises UsageError where the options contradict, LanitError where the cluster cannot be had.
    """
    if engine == "local":
        if address is not None or actors is not None:
            name = "--actors" if address is None else "--address"
            raise UsageError(f"{name} is of a Ray cluster", "Add --engine ray.")
        yield None
        return
    from pipeline.computing.ray_cluster import workforce

    with workforce(address, actors, device) as force:
        yield force


def engine_maker(force: Workforce | None, clip: ClipModel, options: EmbedOptions) -> EngineMaker | None:
    """What embeds on a cluster; none for this machine alone."""
    if force is None:
        return None
    from pipeline.embedding.ray_embed import ray_engine

    return ray_engine(clip, options, force)


def decider_of(force: Workforce | None, remark: Callable[[str], None]) -> Decider | None:
    """What labels on a cluster; none for this machine alone. remark: called with what a person should know."""
    if force is None:
        return None
    from pipeline.labelling.ray_label import ray_decider

    return ray_decider(force, remark)


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
