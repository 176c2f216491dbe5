"""What ``lanit evaluate`` prints: figures of each domain, models side by side, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.figures import (
    Difference,
    DomainFigures,
    Figure,
    GuideFigures,
    MatchedClusters,
    RunFigures,
    SetFigures,
)
from pipeline.evaluation.folders import FolderEvaluation
from pipeline.evaluation.measures import BY_NAME, MEASURES, OF_SETS, Measure
from pipeline.showing import console

_INTERVALS = ("frechet", "kid")  # there is room for those of two


def show_evaluation(result: Evaluation) -> None:
    """For each guide: one model domain by domain, or several side by side and domain by domain."""
    for guide in result.guides:
        found = [(run, figures) for run in result.runs for figures in run.guides if figures.guide == guide]
        if len(found) == 1:
            _show_domains(*found[0])
        else:
            _show_models(guide, found)
    if result.differences:
        rows = [[each.run, each.guide, BY_NAME[each.name].column, *signed_ends(each)] for each in result.differences]
        title = f"Against {result.runs[0].run}, on the same images"
        console.table(title, ("model", "styles", "mean of", "difference", "95 %"), rows, left=3)
    _show_basis(result)
    for run in result.runs:
        if run.matched is not None:
            _show_matched(run.run, run.matched)
    scores = result.label_scores
    if scores is not None:
        console.say(
            f"labels against the truth of {scores.images:,} images: macro F1 {scores.macro_f1:.3f}, "
            f"micro F1 {scores.micro_f1:.3f}, all labels right on {console.percent(scores.subset_accuracy)}"
        )
    for each in result.published:
        values = ", ".join(f"{'mFID' if name == 'frechet' else name} {value:g}" for name, value in each.figures.items())
        console.say(f"the paper prints {values} for {each.prompt_set}: do not compare, {each.caveat}")


def _show_matched(run: str, matched: MatchedClusters) -> None:
    rows = [[name, cluster or "-"] for name, cluster in matched.pairs.items()]
    console.table(f"{run}: the cluster of each class, one-to-one", ("class", "cluster"), rows, left=2)


def show_folders(result: FolderEvaluation) -> None:
    """All images, then each pair of subfolders."""
    sets = (*result.domains, result.whole)
    shown = [measure for measure in OF_SETS if measure.name in result.whole.values]
    rows = [_set_row(each, shown) for each in sets]
    intervals = tuple(f"{BY_NAME[name].column}, 95 %" for name in _INTERVALS)
    columns = ("images", "real", "compared", *(measure.column for measure in shown), *intervals)
    console.table(f"{result.fake} against {result.real}", columns, rows)
    if result.mean_frechet is not None:
        console.say(f"mean Fréchet distance of {len(result.domains)} subfolders (mFID): {short(result.mean_frechet)}")
    console.say(f"features  {result.extractor.name} ({result.extractor.sha256[:12]}), {result.extractor.resize}")
    _say_whose_cmmd(result.extractor.name, "cmmd" in result.whole.values)


def _set_row(each: SetFigures, shown: Sequence[Measure]) -> list[str]:
    values = [short(each[measure.name].value, measure.decimals) for measure in shown]
    return [each.name or "all", f"{each.real:,}", f"{each.fake:,}", *values,
            *(spread(each[name], BY_NAME[name].decimals) for name in _INTERVALS)]  # fmt: skip


def _show_domains(run: RunFigures, figures: GuideFigures) -> None:
    distances, translations = (_measured(table, [figures]) for table in ("distances", "translations"))
    title = f"{run.run}, {figures.guide} styles"
    rows = [
        [d.domain, f"{d.real:,}", f"{d.translations:,}", *_cells(d, distances), spread(d["frechet"])]
        for d in figures.domains
    ]
    mean = figures.mean("frechet")
    if mean is not None:
        rows.append(["mean (mFID)", "", "", *_cells(figures, distances), spread(mean)])
    columns = ("domain", "real", "made", *(measure.column for measure in distances), "Fréchet, 95 %")
    console.table(f"{title}: real images against translations", columns, rows)
    rows = [[d.domain, *_cells(d, translations)] for d in figures.domains]
    rows.append(["mean", *_cells(figures, translations)])
    console.table(f"{title}: translations", ("domain", *(measure.column for measure in translations)), rows)


def _show_models(guide: str, found: Sequence[tuple[RunFigures, GuideFigures]]) -> None:
    title = f"{guide.capitalize()} styles"
    for table, about in (("distances", "real images against translations"), ("translations", "translations")):
        shown = _measured(table, [figures for _, figures in found])
        rows = [
            [run.run, str(run.size), "-" if run.steps is None else f"{run.steps:,}", *_cells(figures, shown)]
            for run, figures in found
        ]
        names = ("model", "px", "steps", *(measure.column for measure in shown))
        console.table(f"{title}: {about}, means over domains", names, rows)
    domains = dict.fromkeys(domain.domain for _, figures in found for domain in figures.domains)
    by_name = [{domain.domain: domain for domain in figures.domains} for _, figures in found]
    rows = []
    for name in domains:
        each = [figures.get(name) for figures in by_name]
        distances = [None if domain is None else domain["frechet"] for domain in each]
        rows.append([name, *("-" if d is None else f"{short(d.value)} ({spread(d)})" for d in distances)])
    console.table(f"{title}: Fréchet distance, and its 95 % interval", ("domain", *(run.run for run, _ in found)), rows)


def _measured(table: str, guides: Sequence[GuideFigures]) -> list[Measure]:
    """The columns of a table in which any of the models has a figure."""
    columns = (measure for measure in MEASURES if measure.table == table)
    return [measure for measure in columns if any(figures.mean(measure.name) is not None for figures in guides)]


def _cells(of: DomainFigures | GuideFigures, columns: Sequence[Measure]) -> list[str]:
    get = of.mean if isinstance(of, GuideFigures) else of.get
    found = ((get(measure.name), measure.decimals) for measure in columns)
    return [short(None if figure is None else figure.value, decimals) for figure, decimals in found]


def _show_basis(result: Evaluation) -> None:
    options = result.options
    for run, origin in zip(result.runs, result.labels, strict=True):
        console.say(f"mFID      {run.run}: {_means(run, 'frechet')}; real images by {origin}")
        console.say(f"mean KID  {run.run}: {_means(run, 'kid')}")
    facts = result.extractor
    console.say(f"features  {facts.name} ({facts.sha256[:12]}), {facts.resize}; of real images {result.real_features}")
    measured = any(guide.mean("cmmd") is not None for run in result.runs for guide in run.guides)
    _say_whose_cmmd(facts.name, measured)
    console.say(
        f"drawn     {options.sources or result.images:,} sources × {options.styles} styles, seed {options.seed}; "
        f"95 % intervals by {options.bootstrap} bootstrap samples; unrelated images are at a distance of "
        f"{', '.join(dict.fromkeys(short(run.unrelated) for run in result.runs))}"
    )
    if result.lpips:
        console.say(f"LPIPS     not measured: {result.lpips}")
    if result.judge is not None:
        console.say(f"judge     {result.judge}")


def _say_whose_cmmd(extractor: str, measured: bool) -> None:
    """A line where there is a CMMD, and not of the CLIP that published ones are of."""
    if measured and "ViT-L-14-336" not in extractor:
        console.say(
            "CMMD      of this CLIP; published figures are of ViT-L-14-336/openai, and not to be compared with it"
        )


def _means(run: RunFigures, name: str) -> str:
    """A mean over domains with its interval, for each guide."""
    decimals = BY_NAME[name].decimals
    found = [(guide.guide, guide.mean(name)) for guide in run.guides]
    parts = [f"{guide} {short(each.value, decimals)} ({spread(each, decimals)})" for guide, each in found if each]
    return ", ".join(parts) or "none"


def signed(value: float, decimals: int) -> str:
    """A difference: as :func:`short`, with its sign."""
    return f"{round(value, decimals) + 0.0:+.3g}"


def signed_ends(difference: Difference) -> tuple[str, str]:
    """A difference and its interval, or a dash."""
    decimals, low, high = BY_NAME[difference.name].decimals, difference.low, difference.high
    ends = "-" if low is None or high is None else f"{signed(low, decimals)} to {signed(high, decimals)}"
    return signed(difference.value, decimals), ends


def short(value: float | None, decimals: int = 7) -> str:
    """Three significant digits, none of them beyond those decimals that hold, or a dash."""
    if value is None:
        return "-"
    value = round(value, decimals)
    return f"{value:,.0f}" if value == 0 or abs(value) >= 100 else f"{value:#.3g}"


def spread(figure: Figure | None, decimals: int = 7) -> str:
    """The ends of the interval, or a dash."""
    ends = None if figure is None else figure.ends
    return "-" if ends is None else f"{short(ends[0], decimals)} to {short(ends[1], decimals)}"
