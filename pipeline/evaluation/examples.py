"""A few sources and what a model makes of them, for a person to look at beside the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluation.figures import Guide
from pipeline.evaluation.translations import Styles, translate_sources
from pipeline.store.store_images import thumbnail_of

if TYPE_CHECKING:
    from pipeline.evaluation.run_evaluation import RunEvaluation

SHOWN = 6
_SIDE = 128  # pixels of a thumbnail at most


@dataclass(frozen=True)
class Cell:
    """A translation. image: JPEG. carried: whether the source carried the domain already."""

    image: bytes = field(repr=False)
    carried: bool


@dataclass(frozen=True)
class Examples:
    """Translations of a few sources to every domain, under one guide. sources: their JPEG images, and what they are
    labelled with. cells: one for each source and domain."""

    run: str
    guide: Guide
    sources: tuple[tuple[bytes, str], ...]
    cells: tuple[tuple[Cell, ...], ...]


def examples_of(evaluation: RunEvaluation, guide: Guide, count: int = SHOWN) -> Examples:
    """The first ``count`` sources of an evaluation, in their first style."""
    translator = evaluation.translator
    sources = evaluation.sources()
    rows = np.arange(min(count, len(sources)))
    domains = [n for n in range(len(translator.domains)) if evaluation.labels.active[:, n].any() or guide == "latent"]
    columns = {}
    for domain in domains:
        styles = evaluation.styles(guide, domain)
        first = Styles(styles.codes, styles.chosen[:, :1])
        made = translate_sources(translator, sources, rows, domain, first)
        columns[domain] = np.concatenate(list(made))[:, 0]
    own = sources.own.numpy()
    names = np.array(translator.domains)
    return Examples(
        run=evaluation.run,
        guide=guide,
        sources=tuple((thumbnail_of(sources.images[row], _SIDE), ", ".join(names[own[row]])) for row in rows),
        cells=tuple(
            tuple(
                Cell(thumbnail_of(columns.get(n, sources.images)[row], _SIDE), bool(own[row, n]))
                for n in range(len(names))
            )
            for row in rows
        ),
    )
