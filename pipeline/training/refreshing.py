"""A label refresh of a run (METHOD 15): taken always, or where the labels of two crops agree more than before."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from lanit.errors import LanitError
from pipeline.showing import console
from pipeline.stability.agreements import newly_alike
from pipeline.training.found_clusters import refresh_clusters
from pipeline.training.guard import stability_of
from pipeline.training.learner import FALLS, as_learned
from pipeline.training.refresh import refresh_line
from pipeline.training.training_run import TrainingRun


def begin_to_check(run: TrainingRun) -> dict[str, float]:
    """Measure how stable the labels are that prompts begin with, if that is asked for and can be told."""
    run.learner.clock.stability = None
    if run.options.keep_prompts == "last":
        return {}
    try:
        found = stability_of(run.guard.look(run.learner.embedded(), run.data.labels.rule))
    except LanitError as error:
        console.warn(f"prompts are learned unchecked: {error.message}; --set prompts_from=1 leaves them as written")
        return {}
    run.learner.clock.stability = found
    return {"stability": round(found, 4)}


def refresh_labels(run: TrainingRun) -> None:
    """By clusters as found so far, or by the prompts as learned so far; a run that is checked takes those only where
    labels are then more stable."""
    if run.finds_clusters:
        refresh_clusters(run)
    elif run.learner.clock.stability is None:
        _refresh(run)
    else:
        _refresh_if_stable(run)


def _refresh_if_stable(run: TrainingRun) -> None:
    """Refresh by the prompts as learned so far where labels are then more stable; else those of before stay."""
    learner, clock, begun = run.learner, run.learner.clock, time.monotonic()
    labels, seen, found = run.data.labels, None, None
    if run.processes.first:
        try:
            seen = run.guard.look(learner.method.prompts(learner.method.context()), labels.rule)
            before = run.guard.look(learner.embedded(), labels.rule)
            found = stability_of(seen), bool(newly_alike(labels.domains, before, seen))
        except LanitError as error:
            console.warn(f"how stable labels are shows no more ({error.message}): prompts stay as they are")
    found = run.processes.shared(found)
    if found is None:
        learner.settle()
        return
    stability, alike = found
    if learner.judge_refresh(stability, alike):
        _refresh(run, {"stability": round(stability, 4), "kept": True})
        if seen is not None:
            run.guard.keep(clock.revision, seen)
        return
    line = refresh_line("refresh", clock.revision, labels, np.zeros(len(labels.domains), int), begun)
    run.files.add_line(clock, line | {"stability": round(stability, 4), "kept": False})
    if clock.settled and run.processes.first:
        console.note(
            f"prompts are learned no more from step {clock.step:,} on: {FALLS} refreshes in a row would have left "
            f"labels less stable than those of revision {clock.revision}, which stay"
        )


def _refresh(run: TrainingRun, more: dict[str, Any] | None = None) -> None:
    """Label the store by the prompts as learned so far, and train on that from now on. more: of the line."""
    before, number, begun = run.data.labels, 0, time.monotonic()
    if run.processes.first:
        written = as_learned(before.prompt_set, run.learner.context())
        number = run.labels.refresh(before, run.learner.embedded(), written, run.learner.clock.step)
    number = run.processes.shared(number)
    if number != before.number:
        run.use_labels(number)
    flips = (run.data.labels.active != before.active).sum(axis=0)
    run.files.add_line(run.learner.clock, refresh_line("refresh", number, before, flips, begun) | (more or {}))
