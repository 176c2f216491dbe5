"""The labels of a run in its store: read, and made anew by the prompts as learned so far (METHOD 15)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lanit.errors import LanitError
from lanit.labels import EmbeddedPrompts
from lanit.methods.method import Options
from pipeline.labelling.label import label_blocks, relabel
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.label_revisions import LabelBlock, LabelRevision
from pipeline.store.store import Store
from pipeline.training.one_word import labels_of

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class RunLabels:
    """store: of the labels. run: the name of the run, for the origin of those that it makes. settings: of its method,
    which say what of them it learns. first: those that it began with, of number 0 where they are no revision of the
    store."""

    store: Store
    run: str
    settings: Options
    first: LabelRevision

    def read(self, revision: int) -> LabelRevision:
        return labels_of(self.settings, self.store.labels(revision)) if revision else self.first

    def read_current(self, revision: int) -> LabelRevision:
        """Raises LanitError where the revision labels other images than the store now holds."""
        labels = self.read(revision)
        if not self.store.is_current(labels):
            raise LanitError(
                f"the run {self.run} learns from label revision {labels.number}, "
                f"which labels other images than the store {self.store.root} now holds",
                "Train on the images of now in another --out.",
            )
        return labels

    def refresh(self, before: LabelRevision, prompts: EmbeddedPrompts, written: PromptSet, step: int) -> int:
        """Write a revision like ``before`` by ``prompts``, the embedding of ``written``; returns its number."""
        return relabel(self.store, before, prompts.to(_CPU), f"train:{self.run} step {step}", written)

    def rehearse(self, before: LabelRevision, prompts: EmbeddedPrompts) -> dict[str, Any]:
        """Do all of a refresh but write it, which is only tried; returns the metric line.

        The prompts have learned nothing yet, so flips say that other prompts, another rule or people made the labels.
        """
        begun = time.monotonic()
        self.store.check_labels_writable()
        flips = np.zeros(len(before.domains), np.int64)
        human = before.human if before.human is not None else np.zeros_like(before.active)

        def given(block: LabelBlock) -> np.ndarray:
            rows = slice(block.start, block.start + block.rows)
            values: np.ndarray = np.where(human[rows], before.active[rows], -1).astype(np.int8)
            return values

        for block in label_blocks(self.store, prompts.to(_CPU), before.rule, given):
            flips += (block.active != before.active[block.start : block.start + block.rows]).sum(axis=0)
        return refresh_line("refresh rehearsed", before.number, before, flips, begun)


def refresh_line(kind: str, number: int, before: LabelRevision, flips: np.ndarray, begun: float) -> dict[str, Any]:
    """The metric line of a refresh. number: of the revision it made; flips: int64 (N)."""
    named = dict(zip(before.domains, map(int, flips), strict=True))
    return {"kind": kind, "label_revision": number, "flips": named, "took": round(time.monotonic() - begun, 3)}
