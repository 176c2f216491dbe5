"""``lanit evaluate --real A --fake B``: two sets of images, however they came about."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lanit.errors import LanitError
from lanit.metrics import kernel_distance, neighbours, resampled_counts
from pipeline.decoding.clip_input import decode_for_clip
from pipeline.decoding.images import ImageError, decode_rgb
from pipeline.evaluation.features import ClipFeatures, Extractor
from pipeline.evaluation.figures import PROTOCOL, ExtractorFacts, SetFigures, rounded
from pipeline.evaluation.measuring import RealSide, averaged, bootstrapped_frechet
from pipeline.evaluation.options import EvaluationOptions
from pipeline.evaluation.sample import batches, draw, torch_generator_of
from pipeline.evaluation.warnings import warnings_of_sets
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.places import Place

if TYPE_CHECKING:
    from pipeline.console import Advance

_DECODERS = 4


@dataclass(frozen=True)
class FolderEvaluation:
    """Two sets of images; domains: of subfolders, where both have the same. failed: images that could not be read."""

    real: str
    fake: str
    failed: int
    options: EvaluationOptions
    extractor: ExtractorFacts
    whole: SetFigures
    domains: tuple[SetFigures, ...]
    warnings: tuple[str, ...]

    @property
    def mean_frechet(self) -> float | None:
        """mFID, of the subfolders."""
        return sum(each.frechet.value for each in self.domains) / len(self.domains) if self.domains else None

    def to_json(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "real": self.real,
            "fake": self.fake,
            "failed": self.failed,
            "options": self.options.to_json(),
            "extractor": asdict(self.extractor),
            "all": self.whole.to_json(),
            "mean_frechet": rounded(self.mean_frechet),
            "domains": [each.to_json() for each in self.domains],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class _Set:
    """features: float32 (n×d). folders: n names, the first part of each path, empty for images in no subfolder."""

    features: Tensor
    folders: np.ndarray
    failed: int


def evaluate_folders(
    real: str, fake: str, extractor: Extractor, options: EvaluationOptions, progress: Advance | None = None
) -> FolderEvaluation:
    """Compare two folders, tars or tables of images.

    Where every image lies in a subfolder and both sides have the same ones, each pair of them is compared too. Raises
    LanitError where a side has too few images.
    """
    places = [_places(each) for each in (real, fake)]
    total = sum(len(each) for each in places)
    sides = []
    for side in (0, 1):
        done = len(places[0]) * side
        sides.append(_features((real, fake)[side], places[side], extractor, options, done, total, progress))
    first, second = sides
    names = sorted(set(first.folders))
    paired = len(names) > 1 and "" not in names and names == sorted(set(second.folders))
    whole = _compare("", first.features, second.features, options)
    domains = tuple(
        _compare(name, first.features[first.folders == name], second.features[second.folders == name], options)
        for name in (names if paired else ())
    )
    failed = first.failed + second.failed
    warnings = warnings_of_sets(domains or (whole,))
    if failed:
        warnings.append(f"{failed} of {total} images cannot be read and were left out")
    return FolderEvaluation(real, fake, failed, options, extractor.facts, whole, domains, tuple(warnings))


def _places(folder: str) -> list[Place]:
    (source,) = open_inputs([folder])
    return sorted(source.places(), key=lambda place: (place.path, place.offset or 0))


def _features(
    folder: str,
    places: list[Place],
    extractor: Extractor,
    options: EvaluationOptions,
    done: int,
    total: int,
    progress: Advance | None,
) -> _Set:
    (source,) = open_inputs([folder])

    def decode(place: Place) -> np.ndarray | Tensor | None:
        try:
            data = source.read(place.path, place.offset, place.bytes)
            if isinstance(extractor, ClipFeatures):
                return decode_for_clip(data, extractor.clip.preprocessing).pixels
            return decode_rgb(data)
        except ImageError:
            return None

    found, folders, failed = [], [], 0
    with ThreadPoolExecutor(_DECODERS) as pool:
        for part in batches(len(places), options.batch_size):
            chunk = places[part]
            images = list(pool.map(decode, chunk))
            good = [image for image in images if image is not None]
            failed += len(images) - len(good)
            found += list(_encode(extractor, good))
            folders += [_top(place.path) for place, image in zip(chunk, images, strict=True) if image is not None]
            done += len(chunk)
            if progress is not None:
                progress(done, total, folder)
    if len(folders) <= options.neighbours:
        raise LanitError(
            f"{folder} has {len(folders)} images that can be read; {options.neighbours + 1} are needed", "Add images."
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


def _compare(name: str, real: Tensor, fake: Tensor, options: EvaluationOptions) -> SetFigures:
    if min(len(real), len(fake)) <= options.neighbours:
        raise LanitError(f"the subfolders {name} have too few images", f"{options.neighbours + 1} are needed.")
    rows = draw(np.arange(len(real)), options.real, options.seed, f"real {name}")
    side = RealSide(real[torch.from_numpy(rows)], name, options)
    features = fake.double()
    generator = torch_generator_of(options.seed, f"fake {name}")
    counts = resampled_counts(len(fake), options.bootstrap, generator)
    kid, kid_spread = kernel_distance(
        side.features, features, subsets=options.subsets, subset_size=options.subset_size, generator=generator
    )
    near = neighbours(side.features, features, options.neighbours)
    return SetFigures(
        name=name,
        real=len(side.features),
        fake=len(fake),
        frechet=bootstrapped_frechet(side, features, counts),
        kid=kid,
        kid_spread=kid_spread,
        density=averaged(near.density, counts),
        coverage=averaged(near.covered, side.counts, 1.0),
    )
