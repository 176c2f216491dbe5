"""Two label revisions side by side: which labels flipped, and on which images."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.files import atomic_path
from pipeline.inspection.scores import keys_of
from pipeline.store.label_revisions import RevisionFile

if TYPE_CHECKING:
    from pipeline.store.label_revisions import LabelBlock, Labels

EXAMPLES = 12
"""Flipped images listed for each domain and direction."""


@dataclass(frozen=True)
class FlippedImage:
    """An image whose label flipped. row: in the later revision."""

    image_id: str
    path: str
    row: int
    margin_before: float
    margin_after: float


@dataclass(frozen=True)
class DomainFlips:
    """One domain in both revisions. on, off: images whose label was switched on, or off; share: of the images in both.

    turned_on, turned_off: some of these images, the largest change of margin first.
    """

    domain: str
    count_before: int
    count_after: int
    on: int
    off: int
    share: float
    turned_on: tuple[FlippedImage, ...]
    turned_off: tuple[FlippedImage, ...]


@dataclass(frozen=True)
class Comparison:
    """Revision ``after`` against ``before``; 0 stands for labels that were not written.

    images: in both; only_before, only_after: in one. domains: in both; added, removed: in one.
    coverage_before, coverage_after: share of each revision's own images with a label.
    """

    before: int
    after: int
    images: int
    only_before: int
    only_after: int
    domains: tuple[DomainFlips, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    coverage_before: float
    coverage_after: float

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def compare_labels(before: Labels, after: Labels, examples: int = EXAMPLES) -> Comparison:
    """Count the labels that flipped from ``before`` to ``after``, image by image, domain by domain.

    Images are joined by image_id, domains by their phrase in any case; where the two have none in common, nothing
    flipped. Holds ``before`` in memory, 5 bytes for each label.
    """
    join = _Join(before, after)
    flips = [_Flips(examples) for _ in join.domains]
    labelled = 0
    for block, rows in join.blocks():
        labelled += int(block.active.any(axis=1).sum())
        for (old, new), flip in zip(join.domains, flips, strict=True):
            flip.add(join.flipped(block, rows, old, new), int(block.active[:, new].sum()))
    common_before, common_after = ({pair[side] for pair in join.domains} for side in (0, 1))
    return Comparison(
        before=before.number,
        after=after.number,
        images=join.images,
        only_before=before.rows - join.images,
        only_after=after.rows - join.images,
        domains=tuple(
            flip.result(after.domains[new], int(join.before.active[:, old].sum()), join.images)
            for (old, new), flip in zip(join.domains, flips, strict=True)
        ),
        added=tuple(name for n, name in enumerate(after.domains) if n not in common_after),
        removed=tuple(name for n, name in enumerate(before.domains) if n not in common_before),
        coverage_before=float(join.before.active.any(axis=1).mean()),
        coverage_after=labelled / after.rows,
    )


def write_flips(before: Labels, after: Labels, path: Path) -> None:
    """One CSV row for each label that flipped: domain, label (1 where it was switched on), the image, its margins."""
    join = _Join(before, after)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["domain", "label", "image_id", "path", "margin_before", "margin_after"])
        for block, rows in join.blocks():
            for old, new in join.domains:
                found = join.flipped(block, rows, old, new)
                for place, on in enumerate(found.on):
                    image = found.image(place)
                    margins = (f"{image.margin_before:.6f}", f"{image.margin_after:.6f}")
                    writer.writerow([after.domains[new], int(on), image.image_id, image.path, *margins])


class _Join:
    """Two revisions, joined. before: in memory. domains: columns before and after of each phrase in both.

    images: how many are in both.
    """

    def __init__(self, before: Labels, after: Labels) -> None:
        column_of = {name.casefold(): n for n, name in enumerate(before.domains)}
        columns = [(column_of.get(name.casefold()), n) for n, name in enumerate(after.domains)]
        self.domains = [(old, new) for old, new in columns if old is not None]
        self.before = before.read() if isinstance(before, RevisionFile) else before
        self.after = after
        known, ids = pa.array(self.before.image_ids, pa.string()), keys_of(after)[0]
        if ids.equals(pa.chunked_array([known])):  # as long as the images are the same
            self._rows = np.arange(after.rows)
        else:
            self._rows = pc.fill_null(pc.index_in(ids, value_set=known), -1).to_numpy().astype(np.int64)
        self.images = int((self._rows >= 0).sum())

    def blocks(self) -> Iterator[tuple[LabelBlock, np.ndarray]]:
        """The blocks of ``after``, and the rows of their images in ``before``, int64 (b), −1 where they have none."""
        for block in self.after.blocks(active=True, margin=True, keys=True):
            yield block, self._rows[block.start : block.start + block.rows]

    def flipped(self, block: LabelBlock, rows: np.ndarray, old: int, new: int) -> _Flipped:
        """The images of a block whose label in a domain is another than before."""
        has = np.flatnonzero(rows >= 0)
        places = has[block.active[has, new] != self.before.active[rows[has], old]]
        before = self.before.margin[rows[places], old]
        return _Flipped(block, places, block.active[places, new], before, block.margin[places, new])


@dataclass(frozen=True)
class _Flipped:
    """Flips of one domain in one block. places: rows of the block, int64 (f). on, before, after: of each, (f)."""

    block: LabelBlock
    places: np.ndarray
    on: np.ndarray
    before: np.ndarray
    after: np.ndarray

    def image(self, flip: int) -> FlippedImage:
        place = int(self.places[flip])
        return FlippedImage(
            self.block.image_ids[place].as_py(),
            self.block.paths[place].as_py(),
            self.block.start + place,
            float(self.before[flip]),
            float(self.after[flip]),
        )


@dataclass
class _Flips:
    """Counts for one domain, and the flips of the largest change of margin so far, for each direction."""

    examples: int
    count_after: int = 0
    counts: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    best: dict[bool, list[FlippedImage]] = field(default_factory=lambda: {True: [], False: []})

    def add(self, found: _Flipped, count_after: int) -> None:
        self.count_after += count_after
        change = np.abs(found.after - found.before)
        for on in (True, False):
            chosen = np.flatnonzero(found.on == on)
            self.counts[on] += len(chosen)
            largest = chosen[np.argsort(-change[chosen], kind="stable")[: self.examples]]
            images = [*self.best[on], *(found.image(int(flip)) for flip in largest)]
            images.sort(key=lambda image: -abs(image.margin_after - image.margin_before))
            self.best[on] = images[: self.examples]

    def result(self, domain: str, count_before: int, images: int) -> DomainFlips:
        on, off = self.counts[True], self.counts[False]
        share = (on + off) / max(images, 1)
        return DomainFlips(
            domain, count_before, self.count_after, on, off, share, tuple(self.best[True]), tuple(self.best[False])
        )
