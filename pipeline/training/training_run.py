"""A training run in memory: its parts, each of which knows only its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipeline.clip.models import ClipModel
from pipeline.models.bundle import Bundle
from pipeline.training.evaluation import Evaluator
from pipeline.training.guard import PromptGuard
from pipeline.training.learner import Learner
from pipeline.training.processes import Processes
from pipeline.training.refresh import RunLabels
from pipeline.training.run_files import RunFiles
from pipeline.training.run_model import RunModel
from pipeline.training.train_options import TrainOptions
from pipeline.training.training_data import TrainingData


@dataclass(frozen=True)
class TrainingRun:
    """learner: the method, and the step it is at. data: what its steps draw from. labels: of the store, read and made
    anew. files, model: what is written. clip, evaluator, guard: its judges. Every process holds all; the first one
    writes."""

    options: TrainOptions
    processes: Processes
    learner: Learner
    data: TrainingData
    labels: RunLabels
    files: RunFiles
    model: RunModel
    clip: ClipModel
    evaluator: Callable[[], Evaluator]
    guard: PromptGuard

    @property
    def device(self) -> torch.device:
        return self.processes.device

    @property
    def finds_clusters(self) -> bool:
        """Whether the method labels the images itself, and needs no labels."""
        return self.learner.finds_clusters

    @property
    def relabels(self) -> bool:
        """Whether what is learned decides the labels: clusters that it finds, or prompts, but not where people or other
        clusters do."""
        return self.finds_clusters or (self.learner.method.learns_prompts and self.data.labels.rule.by_similarity)

    def best_model(self) -> Bundle:
        """The model of the best evaluation, from its checkpoint. Raises LanitError where that is gone or damaged."""
        checkpoint, clock = self.files.best_checkpoint(self.learner.clock)
        return self.model.of_checkpoint(self.learner, checkpoint, clock, self.labels.read(clock.revision))

    def use_labels(self, revision: int) -> None:
        """Train on a revision from the next batch on."""
        self.data.use(self.labels.read(revision))
        self.learner.clock.revision = revision
