"""Translations in the styles of images of each true class: figures of clusters, which have no name to ask for.

References decide: what is made in the style of an image of a class is compared with the images of that class, as
TUNIT's authors do. Which cluster is which class, the best matching one-to-one says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lanit.inference import Target, target_style
from pipeline.decoding.grids import to_float
from pipeline.evaluation.figures import DomainFigures, Guide, GuideFigures, MatchedClusters, RunFigures
from pipeline.evaluation.measuring import Made, Seen, measure
from pipeline.evaluation.run_evaluation import REFERENCES, RunEvaluation, Ticker
from pipeline.evaluation.sample import batches, draw, generator_of, read_rows
from pipeline.evaluation.translations import Styles, translate_to
from pipeline.evaluation.true_classes import TrueClasses
from pipeline.models.translator import Translator

if TYPE_CHECKING:
    from pipeline.progress import Progress

_GUIDE: Guide = "class"


def with_classes(evaluation: RunEvaluation, run: RunFigures, progress: Progress | None = None) -> RunFigures:
    """``run`` with figures by true class too, and with the matching where its domains are clusters. What was measured
    before is read."""
    classes, labels = evaluation.with_.classes, evaluation.labels
    assert classes is not None, "asked where truth was given"
    matching = classes.matched(labels.active) if labels.of_clusters else None
    if matching is None:
        columns = [run.domains.index(name) if name in run.domains else -1 for name in classes.names]
    else:
        columns = [int(cluster) for cluster in matching.cluster_of]
    values = classes.values[evaluation.rows]
    reasons = [_reason_to_skip(evaluation, classes, number) for number in range(len(classes.names))]
    todo = [number for number, reason in enumerate(reasons) if not reason]
    counts = [int((values[:, number] == 0).sum()) * evaluation.options.styles for number in todo]
    ticker, found = Ticker(progress, sum(counts)), []
    for number, count in zip(todo, counts, strict=True):
        name = classes.names[number]
        detail, known = f"{run.run}: class {name}", evaluation.finished.get(_GUIDE, name)
        if known is None:
            known = _measure(evaluation, classes, number, columns[number], partial(ticker, detail=detail))
            if matching is None and columns[number] < 0:  # the model has no word for it
                known = replace(known, values={n: v for n, v in known.values.items() if not n.startswith("accuracy")})
            evaluation.finished.add(_GUIDE, known)
        else:
            ticker(count, detail)
        found.append(known)
    skipped = {classes.names[number]: reason for number, reason in enumerate(reasons) if reason}
    guides = (*run.guides, GuideFigures(_GUIDE, tuple(found), skipped))
    matched = None if matching is None else MatchedClusters.of(matching, classes.names, run.domains)
    return replace(run, guides=guides, matched=matched)


def _reason_to_skip(evaluation: RunEvaluation, classes: TrueClasses, number: int) -> str:
    carriers, least = len(classes.carriers(number)), evaluation.options.neighbours + 1
    if carriers < least:
        return f"only {carriers} real images are of it, and {least} are needed"
    lacking = int((classes.values[evaluation.rows, number] == 0).sum())
    if lacking * evaluation.options.styles < 2:
        return f"{lacking} of {len(evaluation.rows)} sources are known not to be of it"
    return ""


def _measure(
    evaluation: RunEvaluation, classes: TrueClasses, number: int, column: int, tick: Callable[[int], None]
) -> DomainFigures:
    """column: of the domains that the model sees, the one that is the class; −1 for none, which is never seen."""
    options, translator, name = evaluation.options, evaluation.translator, classes.names[number]
    lacking = np.flatnonzero(classes.values[evaluation.rows, number] == 0)
    references = draw(classes.carriers(number), REFERENCES, options.seed, f"references of the class {name}")
    pictures = read_rows(evaluation.store, references, evaluation.size)
    own = torch.from_numpy(evaluation.labels.active[references])
    styles = class_styles(translator, pictures, own, len(evaluation.rows), options.styles, options.seed, name)
    anything = torch.ones(len(lacking), own.shape[1])  # all codes of such a style are one
    blocks = translate_to(translator, evaluation.sources(), lacking, Target(anything, None), styles)
    nothing = torch.zeros(len(lacking), 1).bool()
    made = evaluation.observe(blocks, lacking, styles.count, nothing, tick)
    real = evaluation.real_side(classes.carriers(number), name)
    return measure(real, _of_column(made, number, column), None, evaluation.counts()[:, lacking], 0, options)


def _of_column(made: Made, number: int, column: int) -> Made:
    """What was seen of one class: by the model in ``column``, by the judge, which knows classes, in ``number``."""
    seen, known = _alone(made.seen, column), made.judged
    return replace(made, seen=seen, judged=None if known is None else _alone(known, number))


def _alone(seen: Seen, column: int) -> Seen:
    if column < 0:
        before, after = torch.zeros_like(seen.before[..., :1]), torch.zeros_like(seen.after[..., :1])
        return Seen(before, after, torch.ones(1).bool())
    part = slice(column, column + 1)
    return Seen(seen.before[..., part], seen.after[..., part], seen.known[part])


@torch.no_grad()
def class_styles(
    translator: Translator, references: np.ndarray, own: Tensor, sources: int, styles: int, seed: int, name: str
) -> Styles:
    """K references for each source, of images of a class, uint8 (P×S×S×3); each style is that of the whole image.

    own: bool (P×N), the labels of the references, by which their codes are mixed.
    """
    encode, parts = translator.networks.own_codes, list(batches(len(references)))
    codes = torch.cat([encode(to_float(references[part]).to(translator.device)) for part in parts]).cpu()
    whole = target_style(codes, own.float())
    chosen = generator_of(seed, f"references of the class {name}").integers(0, len(references), (sources, styles))
    return Styles(whole[:, None].expand(-1, codes.shape[1], -1), torch.from_numpy(chosen))
