"""The page of ``lanit evaluate --html``: examples to look at, figures with their intervals, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from markupsafe import Markup

from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.figures import Figure, GuideFigures, RunFigures
from pipeline.evaluation.folders import FolderEvaluation
from pipeline.evaluation.measures import BEFORE, BY_NAME, MEASURES, OF_SETS, Measure
from pipeline.evaluation.table import short, signed_ends, spread
from pipeline.showing.pages import render_page

_HUES = 4  # colours of the style sheet; further models repeat them, told apart by their order


@dataclass(frozen=True)
class Mark:
    """A value on a scale. hue: of the model. left, right: ends of its interval, in percent; before: where the sources
    lie. text: for those who read it."""

    hue: int
    at: float
    left: float | None
    right: float | None
    before: float | None
    text: str


@dataclass(frozen=True)
class Plot:
    """One measure: rows of marks, a row a domain, the last the mean. most: the end of the scale."""

    title: str
    better: str
    about: str
    most: str
    rows: tuple[tuple[str, tuple[Mark, ...]], ...]
    has_before: bool


def evaluation_page(result: Evaluation) -> str:
    """Figures and examples of one or several models, as one HTML file."""
    guides = []
    for guide in result.guides:
        found = [(run, each) for run in result.runs for each in run.guides if each.guide == guide and each.domains]
        if found:
            figures = [each for _, each in found]
            hues = [result.runs.index(run) % _HUES for run, _ in found]
            guides.append((guide, _plots(figures, hues), [_table(run, each) for run, each in found]))
    values = {
        "r": result,
        "hues": {run.run: index % _HUES for index, run in enumerate(result.runs)},
        "guides": guides,
        "differences": [(each, BY_NAME[each.name].title, *signed_ends(each)) for each in result.differences],
        "tiles": [_tiles(run) for run in result.runs],
        "css": Markup(_asset("evaluation.css")),
        "short": short,
        "matched": [(run.run, run.matched) for run in result.runs if run.matched is not None],
    }
    return render_page("evaluation.html", values)


def folders_page(result: FolderEvaluation) -> str:
    """Two sets of images, as one HTML file."""
    sets = (*result.domains, result.whole)
    shown = [measure for measure in OF_SETS if measure.name in result.whole.values]
    values = {
        "r": result,
        "columns": [_head(measure) for measure in shown],
        "rows": [(each, [_cell(each[measure.name], measure) for measure in shown]) for each in sets],
        "css": Markup(_asset("evaluation.css")),
        "short": short,
    }
    return render_page("evaluation-folders.html", values)


def _tiles(run: RunFigures) -> list[tuple[str, str, str]]:
    """Guide, mFID and accuracy of a model, for the top of the page."""
    found: list[tuple[str, str, str]] = []
    for each in run.guides:
        distance, accuracy = each.mean("frechet"), each.mean("accuracy")
        if distance is not None and accuracy is not None:
            found.append((each.guide, short(distance.value), short(accuracy.value)))
    return found


def _plots(figures: Sequence[GuideFigures], hues: Sequence[int]) -> list[Plot]:
    plots = []
    for measure in MEASURES:
        if not measure.before and any(each.mean(measure.name) is not None for each in figures):
            plots.append(_plot(measure, figures, hues))
    return plots


def _plot(measure: Measure, figures: Sequence[GuideFigures], hues: Sequence[int]) -> Plot:
    names = list(dict.fromkeys(domain.domain for each in figures for domain in each.domains))
    table = [{domain.domain: domain for domain in each.domains} for each in figures]
    before = BEFORE.get(measure.name, "")
    values = [
        [(domain.get(measure.name), domain.get(before)) if domain else (None, None)
         for domain in (domains.get(name) for domains in table)]
        for name in names
    ]  # fmt: skip
    values.append([(each.mean(measure.name), each.mean(before)) for each in figures])
    ends = [end for row in values for pair in row for figure in pair if figure for end in _ends(figure)]
    most = measure.most or max(ends, default=0.0) or 1.0
    rows = []
    for name, row in zip([*names, "mean"], values, strict=True):
        marks = [_mark(hue, *pair, most, measure) for hue, pair in zip(hues, row, strict=True)]
        rows.append((name, tuple(mark for mark in marks if mark is not None)))
    return Plot(measure.title, measure.better, measure.about, short(most, measure.decimals), tuple(rows), bool(before))


def _ends(figure: Figure) -> tuple[float, ...]:
    return (figure.value, *(figure.ends or ()))


def _mark(hue: int, figure: Figure | None, before: Figure | None, most: float, measure: Measure) -> Mark | None:
    if figure is None:
        return None

    def percent(value: float) -> float:
        return round(100 * min(max(value / most, 0.0), 1.0), 2)

    left, right = figure.ends or (None, None)
    return Mark(
        hue=hue,
        at=percent(figure.value),
        left=None if left is None else percent(left),
        right=None if right is None else percent(right),
        before=None if before is None else percent(before.value),
        text=short(figure.value, measure.decimals),
    )


@dataclass(frozen=True)
class Table:
    """All figures of a model under one guide. rows: domain, counts, cells of (value, interval)."""

    run: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]
    skipped: dict[str, str]


def _table(run: RunFigures, figures: GuideFigures) -> Table:
    columns = [measure for measure in MEASURES if figures.mean(measure.name) is not None]
    rows = [
        (domain.domain, f"{domain.real:,} / {domain.translations:,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
         tuple(_cell(domain.get(measure.name), measure) for measure in columns))
        for domain in figures.domains
    ]  # fmt: skip
    rows.append(("mean", "", tuple(_cell(figures.mean(measure.name), measure) for measure in columns)))
    return Table(run.run, tuple(_head(measure) for measure in columns), tuple(rows), figures.skipped)


def _head(measure: Measure) -> str:
    """The head of its column, where the columns beside it do not tell which figure it is of."""
    name = f"{BY_NAME[measure.before].column} before" if measure.before else measure.column
    return name[0].upper() + name[1:]


def _cell(figure: Figure | None, measure: Measure) -> tuple[str, str]:
    if figure is None:
        return "-", ""
    return short(figure.value, measure.decimals), spread(figure, measure.decimals) if figure.ends else ""


def _asset(name: str) -> str:
    return (files("pipeline") / "assets" / name).read_text(encoding="utf-8")
