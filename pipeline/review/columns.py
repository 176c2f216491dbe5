"""What a revision says of each phrase, a column at a time: few are in memory, whatever the number of phrases."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lanit.labels import decide
from pipeline.review.samples import strata_of
from pipeline.store.label_revisions import RevisionFile

KEPT_BYTES = 256 << 20
_ROW_BYTES = 11  # of a column: a margin and two labels, a stratum, and a place by margin


@dataclass(frozen=True)
class Column:
    """One phrase on n images. margins: float32 (n). labels: bool (n), as the revision shows them; by_clip: bool (n),
    without what people said."""

    margins: np.ndarray
    labels: np.ndarray
    by_clip: np.ndarray

    @cached_property
    def strata(self) -> np.ndarray:
        """int8 (n), see :func:`pipeline.review.samples.strata_of`."""
        return strata_of(self.margins)

    @cached_property
    def falling(self) -> np.ndarray:
        """Rows by margin, the largest first, equal ones in their order, int32 (n)."""
        return np.argsort(-self.margins, kind="stable").astype(np.int32)


class Columns:
    """The columns of ``revision``, the ones used last within ``most_bytes``. Safe in threads."""

    def __init__(self, revision: RevisionFile, most_bytes: int = KEPT_BYTES) -> None:
        self.revision = revision
        self._room = max(1, most_bytes // max(_ROW_BYTES * revision.rows, 1))
        self._kept: OrderedDict[int, Column] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, domain: int) -> Column:
        with self._lock:
            if domain not in self._kept:
                self._kept[domain] = self._read(domain)
                if len(self._kept) > self._room:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(domain)
            return self._kept[domain]

    def row(self, row: int) -> tuple[list[float], list[bool], list[bool]]:
        """Margins, labels, and labels without what people said, of one image in every phrase."""
        domains = range(len(self.revision.domains))
        if len(domains) <= self._room:
            columns = [self[n] for n in domains]
            return (
                [float(each.margins[row]) for each in columns],
                [bool(each.labels[row]) for each in columns],
                [bool(each.by_clip[row]) for each in columns],
            )
        block = self.revision.take([row])
        labels = block.active[0].tolist()
        offsets = self.revision.prompt_set.offsets
        own = [
            bool(margin > offset) if human and self.revision.rule.kind == "adaptive" else label
            for margin, offset, human, label in zip(block.margin[0], offsets, block.human[0], labels, strict=True)
        ]
        return block.margin[0].tolist(), labels, own

    def _read(self, domain: int) -> Column:
        labels, margins, human = self.revision.column(domain)
        own = labels
        if human.any() and self.revision.rule.kind == "adaptive":
            own = margins > np.float32(self.revision.prompt_set.offsets[domain])
        elif human.any() and self.revision.rule.by_similarity:
            own = _decided(self.revision, domain)
        return Column(margins, labels, own)


def _decided(revision: RevisionFile, domain: int) -> np.ndarray:
    """The labels of one phrase by a rule under which phrases compete, bool (n)."""
    prompts = revision.prompt_set
    offsets, weights = np.array(prompts.offsets, np.float32), np.array(prompts.weights, np.float32)
    found = []
    for block in revision.blocks(margin=True, base=True):
        found.append(decide(revision.rule, block.margin, block.similarity_base, offsets, weights)[:, domain])
    return np.concatenate(found) if found else np.empty(0, bool)
