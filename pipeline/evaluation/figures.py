"""What an evaluation says: figures with their intervals, of a domain, of a run, of two folders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lanit.matching import Matching
from lanit.metrics import interval
from pipeline.evaluation.measures import BY_NAME, COMPARED, MEASURES, OF_SETS, Measure

PROTOCOL = 3
"""Raised whenever the same models and images would get other figures: results of two protocols are not comparable."""

FEW_IMAGES = 2048
"""Below so many images a side, a Fréchet distance says as much about their number as about them."""

Guide = Literal["latent", "reference", "class"]
"""Where styles come from: random codes, images of the domain, or images of a true class, which stands for a domain."""

DIGITS = 3
"""Significant, in JSON: what holds on another machine or with another number of threads. See also Measure.decimals."""


@dataclass(frozen=True)
class Figure:
    """A value, where a bootstrap puts it, and the bootstrap's own values, as many as were asked for (0: none).

    A replicate is nan where its sample had no image of the kind. Equal numbers of two figures are of the same sample.
    lowest, highest: what it can be.
    """

    value: float
    replicates: tuple[float, ...] = ()
    highest: float = math.inf
    lowest: float = 0.0

    @property
    def ends(self) -> tuple[float, float] | None:
        """The 95 % interval, or none without replicates."""
        if not self.replicates:
            return None
        low, high = interval(self.value, self.replicates)
        return max(low, self.lowest), min(high, self.highest)

    def to_json(self, decimals: int) -> dict[str, float | None]:
        low, high = self.ends or (None, None)
        values = {"value": self.value, "low": low, "high": high}
        return {name: rounded(value, decimals) for name, value in values.items()}


@dataclass(frozen=True)
class Repeats:
    """How far two sets of images repeat themselves or each other, by features that are almost the same.

    real, made: shares of each side's images that have a twin there; translations of one source are not compared with
    each other. across: share of the images made that have a twin among the real ones. different_real, different_made:
    images of each side, twins counted once.
    """

    real: float
    made: float
    across: float
    different_real: int
    different_made: int

    def to_json(self) -> dict[str, float | int | None]:
        return {name: rounded(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class DomainFigures:
    """Translations to one domain under one guide, against the real images that carry it.

    real, sources, translations: images; translations = sources × styles. values: figures by their name in
    :data:`~pipeline.evaluation.measures.MEASURES`; what cannot be measured is not among them.
    """

    domain: str
    real: int
    sources: int
    translations: int
    values: Mapping[str, Figure]
    repeats: Repeats

    def __getitem__(self, name: str) -> Figure:
        return self.values[name]

    def get(self, name: str) -> Figure | None:
        return self.values.get(name)

    def to_json(self) -> dict[str, Any]:
        counts = {"domain": self.domain, "real": self.real, "sources": self.sources, "translations": self.translations}
        return counts | _values(self.values, MEASURES) | {"repeats": self.repeats.to_json()}

    def to_stored(self) -> dict[str, Any]:
        """With the replicates, to go on from."""
        return asdict(self)

    @classmethod
    def from_stored(cls, stored: dict[str, Any]) -> DomainFigures:
        values = {
            name: Figure(**value | {"replicates": tuple(value["replicates"])})
            for name, value in stored["values"].items()
        }
        return cls(**stored | {"values": values, "repeats": Repeats(**stored["repeats"])})


@dataclass(frozen=True)
class GuideFigures:
    """All domains under one guide. skipped: domains without figures, and why."""

    guide: Guide
    domains: tuple[DomainFigures, ...]
    skipped: dict[str, str]

    def mean(self, name: str) -> Figure | None:
        """The mean of a figure over the domains that have it, replicate by replicate; none where none has.

        That of ``frechet`` is mFID.
        """
        found = (domain.get(name) for domain in self.domains)
        return mean_figure([figure for figure in found if figure is not None])

    def to_json(self) -> dict[str, Any]:
        return {
            "mean": {measure.name: _json(self.mean(measure.name), measure) for measure in MEASURES},
            "domains": [domain.to_json() for domain in self.domains],
            "skipped": self.skipped,
        }


@dataclass(frozen=True)
class MatchedClusters:
    """:class:`lanit.matching.Matching`, by names. pairs: of each class its cluster, none where clusters are fewer."""

    images: int
    mutual_information: float
    accuracy: float
    pairs: dict[str, str | None]

    @classmethod
    def of(cls, matching: Matching, classes: tuple[str, ...], clusters: tuple[str, ...]) -> MatchedClusters:
        pairs = {name: clusters[n] if n >= 0 else None for name, n in zip(classes, matching.cluster_of, strict=True)}
        return cls(matching.images, matching.mutual_information, matching.accuracy, pairs)

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "adjusted_mutual_information": rounded(self.mutual_information, 6),
            "accuracy": rounded(self.accuracy, 6),
            "cluster_of": self.pairs,
        }


@dataclass(frozen=True)
class RunFigures:
    """A trained model. run: as it was named. model_sha256: of its weights. size: of its images, pixels. steps: of its
    training. domains: it knows. unrelated: mean cosine distance between two different sources, beside which
    ``identity`` is to be read. matched: its clusters against true classes, where its domains are clusters and truth was
    given. reader: who reads labels in its images unless a judge does."""

    run: str
    model_sha256: str
    size: int
    steps: int | None
    domains: tuple[str, ...]
    unrelated: float
    guides: tuple[GuideFigures, ...]
    matched: MatchedClusters | None = None
    reader: str = "CLIP"

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "model_sha256": self.model_sha256,
            "size": self.size,
            "steps": self.steps,
            "domains": list(self.domains),
            "unrelated": rounded(self.unrelated, BY_NAME["identity"].decimals),
            "guides": {each.guide: each.to_json() for each in self.guides},
            "clusters": None if self.matched is None else self.matched.to_json(),
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
        decimals = BY_NAME[self.name].decimals
        ends = {end: rounded(getattr(self, end), decimals) for end in ("value", "low", "high")}
        return {"run": self.run, "guide": self.guide, "name": self.name} | ends


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
    """Two sets of images, or of two subfolders of the same name. name: of the subfolder, empty for all. values: figures
    by their name in :data:`~pipeline.evaluation.measures.OF_SETS`."""

    name: str
    real: int
    fake: int
    values: Mapping[str, Figure]
    repeats: Repeats

    def __getitem__(self, name: str) -> Figure:
        return self.values[name]

    def get(self, name: str) -> Figure | None:
        return self.values.get(name)

    def to_json(self) -> dict[str, Any]:
        counts = {"name": self.name, "real": self.real, "fake": self.fake}
        return counts | _values(self.values, OF_SETS) | {"repeats": self.repeats.to_json()}


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
    lowest, highest = min(figure.lowest for figure in figures), max(figure.highest for figure in figures)
    return Figure(value, tuple(replicates), highest, lowest)


def rounded(value: float | None, decimals: int) -> float | None:
    """To :data:`DIGITS` significant digits, and no more than ``decimals`` of them after the point."""
    return None if value is None else round(float(f"{value:.{DIGITS}g}"), decimals) + 0.0  # no -0.0


def _values(values: Mapping[str, Figure], measures: Sequence[Measure]) -> dict[str, Any]:
    found = ((measure, values.get(measure.name)) for measure in measures)
    return {
        measure.name: rounded(figure.value, measure.decimals) if figure and measure.before else _json(figure, measure)
        for measure, figure in found
    }


def _json(figure: Figure | None, measure: Measure) -> dict[str, float | None] | None:
    return None if figure is None else figure.to_json(measure.decimals)
