"""The experiments' protocol: which labels, which pairs, which jobs, and the arithmetic of the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from benchmarks.experiments.__main__ import parser
from benchmarks.experiments.arms import ARMS, EXPERIMENTS, arm_named
from benchmarks.experiments.labelling import (
    by_prompts,
    choose_rule,
    macro_f1,
    name_clusters,
    nearest_centre,
    supervise,
)
from benchmarks.experiments.plan import Plan, keep_plan
from benchmarks.experiments.protocol import draw_pairs, translate_pairs
from benchmarks.experiments.report import markdown, ratio_line, spread
from benchmarks.experiments.runs import jobs, pending, result_path
from benchmarks.experiments.worlds import Judge, World
from benchmarks.naive_step import plain_prompts
from lanit.errors import LanitError
from lanit.labels import EmbeddedPrompts, Rule
from lanit.networks import GenerativeNetworks, NetworkOptions
from pipeline.embedding.embed import embed
from pipeline.files import write_json
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import Store


def unit(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    values = rng.normal(size=(rows, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def texts() -> EmbeddedPrompts:
    rng = np.random.default_rng(1)
    return plain_prompts(torch.from_numpy(unit(rng, 5, 11)), torch.from_numpy(unit(rng, 1, 11)[0]))


@pytest.fixture
def world(make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path) -> World:
    """Noise of three domains, a random CLIP and a judge that sees nothing."""
    embed([make_images(31)], tmp_path / "store", tiny_clip)
    store = Store.open(tmp_path / "store")
    rng = np.random.default_rng(8)
    lines = [f"{path},{','.join(map(str, rng.integers(0, 2, 3)))}" for path in store.ok_images()["path"].to_pylist()]
    table = tmp_path / "truth.csv"
    table.write_text("\n".join(["path,red hat,bangs,bald", *lines]), encoding="utf-8")
    prompts, poor = (PromptSet(("red hat", "bangs", "bald"), (template,), ("a face.",), "three")
                     for template in ("a face with {}.", "a bald face with {}."))  # fmt: skip
    pictures = rng.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    judge = Judge(lambda images: (torch.zeros(len(images), 3).bool(), images.mean(dim=(2, 3))), "blind")
    return World("noise", tmp_path, tiny_clip, judge, prompts, poor, store, table, pictures,
                 rng.random((7, 3)) < 0.5, "small-32", {}, {}, "noise")  # fmt: skip


def result(arm: str, seed: int, mfid: list[float], **labels: Any) -> dict[str, Any]:
    known = {"rule": "adaptive", "macro_f1": 0.9, "macro_f1_after": None} | labels
    training = {"steps": 100, "seconds": 50.0}
    return {"world": "sample", "arm": arm, "seed": seed, "labels": known, "training": training,
            "scores": {"mfid": mfid}, "translations_per_domain": 7}  # fmt: skip


def test_references_of_the_prompts_level_are_labelled_by_the_adaptive_rule(
    texts: EmbeddedPrompts,
) -> None:
    embeddings = unit(np.random.default_rng(2), 37, 11)
    domains, base = texts.domains.numpy(), texts.base.numpy()
    expected = embeddings @ domains.T > (embeddings @ base)[:, None]
    assert np.array_equal(by_prompts(Rule(), texts)(embeddings, np.zeros((37, 5), bool)), expected)


def test_references_of_the_clusters_level_carry_the_nearest_centre_alone() -> None:
    rng = np.random.default_rng(3)
    centres, embeddings = unit(rng, 6, 9), unit(rng, 23, 9)
    labels = nearest_centre(centres)(embeddings, np.zeros((23, 6), bool))
    distances = ((embeddings[:, None] - centres) ** 2).sum(axis=2)
    assert (labels.sum(axis=1) == 1).all()
    assert np.array_equal(labels.argmax(axis=1), distances.argmin(axis=1))


def test_every_cluster_gets_a_name_of_its_own_and_the_surest_pair_its_best() -> None:
    scores = np.array([[0.9, 0.8, 0.1], [0.95, 0.2, 0.3], [0.7, 0.6, 0.5]])
    cluster_of = name_clusters(scores)
    assert cluster_of.tolist() == [1, 0, 2]
    assert sorted(name_clusters(np.random.default_rng(0).normal(size=(13, 13)))) == list(range(13))


@pytest.mark.parametrize("name", ["prompts", "truth", "clusters", "poor-fixed", "top-k"])
def test_stored_images_are_labelled_by_the_same_rule_as_references(world: World, name: str) -> None:
    supervision = supervise(world, arm_named(name), 0)
    assert np.array_equal(supervision.label_of(world.store.embeddings(), world.truth), supervision.active)
    assert np.array_equal(world.store.labels(supervision.revision).active, supervision.active)
    if name == "truth":
        assert np.array_equal(supervision.active, world.truth)
        assert supervision.macro_f1 == 1
    if name == "clusters":
        assert (supervision.active.sum(axis=1) == 1).all()
        assert supervision.active.any(axis=0).all()
        assert supervision.macro_f1 is None


def test_macro_f1_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    active, truth = rng.random((50, 4)) < 0.4, rng.random((50, 4)) < 0.3
    active[:, 3] = False
    assert macro_f1(active, truth) == pytest.approx(f1_score(truth, active, average="macro", zero_division=0))


@pytest.mark.parametrize("arm", ["top-k", "fixed"])
def test_the_best_rule_is_at_least_as_good_as_any_other_of_its_kind(arm: str, texts: EmbeddedPrompts) -> None:
    rng = np.random.default_rng(5)
    embeddings = unit(rng, 200, 11)
    truth = embeddings @ texts.domains.numpy().T + 0.1 * rng.normal(size=(200, 5)) > 0.2
    rule = choose_rule(arm_named(arm), embeddings, truth, texts)
    best = macro_f1(by_prompts(rule, texts)(embeddings, truth), truth)
    others = (
        [Rule("top-k", k) for k in range(1, 6)] if arm == "top-k" else [Rule("fixed", t / 20) for t in range(-8, 9)]
    )
    rivals = [macro_f1(by_prompts(other, texts)(embeddings, truth), truth) for other in others]
    assert best >= max(rivals) - (0 if arm == "top-k" else 0.03)
    assert best > min(rivals)


def test_sources_lack_the_domain_references_carry_it_and_real_images_are_apart_from_both() -> None:
    truth = np.random.default_rng(6).random((301, 3)) < 0.3
    pairs = draw_pairs(truth, 1, 500)
    assert len(pairs.sources) == len(pairs.references) == 500
    assert not truth[pairs.sources, 1].any()
    assert truth[pairs.references, 1].all()
    assert truth[pairs.real, 1].all()
    assert not set(pairs.real) & (set(pairs.references) | set(pairs.sources))
    assert set(pairs.references) | set(pairs.real) == set(np.flatnonzero(truth[:, 1]))  # none is left unused
    counts = np.unique(pairs.references, return_counts=True)[1]
    assert counts.max() - counts.min() <= 1
    again = draw_pairs(truth, 1, 500)
    assert np.array_equal(pairs.sources, again.sources)
    assert np.array_equal(pairs.references, again.references)


def test_a_translation_is_that_of_its_own_pair_whatever_stands_beside_it() -> None:
    torch.manual_seed(0)
    networks = GenerativeNetworks(NetworkOptions(32, 4, channels=4, max_channels=8, mapping_width=8)).eval()
    rng = np.random.default_rng(7)
    sources, references = rng.integers(0, 256, (2, 5, 32, 32, 3), dtype=np.uint8)
    labels = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1]], bool)
    made = translate_pairs(networks, sources, references, labels)
    assert made.shape == sources.shape
    alone = translate_pairs(networks, sources[2:3], references[2:3], labels[2:3])
    assert np.abs(made[2].astype(int) - alone[0]).max() <= 1
    other = translate_pairs(networks, sources[2:3], references[2:3], labels[3:4])
    assert np.abs(other[0].astype(int) - alone[0]).max() > 1  # the reference's label counts


def test_the_levels_run_in_both_worlds_before_anything_else() -> None:
    planned = list(jobs(["sample", "animals"], [arm.name for arm in ARMS], [0, 1, 2]))
    assert len(planned) == len(set((w, a.name, s) for w, a, s in planned)) == 6 * len(ARMS)
    order = [arm.experiment for _, arm, _ in planned]
    assert sorted(order, key=list(EXPERIMENTS).index) == order
    assert {world for world, arm, _ in planned[:6] if arm.experiment == "levels"} == {"sample", "animals"}


def test_a_job_with_a_result_is_not_done_again(tmp_path: Path) -> None:
    planned = list(jobs(["sample"], ["prompts", "truth"], [0, 1]))
    write_json(result_path(tmp_path, "sample", "truth", 0), {})
    left = pending(tmp_path, planned)
    assert [(arm.name, seed) for _, arm, seed in left] == [("prompts", 0), ("prompts", 1), ("truth", 1)]


def test_a_work_folder_refuses_another_size_and_names_it(tmp_path: Path) -> None:
    keep_plan(Plan(tmp_path, sample_steps=5))
    keep_plan(Plan(tmp_path, sample_steps=5))
    with pytest.raises(LanitError, match="sample_steps 5, not 6"):
        keep_plan(Plan(tmp_path, sample_steps=6))


def test_a_spread_is_the_mean_with_least_and_most() -> None:
    assert spread([0.25, None, 0.5, 0.75], 2) == "0.50 (0.25–0.75)"
    assert spread([0.0125], 1, 1000) == "12.5"
    assert spread([0.9961, 0.9959], 3) == "0.996"
    assert spread([None], 1) == "–"


def test_a_ratio_is_of_the_means_over_the_seeds_that_both_arms_have() -> None:
    results = [result("prompts", 0, [0.1, 0.3]), result("prompts", 1, [0.4]), result("prompts", 2, [9.0]),
               result("clusters", 0, [0.4]), result("clusters", 1, [0.4])]  # fmt: skip
    line = ratio_line(results, "prompts", "clusters")
    assert line is not None
    assert "0.750 (0.500–1.000 by seed, 2 seed(s))" in line
    assert ratio_line(results, "prompts", "truth") is None


def test_the_report_says_how_many_seeds_a_row_has_and_what_prompt_learning_gained(tmp_path: Path) -> None:
    bounds = {"remark": "drawn faces", "judge": "a judge", "sources": {"mfid": [2.0]}, "references": {"mfid": [0.5]}}
    write_json(tmp_path / "results" / "sample" / "bounds.json", bounds)
    learned = result("poor-learned", 0, [0.1], macro_f1=0.7, macro_f1_after=0.75)
    for each in (result("prompts", 0, [0.2]), result("prompts", 1, [0.4]), learned):
        write_json(result_path(tmp_path, "sample", each["arm"], each["seed"]), each)
    text = markdown(tmp_path, 2)
    assert "| 300.0 (200.0–400.0) |" in text
    assert "poor templates, prompts learned — 1 of 2 seeds | 100 | 50 | 0.700 → 0.750 |" in text
    assert "seed 0: +0.0500" in text
    assert "| sources, untouched |  |  |  | 2000.0 |" in text


def test_the_command_line_takes_sizes_and_refuses_an_unknown_arm(capsys: pytest.CaptureFixture[str]) -> None:
    given = parser().parse_args(["run", "--sample-steps", "7", "--arms", "prompts,truth", "--seeds", "4,5"])
    assert (given.sample_steps, given.arms, given.seeds) == (7, ("prompts", "truth"), (4, 5))
    with pytest.raises(SystemExit):
        parser().parse_args(["run", "--arms", "prompt"])
    assert "'prompt' is none of" in capsys.readouterr().err


def test_results_are_json_that_any_reader_takes(tmp_path: Path) -> None:
    path = result_path(tmp_path, "animals", "clusters", 2)
    write_json(path, result("clusters", 2, [0.25]))
    assert json.loads(path.read_text())["scores"]["mfid"] == [0.25]
    assert path.relative_to(tmp_path).as_posix() == "results/animals/clusters-2.json"
