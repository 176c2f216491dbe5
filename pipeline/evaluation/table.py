"""What ``lanit evaluate`` prints: figures of each domain, models side by side, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import console
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.figures import DomainFigures, Figure, GuideFigures, RunFigures, SetFigures
from pipeline.evaluation.folders import FolderEvaluation

_Columns = tuple[tuple[str, str], ...]
_DISTANCES: _Columns = (
    ("Fréchet", "frechet"), ("before", "frechet_before"), ("KID", "kid"), ("density", "density"),
    ("coverage", "coverage"),
)  # fmt: skip
_TRANSLATIONS: _Columns = (
    ("accuracy", "accuracy"), ("before", "accuracy_before"), ("kept", "kept"), ("judged", "judge_accuracy"),
    ("judged kept", "judge_kept"), ("identity", "identity"), ("diversity", "diversity"), ("LPIPS", "lpips"),
)  # fmt: skip
TITLES = {name: title for title, name in (*_DISTANCES, *_TRANSLATIONS) if title != "before"}
"""Names of figures for people."""


def show_evaluation(result: Evaluation) -> None:
    """For each guide: one model domain by domain, or several side by side and domain by domain."""
    for guide in result.options.guides:
        found = [(run, figures) for run in result.runs for figures in run.guides if figures.guide == guide]
        if len(found) == 1:
            _show_domains(*found[0])
        else:
            _show_models(guide, found)
    if result.differences:
        rows = [
            [each.run, each.guide, TITLES[each.name], f"{each.value:+.3g}",
             "-" if each.low is None or each.high is None else f"{each.low:+.3g} to {each.high:+.3g}"]
            for each in result.differences
        ]  # fmt: skip
        title = f"Against {result.runs[0].run}, on the same images"
        console.table(title, ("model", "styles", "mean of", "difference", "95 %"), rows, left=3)
    _show_basis(result)
    scores = result.label_scores
    if scores is not None:
        console.say(
            f"labels against the truth of {scores.images:,} images: macro F1 {scores.macro_f1:.3f}, "
            f"micro F1 {scores.micro_f1:.3f}, all labels right on {console.percent(scores.subset_accuracy)}"
        )
    for each in result.published:
        values = ", ".join(f"{'mFID' if name == 'frechet' else name} {value:g}" for name, value in each.figures.items())
        console.say(f"the paper prints {values} for {each.prompt_set}: do not compare, {each.caveat}")


def show_folders(result: FolderEvaluation) -> None:
    """All images, then each pair of subfolders."""
    sets = (*result.domains, result.whole)
    rows = [_set_row(each) for each in sets]
    columns = ("images", "real", "compared", "Fréchet", "95 %", "KID", "density", "coverage")
    console.table(f"{result.fake} against {result.real}", columns, rows)
    if result.mean_frechet is not None:
        console.say(f"mean Fréchet distance of {len(result.domains)} subfolders (mFID): {short(result.mean_frechet)}")
    console.say(f"features  {result.extractor.name} ({result.extractor.sha256[:12]}), {result.extractor.resize}")


def _set_row(each: SetFigures) -> list[str]:
    return [
        each.name or "all",
        f"{each.real:,}",
        f"{each.fake:,}",
        short(each.frechet.value),
        spread(each.frechet),
        short(each.kid),
        short(each.density.value),
        short(each.coverage.value),
    ]


def _show_domains(run: RunFigures, figures: GuideFigures) -> None:
    distances, translations = (_measured(columns, [figures]) for columns in (_DISTANCES, _TRANSLATIONS))
    title = f"{run.run}, {figures.guide} styles"
    rows = [
        [d.domain, f"{d.real:,}", f"{d.translations:,}", *_cells(d, distances), spread(d.frechet)]
        for d in figures.domains
    ]
    mean = figures.mean("frechet")
    if mean is not None:
        rows.append(["mean (mFID)", "", "", *_cells(figures, distances), spread(mean)])
    columns = ("domain", "real", "made", *(name for name, _ in distances), "Fréchet, 95 %")
    console.table(f"{title}: real images against translations", columns, rows)
    rows = [[d.domain, *_cells(d, translations)] for d in figures.domains]
    rows.append(["mean", *_cells(figures, translations)])
    console.table(f"{title}: translations", ("domain", *(name for name, _ in translations)), rows)


def _show_models(guide: str, found: Sequence[tuple[RunFigures, GuideFigures]]) -> None:
    title = f"{guide.capitalize()} styles"
    for columns, about in ((_DISTANCES, "real images against translations"), (_TRANSLATIONS, "translations")):
        shown = _measured(columns, [figures for _, figures in found])
        rows = [
            [run.run, str(run.size), "-" if run.steps is None else f"{run.steps:,}", *_cells(figures, shown)]
            for run, figures in found
        ]
        names = ("model", "px", "steps", *(name for name, _ in shown))
        console.table(f"{title}: {about}, means over domains", names, rows)
    domains = dict.fromkeys(domain.domain for _, figures in found for domain in figures.domains)
    by_name = [{domain.domain: domain for domain in figures.domains} for _, figures in found]
    rows = []
    for name in domains:
        each = [figures.get(name) for figures in by_name]
        rows.append([name, *("-" if d is None else f"{short(d.frechet.value)} ({spread(d.frechet)})" for d in each)])
    console.table(f"{title}: Fréchet distance, and its 95 % interval", ("domain", *(run.run for run, _ in found)), rows)


def _measured(columns: _Columns, guides: Sequence[GuideFigures]) -> _Columns:
    """Those columns in which any of the models has a figure."""
    return tuple(column for column in columns if any(figures.mean(column[1]) is not None for figures in guides))


def _cells(of: DomainFigures | GuideFigures, columns: _Columns) -> list[str]:
    values = [of.mean(name) if isinstance(of, GuideFigures) else getattr(of, name) for _, name in columns]
    return [short(value.value if isinstance(value, Figure) else value) for value in values]


def _show_basis(result: Evaluation) -> None:
    options = result.options
    for run, origin in zip(result.runs, result.labels, strict=True):
        parts = []
        for guide in run.guides:
            figure = guide.mean("frechet")
            if figure is not None:
                parts.append(f"{guide.guide} {short(figure.value)} ({spread(figure)})")
        console.say(f"mFID      {run.run}: {', '.join(parts) or 'none'}; real images by {origin}")
    facts = result.extractor
    console.say(f"features  {facts.name} ({facts.sha256[:12]}), {facts.resize}; of real images {result.real_features}")
    console.say(
        f"drawn     {options.sources or result.images:,} sources × {options.styles} styles, seed {options.seed}; "
        f"95 % intervals by {options.bootstrap} bootstrap samples; unrelated images are at a distance of "
        f"{', '.join(dict.fromkeys(short(run.unrelated) for run in result.runs))}"
    )
    if result.lpips:
        console.say(f"LPIPS     not measured: {result.lpips}")
    if result.judge is not None:
        console.say(f"judge     {result.judge}")


def short(value: float | None) -> str:
    """Three significant digits, or a dash."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == 0 or abs(value) >= 100 else f"{value:#.3g}"


def spread(figure: Figure) -> str:
    """The ends of the interval, or a dash."""
    ends = figure.ends
    return "-" if ends is None else f"{short(ends[0])} to {short(ends[1])}"
