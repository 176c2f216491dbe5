"""The demo's page: one HTML file with everything in it, made from the demo's results alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from pipeline.charts import Chart, line_chart
from pipeline.inspect_labels import LabelStatistics
from pipeline.sample_world.judge import Scores


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


def data_uri(picture: np.ndarray) -> str:
    """A uint8 RGB array (H, W, 3) as the address of a PNG picture within the page."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def whole(value: float) -> str:
    """A count with a narrow space between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def score(value: float) -> str:
    return f"{value:.3f}"


def percent(value: float) -> str:
    return f"{100 * value:.0f}\u202f%"


def plural(count: float, noun: str) -> str:
    return f"{count:g} {noun}" if count == 1 else f"{count:g} {noun}s"


def render(results: DemoResults) -> str:
    """The whole page as HTML; it loads nothing from anywhere and runs no script."""
    assets = files("pipeline") / "assets"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(data_uri=data_uri, whole=whole, score=score, percent=percent, plural=plural)
    template = environment.from_string((assets / "demo.html").read_text(encoding="utf-8"))
    return template.render(
        r=results,
        style=Markup((assets / "page.css").read_text(encoding="utf-8")),
        charts=[(chart, Markup(line_chart(chart))) for chart in results.charts],
    )
