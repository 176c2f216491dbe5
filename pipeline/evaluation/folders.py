"""``lanit evaluate --real A --fake B``: two sets of images, however they came about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lanit.errors import LanitError
from lanit.metrics import neighbours, resampled_counts
from pipeline.decoding.clip_input import decode_for_clip
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.limits import ImageError
from pipeline.evaluation.features import ClipFeatures, Extractor
from pipeline.evaluation.figures import PROTOCOL, ExtractorFacts, SetFigures, rounded
from pipeline.evaluation.measures import BY_NAME
from pipeline.evaluation.measuring import (
    RealSide,
    averaged,
    bootstrapped_clip_mmd,
    bootstrapped_frechet,
    bootstrapped_kernel_distance,
    repeats_of,
)
from pipeline.evaluation.options import EvaluationOptions
from pipeline.evaluation.sample import BLOCK, blocks, draw, read_ahead, torch_generator_of
from pipeline.evaluation.warnings import warnings_of_matching, warnings_of_sets
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.places import Place, listed

if TYPE_CHECKING:
    from pipeline.progress import Progress


@dataclass(frozen=True)
class Matching:
    """Names of subfolders. both: on both sides, each of which is compared by itself; real, fake: on that side alone.
    skipped: those of both that cannot be compared, and why."""

    both: tuple[str, ...]
    real: tuple[str, ...]
    fake: tuple[str, ...]
    skipped: dict[str, str]


@dataclass(frozen=True)
class FolderEvaluation:
    """Two sets of images; domains: of subfolders that both have. failed: images that could not be read."""

    real: str
    fake: str
    failed: int
    options: EvaluationOptions
    extractor: ExtractorFacts
    whole: SetFigures
    domains: tuple[SetFigures, ...]
    matching: Matching
    warnings: tuple[str, ...]

    @property
    def mean_frechet(self) -> float | None:
        """mFID, of the subfolders."""
        return sum(each["frechet"].value for each in self.domains) / len(self.domains) if self.domains else None

    def to_json(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "real": self.real,
            "fake": self.fake,
            "failed": self.failed,
            "options": self.options.to_json(),
            "extractor": asdict(self.extractor),
            "all": self.whole.to_json(),
            "mean_frechet": rounded(self.mean_frechet, BY_NAME["frechet"].decimals),
            "domains": [each.to_json() for each in self.domains],
            "subfolders": asdict(self.matching),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class _Set:
    """features: float32 (n×d). folders: n names, the first part of each path, empty for images in no subfolder."""

    features: Tensor
    folders: np.ndarray
    failed: int


def evaluate_folders(
    real: str, fake: str, extractor: Extractor, options: EvaluationOptions, progress: Progress | None = None
) -> FolderEvaluation:
    """Compare two folders, tars or tables of images.

    Subfolders of the same name are compared too, pair by pair, where there are several. Raises LanitError where a side
    has too few images.
    """
    places = [_places(each) for each in (real, fake)]
    total = sum(len(each) for each in places)
    sides = []
    for side in (0, 1):
        done = len(places[0]) * side
        sides.append(_features((real, fake)[side], places[side], extractor, options, done, total, progress))
    first, second = sides
    of_clip = isinstance(extractor, ClipFeatures)
    whole = _compare("", first.features, second.features, options, of_clip)
    matching = _matching(first.folders, second.folders, options.neighbours + 1)
    domains = tuple(
        _compare(name, first.features[first.folders == name], second.features[second.folders == name], options, of_clip)
        for name in matching.both
        if name not in matching.skipped
    )
    failed = first.failed + second.failed
    warnings = warnings_of_sets(domains or (whole,), options.neighbours) + warnings_of_matching(
        matching.both, matching.real, matching.fake, matching.skipped
    )
    if failed:
        warnings.append(f"{failed} of {total} images cannot be read and were left out")
    return FolderEvaluation(real, fake, failed, options, extractor.facts, whole, domains, matching, tuple(warnings))


def _matching(real: np.ndarray, fake: np.ndarray, least: int) -> Matching:
    """real, fake: of every image the name of its subfolder, empty where it lies in none. least: images to compare."""
    names = [set(side.tolist()) - {""} for side in (real, fake)]
    both = sorted(names[0] & names[1])
    if len(names[0] | names[1]) == 1 and both and "" not in (*real, *fake):
        both = []  # that one subfolder is the whole
    skipped = {}
    for name in both:
        fewest = min(int((side == name).sum()) for side in (real, fake))
        if fewest < least:
            skipped[name] = f"{fewest} images on one side, and {least} are needed"
    alone = [tuple(sorted(one - other)) for one, other in (names, names[::-1])]
    return Matching(tuple(both), alone[0], alone[1], skipped)


def _places(folder: str) -> list[Place]:
    found = [place for source in open_inputs([folder]) for place in listed(source)]
    return sorted(found, key=lambda place: (place.path, place.offset or 0, place.source))


def _features(
    folder: str,
    places: list[Place],
    extractor: Extractor,
    options: EvaluationOptions,
    done: int,
    total: int,
    progress: Progress | None,
) -> _Set:
    sources = {source.source: source for source in open_inputs([folder])}

    def decode(place: Place) -> np.ndarray | Tensor | None:
        try:
            data = sources[place.source].read(place.path, place.offset, place.bytes)
            if isinstance(extractor, ClipFeatures):
                return decode_for_clip(data, extractor.clip.preprocessing).pixels
            return decode_rgb(data)
        except ImageError:
            return None

    found, folders, failed = [], [], 0
    for chunk in blocks(zip(places, read_ahead(decode, places, options.batch_size), strict=True), BLOCK):
        good = [(place, image) for place, image in chunk if image is not None]
        failed += len(chunk) - len(good)
        found += list(_encode(extractor, [image for _, image in good]))
        folders += [_top(place.path) for place, _ in good]
        done += len(chunk)
        if progress is not None:
            progress(done, total, folder)
    if len(folders) <= options.neighbours:
        raise LanitError(
            f"{folder} has {len(folders)} images that can be read, and {options.neighbours + 1} are needed",
            f"Add images to {folder}, or name another folder.",
        )
    return _Set(torch.cat(found), np.array(folders), failed)


def _encode(extractor: Extractor, images: list[Any]) -> Iterator[Tensor]:
    if not images:
        return
    if isinstance(extractor, ClipFeatures):
        yield extractor.encode(images)
    elif len({image.shape for image in images}) == 1:
        yield extractor(np.stack(images))
    else:
        for image in images:
            yield extractor(image[None])


def _top(path: str) -> str:
    first, _, rest = path.partition("/")
    return first if rest else ""


def _compare(name: str, real: Tensor, fake: Tensor, options: EvaluationOptions, of_clip: bool) -> SetFigures:
    rows = draw(np.arange(len(real)), options.real, options.seed, f"real {name}")
    side = RealSide(real[torch.from_numpy(rows)], name, options, of_clip=of_clip)
    features = fake.double()
    counts = resampled_counts(len(fake), options.bootstrap, torch_generator_of(options.seed, f"fake {name}"))
    near = neighbours(side.features, features, options.neighbours)
    values = {
        "frechet": bootstrapped_frechet(side, features, counts),
        "kid": bootstrapped_kernel_distance(side, features, counts),
        "density": averaged(near.density, counts),
        "coverage": averaged(near.covered, side.counts, 1.0),
    } | bootstrapped_clip_mmd(side, features, counts)
    return SetFigures(name, len(side.features), len(fake), values, repeats_of(side, features))
