"""Labels of each level of supervision: of the images to train on, and of the references of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.experiments.arms import Arm
from benchmarks.experiments.worlds import World
from lanit.labels import EmbeddedPrompts, Rule, assign
from lanit.linear_head import LinearHead
from pipeline.labelling.fill_request import Fill
from pipeline.labelling.known_labels import Truth, read_truth
from pipeline.labelling.label import HowToLabel, label
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.stability.crops import make_views
from pipeline.stability.information_clusters import information_head
from pipeline.training.found_clusters import placeholders
from pipeline.words.kmeans import cluster_centres

LabelOf = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Labels, bool (m×N), of images given by unit-norm embeddings, float32 (m×k), and true labels, bool (m×N)."""


@dataclass(frozen=True)
class Supervision:
    """Labels of the training rows and what made them.

    revision: of the store, none where the method finds its own labels as it learns. active: bool (n×N), empty until
    then. rule: as text. macro_f1: of ``active`` against the truth of the same domains; none for clusters, whose columns
    mean nothing. label_of: the same rule for images outside the store.
    """

    revision: int | None
    active: np.ndarray
    rule: str
    macro_f1: float | None
    label_of: LabelOf


def supervise(world: World, arm: Arm, seed: int) -> Supervision:
    """Label the store of ``world`` as ``arm`` says. seed: of the clusters, and of which true labels are known."""
    count = arm.domains or len(world.domains)
    if arm.level == "k-means":
        return _k_means(world, count, seed)
    if arm.level == "information":
        return _information(world, count, seed)
    if arm.level == "found":
        return Supervision(None, np.zeros((0, count), bool), "learned", None, lambda embeddings, truth: truth)
    prompts = world.poor_prompts if arm.poor else world.prompts
    if arm.level == "truth":
        given = read_truth(world.truth_table, prompts.domains, blanks=True)
        return _given(world, given, prompts, "true labels", lambda embeddings, truth: truth)
    if arm.level == "fill":
        return _fill(world, prompts, Fill(arm.keep, seed))
    prompts = prompts.of_domains(range(count))
    embedded, truth = embed_prompts(world.clip, prompts), world.truth[:, :count]
    rule = choose_rule(arm, world.store.embeddings(), truth, embedded)
    report = label(world.store, world.clip, prompts, rule)
    active = world.store.labels(report.revision).active
    described = rule.kind if rule.kind == "adaptive" else f"{rule.kind} {rule.value:.4g}"
    return Supervision(report.revision, active, described, macro_f1(active, truth), by_prompts(rule, embedded))


def choose_rule(arm: Arm, embeddings: np.ndarray, truth: np.ndarray, prompts: EmbeddedPrompts) -> Rule:
    """The rule of ``arm``; the best K or threshold by macro F1 against ``truth``, bool (n×N)."""
    if arm.rule == "adaptive":
        return Rule()
    if arm.rule == "best-top-k":
        candidates = [Rule("top-k", k) for k in range(1, truth.shape[1] + 1)]
    else:
        similarities = embeddings @ prompts.domains.numpy().T
        thresholds = np.quantile(similarities, np.linspace(0.02, 0.98, 97))
        candidates = [Rule("fixed", float(threshold)) for threshold in thresholds]
    return max(candidates, key=lambda rule: macro_f1(by_prompts(rule, prompts)(embeddings, truth), truth))


def by_prompts(rule: Rule, prompts: EmbeddedPrompts) -> LabelOf:
    """Labels by ``rule``."""

    def label_of(embeddings: np.ndarray, truth: np.ndarray) -> np.ndarray:
        active: np.ndarray = assign(rule, torch.from_numpy(embeddings), prompts)[0].numpy()
        return active

    return label_of


def by_head(head: LinearHead, rule: Rule, prompts: EmbeddedPrompts) -> LabelOf:
    """Labels by ``rule`` and a head, where it decides."""

    def label_of(embeddings: np.ndarray, truth: np.ndarray) -> np.ndarray:
        active: np.ndarray = assign(rule, embeddings, prompts.arrays(), head)[0]
        return active

    return label_of


def macro_f1(active: np.ndarray, truth: np.ndarray) -> float:
    """Mean F1 over the columns of bool (n×N); 0 for a column in which nothing is right."""
    right = (active & truth).sum(axis=0)
    return float(np.mean(2 * right / np.maximum(active.sum(axis=0) + truth.sum(axis=0), 1)))


def _k_means(world: World, count: int, seed: int) -> Supervision:
    centres = cluster_centres(world.store.embeddings(), count, seed)
    return _of_head(world, LinearHead(centres, np.zeros(count, np.float32), one_hot=True), "k-means", seed)


def _information(world: World, count: int, seed: int) -> Supervision:
    """As ``lanit label --clusters K --by mutual-information``, which begins at the centres of k-means."""
    centres = cluster_centres(world.store.embeddings(), count, seed)
    head = information_head(make_views(world.store, world.clip), centres)
    return _of_head(world, head, "mutual information", seed)


def _of_head(world: World, head: LinearHead, found_by: str, seed: int) -> Supervision:
    """Clusters without a name that means anything: CLIP does not guide by them."""
    prompts = world.prompts.about(placeholders(len(head.weights)))

    def label_of(embeddings: np.ndarray, truth: np.ndarray) -> np.ndarray:
        active: np.ndarray = head.labels(embeddings)
        return active

    active = label_of(world.store.embeddings(), world.truth)
    ids = tuple(world.store.ok_images()["image_id"].to_pylist())
    given = Truth("image_id", ids, prompts.domains, active)
    return _given(world, given, prompts, f"{found_by}, {len(head.weights)} clusters, seed {seed}", label_of)


def _given(world: World, given: Truth, prompts: PromptSet, described: str, label_of: LabelOf) -> Supervision:
    """Known labels alone, as ``lanit label --from-table TABLE``; no other revision knows of them."""
    report = label(world.store, world.clip, prompts, HowToLabel(Rule("given"), given=given))
    active = world.store.labels(report.revision).active
    known = macro_f1(active, world.truth) if prompts.domains == world.domains else None
    return Supervision(report.revision, active, described, known, label_of)


def _fill(world: World, prompts: PromptSet, asked: Fill) -> Supervision:
    """As ``lanit label --from-table TABLE --keep SHARE --fill``, with the world's own templates."""
    given = read_truth(world.truth_table, prompts.domains, blanks=True)
    rule = Rule("argmax") if (world.truth.sum(axis=1) == 1).all() else Rule()
    report = label(world.store, world.clip, prompts, HowToLabel(rule, given=given, fill=asked))
    active = world.store.labels(report.revision).active
    described = f"{asked.keep:.0%} known"
    label_of = by_prompts(rule, report.embedded)
    if report.head is not None:
        label_of = by_head(report.head, report.file.rule, report.embedded)
    return Supervision(report.revision, active, described, macro_f1(active, world.truth), label_of)
