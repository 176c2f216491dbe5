"""What the results are called: every one has a name of its own below the folder of results, whoever named the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from pipeline.decoding.images import IMAGE_SUFFIXES
from pipeline.inputs.places import Input
from pipeline.inputs.storage import is_url
from pipeline.translating.announcements import Announcements
from pipeline.translating.origins import prefixes
from pipeline.translating.pictures import JPEG_SUFFIXES, KEPT_SUFFIXES
from pipeline.translating.recipe import Recipe
from pipeline.translating.requests import TranslateRequest
from pipeline.translating.source_images import SourceImage

Format = Literal["same", "png", "jpeg"]
SCRATCH_NAME = ".lanit-translate"
"""Of the folder, in that of the results, that holds what a run needs until it is finished."""


@dataclass(frozen=True)
class Naming:
    """How results are named.

    kept: suffixes, in small letters, that a result keeps; other images get ``suffix``. tags: what tells the results of
    one image apart, put before the suffix; one of them is empty where there is one result. prefixes: folders for the
    results of each input.
    """

    kept: frozenset[str]
    suffix: str
    tags: tuple[str, ...] = ("",)
    prefixes: Mapping[str, str] | None = None

    def keeps(self, path: str) -> bool:
        return PurePosixPath(path).suffix.lower() in self.kept

    def base(self, source: str, path: str) -> str:
        """The image's own path, safe to use below a folder, whoever wrote it: no ``..``, no root, no scheme."""
        if is_url(path):
            address = urlsplit(path)
            path = f"{address.netloc}/{address.path}"
        parts = [part for part in path.split("/") if part not in ("", ".", "..")] or ["image"]
        if parts[0].casefold() == SCRATCH_NAME:
            parts[0] = f"_{parts[0]}"
        prefix = (self.prefixes or {}).get(source, "")
        return "/".join([prefix, *parts] if prefix else parts)

    def candidates(self, base: str) -> Iterator[str]:
        """Names for a result, the best first, without end."""
        path = PurePosixPath(base)
        if self.keeps(base):
            yield base
            stem, suffix = str(path.with_suffix("")), path.suffix
        else:
            stem = str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else base
            suffix = self.suffix
            yield stem + suffix
            yield base + suffix
        number = 2
        while True:
            yield f"{stem}~{number}{suffix}"
            number += 1


def naming_of(format: Format, request: TranslateRequest, recipe: Recipe, origins: Sequence[Input]) -> Naming:
    """How the results of a request are called."""
    kept, suffix = KEPT_SUFFIXES, ".png"
    if recipe.frames is not None and request.film != "strip":
        kept, suffix = frozenset({f".{request.film}"}), f".{request.film}"
    elif format != "same":
        kept = JPEG_SUFFIXES if format == "jpeg" else frozenset({".png"})
        suffix = ".jpg" if format == "jpeg" else ".png"
    return Naming(kept, suffix, result_tags(recipe), prefixes(origins))


def announce_results(announced: Announcements, tags: Sequence[str], images: Sequence[SourceImage]) -> None:
    """Write down the names of the results of ``images`` before they are made."""
    announced.add([tagged(image.output, tag) for image in images for tag in tags])


def result_tags(recipe: Recipe) -> tuple[str, ...]:
    """What tells the results of one image apart: nothing where there is one, else ``-style1`` and on."""
    count = recipe.results
    return ("",) if count == 1 else tuple(f"-style{number}" for number in range(1, count + 1))


def tagged(output: str, tag: str) -> str:
    """``a/b.png`` with the tag ``-style2`` as ``a/b-style2.png``."""
    path = PurePosixPath(output)
    return str(path.with_name(f"{path.stem}{tag}{path.suffix}")) if tag else output
