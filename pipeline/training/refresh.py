"""Relabelling the stored set by the prompts as learned so far (METHOD 15)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.labelling.label import label_blocks, relabel
from pipeline.store.label_revisions import LabelBlock, LabelRevision
from pipeline.training.training_run import TrainingRun


def refresh(run: TrainingRun) -> dict[str, Any]:
    """Write a revision of labels by the averaged prompts and train on it from now on; returns the metric line."""
    before, number, begun = run.labels, 0, time.monotonic()
    if run.processes.first:
        origin = f"train:{run.folder.name} step {run.clock.step}"
        number = relabel(run.store, before, _texts(run), origin, run.prompts())
    number = run.processes.shared(number)
    if number != before.number:
        run.use_labels(run.store.labels(number))
    return _line("refresh", number, before, (run.labels.active != before.active).sum(axis=0), begun)


def rehearse(run: TrainingRun) -> dict[str, Any]:
    """Do all of a refresh but write it, which is only tried; returns the metric line.

    The prompts have learned nothing yet, so flips say that other prompts, another rule or people made the labels.
    """
    before, begun = run.labels, time.monotonic()
    run.store.check_labels_writable()
    flips = np.zeros(len(before.domains), np.int64)
    human = before.human if before.human is not None else np.zeros_like(before.active)

    def given(block: LabelBlock) -> np.ndarray:
        rows = slice(block.start, block.start + block.rows)
        values: np.ndarray = np.where(human[rows], before.active[rows], -1).astype(np.int8)
        return values

    for block in label_blocks(run.store, _texts(run), before.prompt_set, before.rule, given):
        flips += (block.active != before.active[block.start : block.start + block.rows]).sum(axis=0)
    return _line("refresh rehearsed", before.number, before, flips, begun)


def _texts(run: TrainingRun) -> tuple[Tensor, Tensor]:
    domains, base = run.averaged_text()
    return domains.float().cpu(), base.float().cpu()


def _line(kind: str, number: int, before: LabelRevision, flips: np.ndarray, begun: float) -> dict[str, Any]:
    named = dict(zip(before.domains, map(int, flips), strict=True))
    return {"kind": kind, "label_revision": number, "flips": named, "took": round(time.monotonic() - begun, 3)}
