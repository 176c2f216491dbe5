"""Labels of each level of supervision: of the images to train on, and of the references of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.experiments.arms import Arm
from benchmarks.experiments.worlds import World
from lanit.labels import EmbeddedPrompts, Rule, assign
from pipeline.files import atomic_path
from pipeline.labelling.known_labels import read_truth
from pipeline.labelling.label import HowToLabel, label
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.words.kmeans import cluster_centres

LabelOf = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Labels, bool (m×N), of images given by unit-norm embeddings, float32 (m×k), and true labels, bool (m×N)."""


@dataclass(frozen=True)
class Supervision:
    """Labels of the training rows and what made them.

    revision: of the store. active: bool (n×N). rule: as text. macro_f1: of ``active`` against the truth; none for
    clusters, whose columns mean nothing. label_of: the same rule for images outside the store.
    """

    revision: int
    active: np.ndarray
    rule: str
    macro_f1: float | None
    label_of: LabelOf


def supervise(world: World, arm: Arm, seed: int) -> Supervision:
    """Label the store of ``world`` as ``arm`` says. seed: of the clusters."""
    if arm.level == "clusters":
        return _clusters(world, seed)
    prompts = world.poor_prompts if arm.poor else world.prompts
    if arm.level == "truth":
        return _known(world, world.truth_table, prompts, "true labels", lambda embeddings, truth: truth)
    embedded = embed_prompts(world.clip, prompts)
    rule = choose_rule(arm, world.store.embeddings(), world.truth, embedded)
    report = label(world.store, world.clip, prompts, rule)
    active = world.store.labels(report.revision).active
    described = rule.kind if rule.kind == "adaptive" else f"{rule.kind} {rule.value:.4g}"
    return Supervision(report.revision, active, described, macro_f1(active, world.truth), by_prompts(rule, embedded))


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


def nearest_centre(centres: np.ndarray) -> LabelOf:
    """One-hot labels: the nearest of the unit-norm ``centres``, float32 (N×k)."""

    def label_of(embeddings: np.ndarray, truth: np.ndarray) -> np.ndarray:
        nearest: np.ndarray = np.eye(len(centres), dtype=bool)[(embeddings @ centres.T).argmax(axis=1)]
        return nearest

    return label_of


def name_clusters(scores: np.ndarray) -> np.ndarray:
    """A domain of its own for each cluster, the best pairs first: int64 (N), the cluster of each domain.

    scores: float (N×N), how much the centre of a cluster (row) is like a domain (column).
    """
    waiting = np.array(scores, float)
    cluster_of = np.zeros(len(scores), int)
    for _ in range(len(scores)):
        cluster, domain = np.unravel_index(int(waiting.argmax()), waiting.shape)
        cluster_of[domain] = cluster
        waiting[cluster, :] = waiting[:, domain] = -np.inf
    return cluster_of


def macro_f1(active: np.ndarray, truth: np.ndarray) -> float:
    """Mean F1 over the columns of bool (n×N); 0 for a column in which nothing is right."""
    right = (active & truth).sum(axis=0)
    return float(np.mean(2 * right / np.maximum(active.sum(axis=0) + truth.sum(axis=0), 1)))


def _clusters(world: World, seed: int) -> Supervision:
    """k-means with as many clusters as domains; each takes the name of a domain, for the tables alone."""
    embeddings = world.store.embeddings()
    centres = cluster_centres(embeddings, len(world.domains), seed)
    embedded = embed_prompts(world.clip, world.prompts)
    centres = centres[name_clusters(centres @ (embedded.domains - embedded.base).numpy().T)]
    label_of = nearest_centre(centres)
    path = world.folder / f"clusters-{seed}.csv"
    _write_table(path, world, label_of(embeddings, world.truth))
    return _known(world, path, world.prompts, f"k-means, {len(centres)} clusters", label_of)


def _known(world: World, table: Path, prompts: PromptSet, described: str, label_of: LabelOf) -> Supervision:
    """Labels of a table alone, as ``lanit label --from-table TABLE``; no other revision knows of them."""
    given = read_truth(table, prompts.domains, blanks=True)
    report = label(world.store, world.clip, prompts, HowToLabel(Rule("given"), given=given))
    active = world.store.labels(report.revision).active
    known = macro_f1(active, world.truth) if table == world.truth_table else None
    return Supervision(report.revision, active, described, known, label_of)


def _write_table(path: Path, world: World, active: np.ndarray) -> None:
    ids = world.store.ok_images()["image_id"].to_pylist()
    lines = [",".join(("image_id", *world.domains))]
    lines += [",".join((key, *map(str, row))) for key, row in zip(ids, active.astype(int), strict=True)]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
