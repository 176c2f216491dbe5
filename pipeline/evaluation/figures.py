"""What an evaluation says: figures with their intervals, of a domain, of a run, of two folders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from lanit.metrics import interval

PROTOCOL = 1
"""Raised whenever the same models and images would get other figures: results of two protocols are not comparable."""

FEW_IMAGES = 2048
"""Below so many images a side, a Fréchet distance says as much about their number as about them."""

Guide = Literal["latent", "reference"]

DIGITS = 9  # significant, in JSON: beyond them lies the noise of float32 features


@dataclass(frozen=True)
class Figure:
    """A value, where a bootstrap puts it, and the bootstrap's own values, as many as were asked for (0: none).

    A replicate is nan where its sample had no image of the kind. Equal numbers of two figures are of the same sample.
    highest: what it can be at most; at least it is 0.
    """

    value: float
    replicates: tuple[float, ...] = ()
    highest: float = math.inf

    @property
    def ends(self) -> tuple[float, float] | None:
        """The 95 % interval, or none without replicates."""
        if not self.replicates:
            return None
        low, high = interval(self.value, self.replicates)
        return max(low, 0.0), min(high, self.highest)

    def to_json(self) -> dict[str, float | None]:
        low, high = self.ends or (None, None)
        return {"value": rounded(self.value), "low": rounded(low), "high": rounded(high)}


@dataclass(frozen=True)
class DomainFigures:
    """Translations to one domain under one guide, against the real images that carry it.

    real, sources, translations: images; translations = sources × styles. frechet: between real and translated.
    frechet_before: between real and the sources as they are, what doing nothing scores; none for one source. kid,
    kid_spread: mean and standard deviation over subsets. accuracy: share of translations in which the domain is
    recognised; accuracy_before: of sources. kept: share of the other domains whose recognition is what it was in the
    source; none where translation may change them all. identity: mean cosine distance between a translation and its
    source. diversity: the same between translations of one source; lpips: LPIPS between them; none with one style.
    judge_accuracy, judge_kept: accuracy and kept in the eyes of --judge.
    """

    domain: str
    real: int
    sources: int
    translations: int
    frechet: Figure
    frechet_before: float | None
    kid: float
    kid_spread: float
    density: Figure
    coverage: Figure
    accuracy: Figure
    accuracy_before: float
    kept: Figure | None
    identity: Figure
    diversity: Figure | None = None
    lpips: Figure | None = None
    judge_accuracy: Figure | None = None
    judge_kept: Figure | None = None

    def to_json(self) -> dict[str, Any]:
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def to_stored(self) -> dict[str, Any]:
        """With the replicates, to go on from."""
        return asdict(self)

    @classmethod
    def from_stored(cls, stored: dict[str, Any]) -> DomainFigures:
        values: dict[str, Any] = {
            name: Figure(value["value"], tuple(value["replicates"]), value["highest"])
            if isinstance(value, dict)
            else value
            for name, value in stored.items()
        }
        return cls(**values)


MEANS = (
    "frechet", "frechet_before", "kid", "density", "coverage", "accuracy", "accuracy_before", "kept", "identity",
    "diversity", "lpips", "judge_accuracy", "judge_kept",
)  # fmt: skip
"""Figures of a domain whose mean over domains is reported; that of ``frechet`` is mFID."""


COMPARED = ("frechet", "accuracy", "kept", "judge_accuracy", "judge_kept", "coverage")
"""Means of which models are compared, with an interval of their own."""


@dataclass(frozen=True)
class GuideFigures:
    """All domains under one guide. skipped: domains without figures, and why."""

    guide: Guide
    domains: tuple[DomainFigures, ...]
    skipped: dict[str, str]

    def mean(self, name: str) -> Figure | None:
        """The mean of a figure over the domains that have it, replicate by replicate; none where none has."""
        found = [getattr(domain, name) for domain in self.domains]
        there = [value for value in found if value is not None]
        return mean_figure([value if isinstance(value, Figure) else Figure(value) for value in there])

    def to_json(self) -> dict[str, Any]:
        return {
            "mean": {name: _plain(self.mean(name)) for name in MEANS},
            "domains": [domain.to_json() for domain in self.domains],
            "skipped": self.skipped,
        }


@dataclass(frozen=True)
class RunFigures:
    """A trained model. run: as it was named. model_sha256: of its weights. size: of its images, pixels. steps: of its
    training. domains: it knows. unrelated: mean cosine distance between two different sources, beside which
    ``identity`` is to be read."""

    run: str
    model_sha256: str
    size: int
    steps: int | None
    domains: tuple[str, ...]
    unrelated: float
    guides: tuple[GuideFigures, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "model_sha256": self.model_sha256,
            "size": self.size,
            "steps": self.steps,
            "domains": list(self.domains),
            "unrelated": rounded(self.unrelated),
            "guides": {each.guide: each.to_json() for each in self.guides},
        }


@dataclass(frozen=True)
class Difference:
    """A mean over domains of ``run`` less that of the first model, on the same images: its interval is narrower than
    theirs lie apart, because the same sources and real images were resampled for both."""

    run: str
    guide: Guide
    name: str
    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def differences(runs: Sequence[RunFigures], names: Sequence[str] = COMPARED) -> tuple[Difference, ...]:
    """Every model against the first, where both have figures of the same domains."""
    found = []
    for run in runs[1:]:
        for before, after in zip(runs[0].guides, run.guides, strict=True):
            if [each.domain for each in before.domains] != [each.domain for each in after.domains]:
                continue
            for name in names:
                one, other = before.mean(name), after.mean(name)
                if one is None or other is None:
                    continue
                value = other.value - one.value
                pairs = zip(one.replicates, other.replicates, strict=True)
                ends = interval(value, [b - a for a, b in pairs]) if one.replicates else (None, None)
                found.append(Difference(run.run, after.guide, name, value, *ends))
    return tuple(found)


@dataclass(frozen=True)
class SetFigures:
    """Two sets of images, or of two subfolders of the same name. name: of the subfolder, empty for all."""

    name: str
    real: int
    fake: int
    frechet: Figure
    kid: float
    kid_spread: float
    density: Figure
    coverage: Figure

    def to_json(self) -> dict[str, Any]:
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True)
class ExtractorFacts:
    """Which features the distances are of. name: for people. sha256: of the weights. resize: how images reach it."""

    name: str
    sha256: str
    resize: str
    dimension: int


def mean_figure(figures: Sequence[Figure]) -> Figure | None:
    """The mean of figures whose replicates are of the same samples, none without any; a replicate that one of them
    lacks is left to the others."""
    if not figures:
        return None
    replicates = []
    for values in zip(*(figure.replicates for figure in figures), strict=True):
        there = [value for value in values if math.isfinite(value)]
        replicates.append(sum(there) / len(there) if there else math.nan)
    value = sum(figure.value for figure in figures) / len(figures)
    return Figure(value, tuple(replicates), max(figure.highest for figure in figures))


def rounded(value: float | None) -> float | None:
    """To :data:`DIGITS` significant digits."""
    return None if value is None else float(f"{value:.{DIGITS}g}")


def _plain(value: object) -> Any:
    if isinstance(value, Figure):
        return value.to_json()
    return rounded(value) if isinstance(value, float) else value
