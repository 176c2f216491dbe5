"""What ``lanit evaluate`` prints first: three lines on a model, or on two folders."""

from __future__ import annotations

from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.figures import GuideFigures, MatchedClusters, RunFigures
from pipeline.evaluation.folders import FolderEvaluation
from pipeline.evaluation.measures import BY_NAME
from pipeline.evaluation.table import short, show_evaluation, show_folders, spread
from pipeline.showing import console

_MORE = "--all prints the tables, --html PAGE writes them beside examples"


def show_result(result: Evaluation, *, tables: bool) -> None:
    """Of each model and guide: what is recognised and kept, and how far it is from real images. tables: all of it."""
    for run in result.runs:
        for figures in run.guides:
            about = f"{run.run}, {figures.guide} styles"
            console.say(f"{about}: {_seen(figures, run.reader)}")
            console.say(f"{' ' * len(about)}  {_distances(run, figures)}")
        if run.matched is not None:
            console.say(f"{run.run}: {matched_line(run.matched)}")
    what = f"{result.options.sources or result.images:,} sources × {result.options.styles} styles of {result.store}"
    console.say(what if tables else f"{what}; {_MORE}")
    if tables:
        show_evaluation(result)


def show_folder_result(result: FolderEvaluation, *, tables: bool) -> None:
    """How far one folder is from the other, as a whole."""
    whole = result.whole
    console.say(f"{result.fake} against {result.real}: {whole.fake:,} images against {whole.real:,}")
    for name in ("frechet", "kid"):
        measure = BY_NAME[name]
        console.say(f"{measure.title} {short(whole[name].value, measure.decimals)} "
                    f"({spread(whole[name], measure.decimals)})")  # fmt: skip
    if tables:
        show_folders(result)
    elif result.domains:
        console.say(f"{len(result.domains)} subfolders of the same name are compared too: {_MORE}")


def matched_line(matched: MatchedClusters) -> str:
    """How near clusters are to the true classes."""
    return (
        f"clusters against the true classes of {matched.images:,} images: adjusted mutual information "
        f"{matched.mutual_information:.3f}, {console.percent(matched.accuracy)} right by the best matching one-to-one"
    )


def _seen(figures: GuideFigures, reader: str) -> str:
    """What is recognised, the domain in which that is least, what is kept, and what removing leaves, in the eyes of the
    judge if any, else of what taught the generator."""
    judged = figures.mean("judge_accuracy") is not None
    accuracy, kept, left = (f"{'judge_' if judged else ''}{name}" for name in ("accuracy", "kept", "left_over"))
    mean, others, over = figures.mean(accuracy), figures.mean(kept), figures.mean(left)
    found = [(figure.value, domain.domain) for domain in figures.domains if (figure := domain.get(accuracy))]
    if mean is None or not found:
        return "no domain could be measured"
    least, where = min(found)
    eyes = "the judge" if judged else f"{reader}, which taught it"
    text = f"recognised in {console.percent(mean.value)} (least: {where}, {console.percent(least)})"
    text += "" if others is None else f", others kept in {console.percent(others.value)}"
    return f"{text}{'' if over is None else f', left over once removed in {console.percent(over.value)}'}, by {eyes}"


def _distances(run: RunFigures, figures: GuideFigures) -> str:
    mean, before, identity = (figures.mean(name) for name in ("frechet", "frechet_before", "identity"))
    if mean is None:
        return "no distance could be measured"
    text = f"mFID {short(mean.value)} ({spread(mean)})"
    if before is not None:
        text += f", where doing nothing scores {short(before.value)}"
    if identity is not None:
        text += f"; {short(identity.value)} from the source, where two sources are {short(run.unrelated)} apart"
    return text
