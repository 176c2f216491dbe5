"""What to make of each image, as it was typed: words with weights, references, styles, interpolation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lanit.errors import UsageError

Words = tuple[tuple[str, float], ...]
"""Domains, or phrases that stand for them, with their weights."""
Film = Literal["strip", "gif", "mp4"]

_MOST_STYLES = 1000


@dataclass(frozen=True)
class TranslateRequest:
    """What to make of each image.

    to: the domains of the result with their weights, instead of the image's own. add, remove: domains to change in
    the image's own labels, which CLIP reads. reference: an image, or a folder or tar of them that counts by its mean
    style, whose style to take for every domain in which the source does not keep its own, and whose labels where no
    domain is named. references: the same for single domains, as (domain, path); the others take theirs from the
    latent. styles: how many latents to draw, one result each. interpolate: two texts as of ``to``, or images or
    folders, between whose styles ``steps`` results lie. film: how these are stored. seed: of the latents; the same
    serve all images, so order and batches do not matter. Raises UsageError for what contradicts itself.
    """

    to: Words = ()
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    reference: Path | None = None
    seed: int = 0
    references: tuple[tuple[str, Path], ...] = ()
    styles: int = 1
    interpolate: tuple[str, str] | None = None
    steps: int = 8
    film: Film = "strip"

    def __post_init__(self) -> None:
        if self.to and (self.add or self.remove):
            raise UsageError(
                "--to names all domains of the result, --add and --remove change the image's own",
                "Use one or the other.",
            )
        both = set(self.add) & set(self.remove)
        if both:
            raise UsageError(f"'{both.pop()}' is both added and removed", "Name it once.")
        if self.interpolate is not None:
            if self.to or self.add or self.remove or self.reference:
                raise UsageError(
                    "--interpolate names both ends of the way itself", "Leave out --to, --add, --remove, --reference."
                )
            if self.styles != 1:
                raise UsageError("--interpolate does not go with --styles", "Leave one of them out.")
        elif not (self.to or self.add or self.remove or self.reference):
            raise UsageError(
                "nothing to translate to", 'Name domains, such as --to "smiling", or give --reference IMG.'
            )
        if not 1 <= self.styles <= _MOST_STYLES:
            raise UsageError(f"--styles is 1 to {_MOST_STYLES}, not {self.styles}", "Leave it out.")
        if not 2 <= self.steps <= _MOST_STYLES:
            raise UsageError(f"--steps is 2 to {_MOST_STYLES}, not {self.steps}", "Leave it out.")
        if self.styles > 1 and self.reference is not None:
            raise UsageError("--styles draws styles, but --reference gives one", "Leave one of them out.")


def parse_domains(text: str) -> Words:
    """``"smiling, eyeglasses=0.5"`` to names and weights; raises UsageError for a weight that is none."""
    found = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, weight = part.partition("=")
        try:
            value = float(weight) if weight else 1.0
        except ValueError:
            value = -1.0
        if not 0 < value < float("inf"):
            raise UsageError(f"'{part}' has no positive weight", "Write, for example, smiling=0.5.")
        found.append((name.strip(), value))
    return tuple(found)


def parse_names(text: str) -> tuple[str, ...]:
    """``"smiling, bangs"`` to names; raises UsageError for a weight, which an edit does not take."""
    for name, weight in (found := parse_domains(text)):
        if weight != 1:
            raise UsageError(f"'{name}={weight:g}': domains are added and removed in full", "Weights go with --to.")
    return tuple(name for name, _ in found)


def parse_references(texts: Iterable[str]) -> tuple[Path | None, tuple[tuple[str, Path], ...]]:
    """``--reference`` texts, each a path or ``"domain, domain=path"``, to the path for all domains and those for one.

    A text that exists is a path, whatever is in it. Raises UsageError where a domain, or all, are given two.
    """
    whole: Path | None = None
    single: dict[str, Path] = {}
    for text in texts:
        names, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            if whole is not None:
                raise UsageError(
                    f"--reference {whole} and {text} are both for all domains",
                    'Say what for: --reference "smiling=face.jpg".',
                )
            whole = Path(text)
            continue
        for name in filter(None, (piece.strip() for piece in names.split(","))):
            if name in single:
                raise UsageError(f"'{name}' has two references", "Give a folder to take their mean.")
            single[name] = Path(path.strip())
    return whole, tuple(single.items())


def interpolation_options(wanted: bool, steps: int | None, film: Film | None) -> tuple[int, Film]:
    """``--steps`` and ``--as``, or what they are without; raises UsageError for them without ``--interpolate``."""
    if not wanted and (steps is not None or film is not None):
        name = "--steps" if steps is not None else "--as"
        raise UsageError(f"{name} is for --interpolate", 'Add, for example, --interpolate "smiling" "bangs".')
    return 8 if steps is None else steps, film or "strip"
