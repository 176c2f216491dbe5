"""The page of ``lanit inspect-labels --html``: figures, charts and images in one file, and a script to look closer."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from lanit.errors import listed
from pipeline.inspection import page_data as label_page_data
from pipeline.inspection.charts import Axis, histogram, shown_axis
from pipeline.inspection.columns import Cell, Column, cell, columns_of, share, signed
from pipeline.inspection.warnings import MOST_ALIKE
from pipeline.showing.pages import plural, render_page

if TYPE_CHECKING:
    from pipeline.inspection.clusters import Cluster
    from pipeline.inspection.compare import Comparison
    from pipeline.inspection.inspect_labels import Inspection
    from pipeline.inspection.label_statistics import DomainStatistics, LabelStatistics
    from pipeline.inspection.page_data import FlippedImages, PageData, ShownImage
    from pipeline.inspection.rows import Strip
    from pipeline.inspection.rules_table import RuleOutcome
    from pipeline.inspection.scores import DomainScores, Scores
    from pipeline.progress import Progress
    from pipeline.store.store import Store

_SPARK, _TALL = 28, 72  # heights of the histograms, in units of their drawing


@dataclass(frozen=True)
class Shot:
    """A thumbnail to press. index: of the image on the page; label: its accessible name."""

    index: int
    label: str
    wrong: bool
    missing: str


@dataclass(frozen=True)
class ThumbnailGroup:
    """Thumbnails under one heading. range: their margins, from first to last."""

    key: str
    title: str
    range: str
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Phrase:
    """Everything the page says of one domain. threshold: where labels begin, a CSS length along the histogram."""

    index: int
    statistics: DomainStatistics
    scores: DomainScores | None
    cells: tuple[Cell, ...]
    spark: Markup
    chart: Markup
    chart_label: str
    threshold: str
    groups: tuple[ThumbnailGroup, ...]

    @property
    def name(self) -> str:
        return self.statistics.domain


@dataclass(frozen=True)
class ClusterCard:
    share: str
    closest: str
    margin: str
    group: ThumbnailGroup


@dataclass(frozen=True)
class FlipCard:
    """One domain of a comparison; groups: the images that gained and lost its label."""

    domain: str
    before: int
    after: int
    on: int
    off: int
    groups: tuple[ThumbnailGroup, ...]


def label_page(report: Inspection, store: Store, *, seed: int = 0, progress: Progress | None = None) -> str:
    """The page of a report on ``store``, as HTML. It loads nothing from anywhere: its content security policy says so.

    seed: of the unlabelled images that are drawn and of their groups. progress: of thumbnails.
    """
    data = label_page_data.gather(
        store, report.revision, truth=report.truth, comparison=report.comparison,
        shown=shown_domains(report.statistics), seed=seed, progress=progress,
    )  # fmt: skip
    return render(report, data, store.root.resolve().name)


def shown_domains(statistics: LabelStatistics) -> tuple[int, ...]:
    """Numbers of the domains that get a card: all, or those of the most images where they are many."""
    return statistics.cooccurrence_of or tuple(range(len(statistics.domains)))


def render(report: Inspection, data: PageData, store: str) -> str:
    """A report and its images as HTML. store: what to call it."""
    whole, comparison = report.statistics, report.comparison
    numbers = shown_domains(whole)
    statistics = dataclasses.replace(whole, domains=tuple(whole.domains[n] for n in numbers))
    axis = shown_axis(statistics.histogram_edges, [d.histogram for d in statistics.domains])
    shown = columns_of(whole)
    scores = {} if statistics.scores is None else {d.domain: d for d in statistics.scores.domains}
    phrases = [
        _phrase(n, d, scores.get(d.domain), shown, axis, statistics, data) for n, d in enumerate(statistics.domains)
    ]
    script = _asset("labels.js")
    values = {
        "s": statistics,
        "total": len(whole.domains),
        "others": _others(whole, numbers),
        "data": data,
        "store": store,
        "prompts": report.revision.prompt_set.name,
        "rule": statistics.rule.describe(),
        "warnings": [(text, _named(text, statistics)) for text in statistics.warnings],
        "columns": shown,
        "phrases": phrases,
        "axis": (signed(axis.low), signed(axis.high)),
        "heat": _heat(statistics),
        "clusters": [_cluster(c, data) for c in data.clusters],
        "comparison": comparison,
        "flips": [] if comparison is None else _flips(comparison, data),
        "counts": _label_counts(statistics),
        "alike": [(group, listed(group.prompts[1:], _ALIKE_NAMED)) for group in whole.alike[:MOST_ALIKE]],
        "alike_left_out": max(len(whole.alike) - MOST_ALIKE, 0),
        "outcomes": report.rules,
        "rules": _rules(report, numbers),
        "css": Markup(_asset("labels.css")),
        "json": Markup(page_json(statistics, data)),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "signed": signed,
        "share": share,
    }
    return render_page("labels.html", values)


MOST_OTHERS = 2000
"""Phrases without a card whose figures are on the page all the same, at most."""


@dataclass(frozen=True)
class Others:
    """The phrases without a card. rows: their figures, in order; more: how many phrases found no room for theirs."""

    rows: tuple[DomainStatistics, ...]
    more: int


def _others(statistics: LabelStatistics, shown: Sequence[int]) -> Others:
    left = np.setdiff1d(np.arange(len(statistics.domains)), shown)
    largest = sorted(left.tolist(), key=lambda n: -statistics.domains[n].count)[:MOST_OTHERS]
    return Others(tuple(statistics.domains[n] for n in sorted(largest)), len(left) - len(largest))


def _named(warning: str, statistics: LabelStatistics) -> list[tuple[int, str]]:
    """The domains that a warning quotes."""
    return [(n, d.domain) for n, d in enumerate(statistics.domains) if f"'{d.domain}'" in warning]


def _phrase(
    index: int,
    domain: DomainStatistics,
    scores: DomainScores | None,
    columns: Sequence[Column],
    axis: Axis,
    statistics: LabelStatistics,
    data: PageData,
) -> Phrase:
    edges = statistics.histogram_edges
    spark, chart = (
        Markup(histogram(domain.histogram, edges, axis, domain.offset, height)) for height in (_SPARK, _TALL)
    )
    label = (
        f"Margins of {domain.domain}: 5 % lie below {signed(domain.margin_p5)}, half below "
        f"{signed(domain.margin_p50)}, 95 % below {signed(domain.margin_p95)}."
    )
    return Phrase(
        index=index,
        statistics=domain,
        scores=scores,
        cells=tuple(cell(column, domain, scores) for column in columns),
        spark=spark,
        chart=chart,
        chart_label=label,
        threshold=axis.percent(domain.offset),
        groups=_strip_groups(index, data.strips[index], data, statistics.scores),
    )


def _strip_groups(n: int, strip: Strip, data: PageData, scores: Scores | None) -> tuple[ThumbnailGroup, ...]:
    parts = [
        ("surest", "Surest", strip.surest),
        ("above", "Just above", strip.above),
        ("below", "Just below", strip.below),
        ("least", "Surest not", strip.least),
    ]
    if scores is not None:
        parts += [("wrong", "Labelled, yet untrue", strip.wrong), ("missed", "True, yet missed", strip.missed)]
    return tuple(_group(key, title, rows, data, n) for key, title, rows in parts if rows or key in _ALWAYS_SHOWN)


_ALWAYS_SHOWN = ("surest", "above", "below", "least")


def _group(key: str, title: str, indices: Sequence[int], data: PageData, n: int | None = None) -> ThumbnailGroup:
    """n: the domain whose margin is told."""
    margins = [] if n is None else [data.images[i].margins[n] for i in indices]
    ends = dict.fromkeys(signed(margin) for margin in margins[:1] + margins[-1:])
    return ThumbnailGroup(key, title, " to ".join(ends), tuple(_shot(i, data.images[i], n) for i in indices))


def _shot(index: int, image: ShownImage, n: int | None) -> Shot:
    label, wrong = image.path, False
    if n is not None:
        label += f", margin {signed(image.margins[n])}, {'labelled' if image.active[n] else 'not labelled'}"
        wrong = image.truth[n] is not None and image.truth[n] != image.active[n]
        label += ", against the truth" if wrong else ""
    missing = "" if image.thumbnail is not None else image.path.rsplit("/", 1)[-1]
    if image.has_changed:
        label, missing = f"{label}, changed since it was embedded", f"{missing} (changed)"
    return Shot(index, label, wrong, missing)


def _cluster(cluster: Cluster, data: PageData) -> ClusterCard:
    group = _group("cluster", "", cluster.rows, data)
    return ClusterCard(share(cluster.share), cluster.closest, signed(cluster.margin), group)


def _flips(comparison: Comparison, data: PageData) -> list[FlipCard]:
    """The domains with any flip, most first."""
    shown: dict[str, FlippedImages] = {flips.domain: flips for flips in data.flips}
    cards = []
    for d in comparison.domains:
        if d.domain not in shown:
            continue
        pairs = (("gained", "Gained the label", shown[d.domain].on), ("lost", "Lost the label", shown[d.domain].off))
        groups = tuple(_group(key, title, rows, data) for key, title, rows in pairs if rows)
        cards.append(FlipCard(d.domain, d.count_before, d.count_after, d.on, d.off, groups))
    return sorted((card for card in cards if card.on or card.off), key=lambda card: -(card.on + card.off))


@dataclass(frozen=True)
class HeatCell:
    """both: images with both labels; share: of those with the row's label; none on the diagonal."""

    both: int
    share: float | None


def _heat(statistics: LabelStatistics) -> list[list[HeatCell]]:
    counts = statistics.cooccurrence
    return [
        [HeatCell(both, None if i == j else both / max(row[i], 1)) for j, both in enumerate(row)]
        for i, row in enumerate(counts)
    ]


_MOST_BARS = 20
_ALIKE_NAMED = 12


def _label_counts(statistics: LabelStatistics) -> list[tuple[str, str, int, float, float]]:
    """For each number of labels: it in words, and as a figure; the images that carry so many, their share, and that
    against the largest share. The last stands for all larger numbers where there are many."""
    counts = [(plural(i, "label"), str(i), n) for i, n in enumerate(statistics.label_counts)]
    if len(counts) > _MOST_BARS + 1:
        rest = sum(statistics.label_counts[_MOST_BARS:])
        counts[_MOST_BARS:] = [(f"{_MOST_BARS} labels or more", f"{_MOST_BARS}+", rest)]
    most = max((n for *_, n in counts), default=0) or 1
    return [(words, figure, n, n / max(statistics.images, 1), n / most) for words, figure, n in counts]


def _rules(report: Inspection, shown: Sequence[int]) -> list[tuple[str, list[str]]]:
    """Rules side by side: for each line its name and the text of each rule, with F1 where there is truth."""
    outcomes, images = report.rules, max(report.statistics.images, 1)
    if not outcomes:
        return []

    def text(outcome: RuleOutcome, n: int) -> str:
        f1 = outcome.f1[n] if outcome.f1 is not None else None
        return share(outcome.counts[n] / images) + ("" if f1 is None else f" (F1\N{NO-BREAK SPACE}{f1:.3f})")

    lines = [(report.revision.domains[n], [text(outcome, n) for outcome in outcomes]) for n in shown]
    lines.append(("With a label", [share(outcome.coverage) for outcome in outcomes]))
    lines.append(("Labels per image", [f"{outcome.labels_per_image:.2f}" for outcome in outcomes]))
    if outcomes[0].macro_f1 is not None:
        lines.append(("Macro F1", [f"{outcome.macro_f1:.3f}" for outcome in outcomes]))
    return lines


def page_json(statistics: LabelStatistics, data: PageData) -> str:
    """What the script reads, as JSON that can stand inside a script element.

    Of an image, i: its image_id, p: path, s: which source, z: width, height, bytes; b: f_base, m: margins, l: domains
    it is labelled with, h: those set by a person, t: those it truly has, or null, u: those of unknown truth; g: which
    thumbnail; x: labels of domains that the page leaves out, if there are any.
    """
    sources = list(dict.fromkeys(image.source for image in data.images))
    document = {
        "domains": [d.domain for d in statistics.domains],
        "offsets": [d.offset for d in statistics.domains],
        "epsilon": statistics.epsilon,
        "count": statistics.images,
        "together": statistics.cooccurrence,
        "scored": statistics.scores is not None,
        "sources": sources,
        "images": [_image_json(image, sources.index(image.source)) for image in data.images],
        "thumbnails": [base64.b64encode(thumbnail).decode() for thumbnail in data.thumbnails],
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _image_json(image: ShownImage, source: int) -> dict[str, Any]:
    known = any(truth is not None for truth in image.truth)
    return {
        "i": image.image_id,
        "p": image.path,
        "s": source,
        "z": [image.width, image.height, image.bytes],
        "b": round(image.base, 5),
        "m": [round(margin, 5) for margin in image.margins],
        "l": [n for n, on in enumerate(image.active) if on],
        "h": [n for n, by_hand in enumerate(image.human) if by_hand],
        "t": [n for n, truth in enumerate(image.truth) if truth] if known else None,
        "u": [n for n, truth in enumerate(image.truth) if truth is None] if known else [],
        "g": image.thumbnail,
    } | ({"x": image.more} if image.more else {})


def _asset(name: str) -> str:
    return (files("pipeline") / "assets" / name).read_text(encoding="utf-8")
