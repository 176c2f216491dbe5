"""Which images a page of labels shows: chosen in one pass over a revision, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.inspection.scores import keys_of

if TYPE_CHECKING:
    from pipeline.labelling.known_labels import Truth
    from pipeline.store.label_revisions import LabelBlock, RevisionFile

_SPARE = 4  # as many candidates as images wanted: copies of an image are shown once

Rows = tuple[int, ...]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Strip:
    """Rows that show what one domain catches, best example first.

    surest: labelled, of the largest margin; above: labelled, nearest the threshold; below: not labelled, nearest it;
    least: not labelled, of the smallest margin. wrong: labelled against the truth, of the largest margin;
    missed: not labelled against the truth, of the smallest margin. No row is both surest and above, or below and least.
    """

    surest: Rows
    above: Rows
    below: Rows
    least: Rows
    wrong: Rows = ()
    missed: Rows = ()

    def rows(self) -> Rows:
        """All of them, with repetitions."""
        return self.surest + self.above + self.below + self.least + self.wrong + self.missed


@dataclass(frozen=True)
class ChosenRows:
    """strips: one for each domain. unlabelled: a random sample of the rows without any label, rising, int64.
    unlabelled_count: how many there are."""

    strips: tuple[Strip, ...]
    unlabelled: Ints
    unlabelled_count: int


class KnownRows:
    """What is truly known of the rows of a revision."""

    def __init__(self, revision: RevisionFile, truth: Truth) -> None:
        self._truth, self._domains = truth, revision.domains
        self._places = truth.align(*keys_of(revision))

    def of(self, rows: Sequence[int] | slice) -> np.ndarray:
        """1 where an image truly has a domain, 0 where it has not, -1 where nobody knows: int8 (len(rows)×N)."""
        return self._truth.values(self._places[rows], self._domains)


class _Lowest:
    """The ``count`` rows of the lowest keys among all offered; of equal keys the lower row. Rows come rising."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.keys = np.empty(0, np.float64)
        self.rows = np.empty(0, np.int64)

    def offer(self, keys: np.ndarray, among: np.ndarray, start: int) -> None:
        """keys: (b), of rows ``start`` and on; among: bool (b), which of them count."""
        if len(self.rows) == self.count:
            among = among & (keys < self.keys[-1])
        found = np.flatnonzero(among)
        if not len(found):
            return
        new = keys[found].astype(np.float64)
        if len(found) > self.count:
            kept = new <= np.partition(new, self.count - 1)[self.count - 1]
            found, new = found[kept], new[kept]
        keys, rows = np.append(self.keys, new), np.append(self.rows, found + start)
        order = np.lexsort((rows, keys))[: self.count]
        self.keys, self.rows = keys[order], rows[order]


@dataclass
class _Candidates:
    """The rows of one domain that may be shown, and how many it labels so far."""

    spare: int
    on: int = 0
    off: int = 0
    lowest: dict[str, _Lowest] = field(default_factory=dict)

    def offer(self, name: str, keys: np.ndarray, among: np.ndarray, start: int) -> None:
        self.lowest.setdefault(name, _Lowest(self.spare)).offer(keys, among, start)

    def rows(self, name: str) -> Rows:
        return tuple(self.lowest[name].rows.tolist()) if name in self.lowest else ()


def choose_rows(
    revision: RevisionFile,
    each: int,
    sample: int,
    seed: int,
    known: KnownRows | None = None,
    shown: Sequence[int] | None = None,
) -> ChosenRows:
    """Choose at most ``each`` rows for each part of each domain's strip, and at most ``sample`` rows without a label.

    shown: the domains that get a strip; none for all. The result depends on these, the labels, the margins and ``seed``
    alone, not on how the revision is cut into blocks.
    """
    domains = {n: _Candidates(_SPARE * each) for n in (range(len(revision.domains)) if shown is None else shown)}
    unlabelled, count = _Lowest(sample), 0
    rng = np.random.default_rng(seed)
    for block in revision.blocks(active=True, margin=True):
        truth = None if known is None else known.of(slice(block.start, block.start + block.rows))
        for n, candidates in domains.items():
            _offer(candidates, block, n, revision.prompt_set.offsets[n], None if truth is None else truth[:, n])
        none = np.logical_not(block.active.any(axis=1))
        keys = np.empty(len(none))
        keys[none] = rng.random(int(none.sum()))
        unlabelled.offer(keys, none, block.start)
        count += int(none.sum())
    same = _same_content(revision, sorted({row for candidates in domains.values() for row in _all_rows(candidates)}))
    strips = tuple(_strip(candidates, each, same) for candidates in domains.values())
    return ChosenRows(strips, np.sort(unlabelled.rows), count)


def _offer(candidates: _Candidates, block: LabelBlock, n: int, offset: float, truth: np.ndarray | None) -> None:
    """truth: int8 (b), see :meth:`KnownRows.of`."""
    margin, on = block.margin[:, n], block.active[:, n]
    nearness, start = np.abs(margin - np.float32(offset)), block.start
    candidates.on += int(on.sum())
    candidates.off += int(len(on) - on.sum())
    for name, keys, among in (
        ("surest", -margin, on),
        ("above", nearness, on),
        ("below", nearness, ~on),
        ("least", margin, ~on),
    ):
        candidates.offer(name, keys, among, start)
    if truth is not None:
        candidates.offer("wrong", -margin, on & (truth == 0), start)
        candidates.offer("missed", margin, ~on & (truth == 1), start)


def _all_rows(candidates: _Candidates) -> set[int]:
    return {row for name in candidates.lowest for row in candidates.rows(name)}


def _same_content(revision: RevisionFile, rows: Sequence[int]) -> dict[int, int]:
    """For each of ``rows`` the first of them that has exactly its similarities: a copy, as far as CLIP can see."""
    if not rows:
        return {}
    block = revision.take(rows)
    margin, base = np.ascontiguousarray(block.margin), block.similarity_base
    first: dict[bytes, int] = {}
    keys = (margin[i].tobytes() + base[i].tobytes() for i in range(len(rows)))
    return {row: first.setdefault(key, row) for row, key in zip(rows, keys, strict=True)}


def _strip(candidates: _Candidates, each: int, same: dict[int, int]) -> Strip:
    on, off = min(each, -(-candidates.on // 2)), min(each, -(-candidates.off // 2))  # few are shared between two parts
    surest = _pick(candidates.rows("surest"), on, same)
    least = _pick(candidates.rows("least"), off, same)
    return Strip(
        surest=surest,
        above=_pick(candidates.rows("above"), each, same, surest),
        below=_pick(candidates.rows("below"), each, same, least),
        least=least,
        wrong=_pick(candidates.rows("wrong"), each, same),
        missed=_pick(candidates.rows("missed"), each, same),
    )


def _pick(rows: Rows, count: int, same: dict[int, int], other: Rows = ()) -> Rows:
    seen = {same[row] for row in other}
    picked: list[int] = []
    for row in rows:
        if len(picked) < count and same[row] not in seen:
            seen.add(same[row])
            picked.append(row)
    return tuple(picked)
