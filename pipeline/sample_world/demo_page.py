"""The demo's page: one HTML file with everything in it, made from the demo's results alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from pipeline.inspection.label_statistics import LabelStatistics
from pipeline.sample_world.judge import Scores
from pipeline.showing.line_charts import Chart, line_chart
from pipeline.showing.pages import render_page


@dataclass(frozen=True)
class Sample:
    """A face that carries a domain's label. picture: uint8 (S, S, 3). right: whether the truth agrees."""

    picture: np.ndarray
    right: bool


@dataclass(frozen=True)
class ModelResult:
    """One generator, what it cost, and what it did to the page's sources.

    name: as a heading ("This run, from scratch"). origin: one sentence on where it comes from.
    scores: of the judge, per domain. sources: uint8 (n, size, size, 3), as the generator saw them.
    translations: uint8 (n, domains, size, size, 3), each source with each domain added.
    """

    name: str
    origin: str
    steps: int
    images_seen: int
    size: int
    minutes: float
    device: str
    scores: Scores
    sources: np.ndarray
    translations: np.ndarray

    @property
    def recognised(self) -> float:
        """Mean over domains."""
        return float(self.scores.recognised.mean())

    @property
    def kept(self) -> float:
        """Mean over domains."""
        return float(self.scores.kept.mean())


@dataclass(frozen=True)
class DemoResults:
    """Everything that the page shows.

    domains: in the order of ``labels``, of every model's scores and of the columns of its translations.
    labels: statistics of the label revision, with its scores against the drawn truth.
    source_captions: what each source of the translations shows.
    samples: for each domain, faces drawn at random from those labelled with it.
    models: shown side by side, each under its own heading; never mixed. The first is the one that this run trained.
    """

    domains: tuple[str, ...]
    faces: int
    face_size: int
    labels: LabelStatistics
    samples: Mapping[str, tuple[Sample, ...]]
    charts: tuple[Chart, ...]
    source_captions: tuple[str, ...]
    models: tuple[ModelResult, ...]
    commands: tuple[str, ...]
    seed: int
    machine: str


def large_pairs(results: DemoResults, count: int = 4) -> list[tuple[int, int]]:
    """Rows and columns of the translations that the page begins with, the same for every model: of the first sources,
    each to some attribute that it lacks, by no choice of ours."""
    pairs = []
    for row, caption in enumerate(results.source_captions[:count]):
        lacking = [n for n, domain in enumerate(results.domains) if domain not in caption.split(", ")]
        if lacking:
            pairs.append((row, lacking[(5 * row) % len(lacking)]))
    return pairs


def render(results: DemoResults) -> str:
    """The whole page as HTML; it loads nothing from anywhere and runs no script."""
    charts = [(chart, Markup(line_chart(chart))) for chart in results.charts]
    return render_page("demo.html", {"r": results, "charts": charts, "pairs": large_pairs(results)})
