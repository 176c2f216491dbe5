"""What a person looks at after a run: how much of what was asked came out, and a grid of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.decoding.grids import labelled_grid, write_png
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.limits import ImageError
from pipeline.models.translator import Translator
from pipeline.store.schemas import MARGIN_PREFIX
from pipeline.translating.source_images import SourceImage
from pipeline.translating.translating_steps import Reader


def recognised(table: pa.Table, translator: Translator) -> tuple[int, int]:
    """How many of the labels asked for are seen in the results, and how many were asked for where anything looked."""
    table = table.filter(pc.is_valid(table[MARGIN_PREFIX + translator.domains[0]]))
    if not len(table):
        return 0, 0
    offsets = np.array(translator.bundle.prompt_set.offsets, np.float32)
    margins = np.stack([table[MARGIN_PREFIX + domain].to_numpy() for domain in translator.domains], axis=1)
    wanted = np.zeros(margins.shape, bool)
    for row, targets in enumerate(table["targets"].to_pylist()):
        wanted[row, targets] = True
    return int((wanted & (margins > offsets)).sum()), int(wanted.sum())


def write_grid(path: Path, shown: Sequence[tuple[SourceImage, list[str]]], out: Path, reader: Reader) -> None:
    """The first sources beside their results, which are read again: a resumed run did not see them.

    shown: images and the names of their results below ``out``.
    """
    size, rows = reader.size, []
    for image, outputs in shown:
        source = reader(image)
        try:
            results = [decode_rgb(out / output) for output in outputs]
        except ImageError:  # a film, or gone meanwhile
            continue
        if isinstance(source, str):
            continue
        if any(result.shape[:2] != (size, size) for result in results):  # a strip: its frames
            results = [frame for result in results for frame in np.split(result, result.shape[1] // size, axis=1)]
        rows.append(np.stack([source.pixels, *results]))
    columns = len(rows[0]) if rows else 2
    header = ["source", *(["translation"] if columns == 2 else [f"{number}" for number in range(1, columns)])]
    write_png(path, labelled_grid(rows, header, max(size, 96)))
