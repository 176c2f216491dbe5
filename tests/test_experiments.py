"""The experiments' protocol: which labels, which pairs, which jobs, and the arithmetic of the report."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score

from benchmarks.experiments import runs
from benchmarks.experiments.__main__ import can_run, parser
from benchmarks.experiments.animals_data import read_large_animals
from benchmarks.experiments.animals_models import recognised
from benchmarks.experiments.arms import ARMS, EXPERIMENTS, UNGUIDED, Arm, arm_named
from benchmarks.experiments.labelling import (
    by_prompts,
    choose_rule,
    macro_f1,
    supervise,
)
from benchmarks.experiments.plan import Plan, keep_plan
from benchmarks.experiments.protocol import draw_pairs, labels_of_held_out, translate_pairs
from benchmarks.experiments.report import markdown, ratio_line, spread
from benchmarks.experiments.runs import jobs, options_of, pending, result_path, step_cost
from benchmarks.experiments.worlds import Judge, World, celeba_world, judged
from benchmarks.naive_step import plain_prompts
from benchmarks.photographs import faces_data
from lanit.errors import LanitError
from lanit.guides import GuidedNetworks, GuideSizes
from lanit.labels import EmbeddedPrompts, Rule
from lanit.networks import GenerativeNetworks, NetworkOptions
from pipeline.decoding.grids import to_float
from pipeline.embedding.embed import embed
from pipeline.files import write_json
from pipeline.labelling.fill_request import Fill, kept_rows
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import Store
from pipeline.words.kmeans import cluster_centres


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
    training = {"steps": 100, "processor_seconds_per_step": 0.5}
    return {"world": "sample", "arm": arm, "seed": seed, "labels": known, "training": training,
            "scores": {"mfid": mfid, "mfid_judge": mfid}, "translations_per_domain": 7}  # fmt: skip


def test_references_of_words_are_labelled_by_the_adaptive_rule(
    texts: EmbeddedPrompts,
) -> None:
    embeddings = unit(np.random.default_rng(2), 37, 11)
    domains, base = texts.domains.numpy(), texts.base.numpy()
    expected = embeddings @ domains.T > (embeddings @ base)[:, None]
    assert np.array_equal(by_prompts(Rule(), texts)(embeddings, np.zeros((37, 5), bool)), expected)


@pytest.mark.parametrize("name", ["words", "truth", "kmeans", "poor-fixed", "top-k"])
def test_stored_images_are_labelled_by_the_same_rule_as_references(world: World, name: str) -> None:
    supervision = supervise(world, arm_named(name), 0)
    assert supervision.revision is not None
    assert np.array_equal(supervision.label_of(world.store.embeddings(), world.truth), supervision.active)
    assert np.array_equal(world.store.labels(supervision.revision).active, supervision.active)
    if name == "truth":
        assert np.array_equal(supervision.active, world.truth)
        assert supervision.macro_f1 == 1
    if name == "kmeans":
        assert (supervision.active.sum(axis=1) == 1).all()
        assert supervision.active.any(axis=0).all()
        assert supervision.macro_f1 is None


def test_clusters_are_as_many_as_asked_for_and_an_image_is_of_the_nearest_centre(world: World) -> None:
    four = supervise(world, replace(arm_named("kmeans"), domains=4), 0)
    assert four.active.shape == (31, 4)
    embeddings = world.store.embeddings()
    likeness = np.einsum("nk,ck->nc", embeddings, cluster_centres(embeddings, 4, 0), dtype=np.float64)
    assert (likeness[four.active] > likeness.max(axis=1) - 2e-7).all()  # the CLIP is random: images are much alike
    assert (four.active.sum(axis=1) == 1).all()


def test_fewer_words_are_the_first_of_the_world(world: World) -> None:
    two = supervise(world, replace(arm_named("words"), domains=2), 0)
    assert two.revision is not None
    assert world.store.revision_file(two.revision).domains == ("red hat", "bangs")
    assert np.array_equal(two.active, supervise(world, arm_named("words"), 0).active[:, :2])


def test_what_is_known_is_kept_and_a_head_labels_the_rest_and_references_alike(world: World) -> None:
    half = supervise(world, replace(arm_named("fill-20"), keep=0.5), 0)
    found = half.label_of(world.store.embeddings(), world.truth)
    ids = world.store.ok_images()["image_id"].to_pylist()
    known = kept_rows(world.truth.astype(np.int8), ids, Fill(0.5, 0))
    assert 14 <= known.sum() <= 17
    assert np.array_equal(half.active[known], world.truth[known])
    assert np.array_equal(half.active[~known], found[~known])


def test_a_method_that_finds_its_labels_begins_with_none(world: World) -> None:
    arm = arm_named("tunit")
    assert supervise(world, arm, 0).revision is None
    options = options_of(world, replace(arm, domains=4), 3, 7)
    assert (options.method, options.settings.clusters, options.steps, options.seed) == ("tunit", 4, 7, 3)  # type: ignore[attr-defined]


def test_every_arm_has_the_networks_and_the_batch_of_the_others(world: World) -> None:
    same = replace(world, options={"channels": 8, "batch_size": 16}, learning={"prompts_from": 0.7})
    for arm in ARMS:
        found = options_of(same, arm, 1, 9)
        assert (found.batch_size, found.steps, found.seed) == (16, 9, 1)
        assert found.settings.network_options(32, 4).channels == 8
        assert found.method == {"tunit": "tunit", "style": "style-aware"}.get(arm.name.split("-")[0], "stargan")


def test_references_are_labelled_by_a_guiding_network_where_there_is_one(world: World) -> None:
    torch.manual_seed(0)
    guided = GuidedNetworks(GuideSizes(32, 4, channels=4, max_channels=8)).eval()

    def unused(embeddings: np.ndarray, truth: np.ndarray) -> np.ndarray:
        raise AssertionError("the guiding network labels them")

    labels = labels_of_held_out(world, guided, unused)
    with torch.no_grad():
        expected = guided.guide.look(to_float(world.pictures)).logits.argmax(dim=1)
    assert np.array_equal(labels.argmax(axis=1), expected)
    assert (labels.sum(axis=1) == 1).all()


def test_arms_have_equal_time_by_what_a_step_costs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = {"words": [(0.2, 0.5), (0.3, 0.4)], "tunit": [(0.1, 0.6), (0.2, 0.5)]}
    asked: list[str] = []

    def timed(world: World, arm: Arm, turn: int) -> tuple[float, float]:
        asked.append(arm.name)
        return rounds[arm.name][turn]

    monkeypatch.setattr(runs, "_timed", timed)
    assert step_cost(world, arm_named("words")) == 0.4  # the least, and no warm-up
    assert step_cost(world, arm_named("truth")) == 0.4  # of one way to train with words, and not measured again
    assert step_cost(world, replace(arm_named("tunit"), domains=3)) == pytest.approx(0.325 * 0.1 + 0.675 * 0.5)
    assert asked == ["words", "words", "tunit", "tunit"]


def test_a_measurement_of_a_step_can_be_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "train", lambda *_, **__: SimpleNamespace(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        step_cost(world, arm_named("no-domain"))


def test_a_world_runs_no_arm_of_more_words_than_it_has(world: World) -> None:
    assert [name for name in ("words", "words-4", "tunit-4", "kmeans") if not can_run(world, arm_named(name))] == [
        "words-4"
    ]


def jpeg_of(rng: np.random.Generator, side: int) -> bytes:
    """Noise of few places, as a file."""
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((side, side)).save(file, "JPEG")
    return file.getvalue()


def faces_of(rng: np.random.Generator, count: int) -> pa.Table:
    """As CelebA's tables are: names, JPEG files, and attributes as 0 and 1; the columns that nobody asks for too."""
    cells = [jpeg_of(rng, 96) for _ in range(count)]
    names = [*faces_data.PHRASES, *faces_data.FURTHER_PHRASES, "Wavy_Hair"]
    columns = {name: pa.array(rng.integers(0, 2, count), pa.int8()) for name in names}
    return pa.table({"path": [f"{rng.integers(1 << 40):011d}.jpg" for _ in range(count)], "jpeg": cells} | columns)


def test_a_world_of_faces_keeps_what_is_known_what_is_trained_on_and_what_is_held_out_apart(
    tmp_path: Path, tiny_clip_folder: Path
) -> None:
    rng = np.random.default_rng(9)
    tables = {part: faces_of(rng, count) for part, count in (("train", 130), ("test", 21))}
    for part, table in tables.items():
        pq.write_table(table, tmp_path / f"celeba10k-{part}.parquet")
    clip = shutil.copytree(tiny_clip_folder, tmp_path / "work" / "celeba" / "clip")
    (clip / "training.json").write_text("{}")
    made = celeba_world(Plan(tmp_path / "work", judge_epochs=1), tmp_path)
    written = (made.folder / "images.parquet").stat().st_mtime_ns
    parts = {part.file for part in made.store.manifest.parts}
    again = celeba_world(Plan(tmp_path / "work", judge_epochs=1), tmp_path)
    assert (again.folder / "images.parquet").stat().st_mtime_ns == written, "experiments may run beside each other"
    assert {part.file for part in again.store.manifest.parts} == parts
    assert len(made.domains) == 13
    assert [made.domains[n] for n in (0, 8, 12)] == ["male", "beard", "black hair"]
    assert made.pictures.shape == (21, 64, 64, 3)
    known, other = faces_data.read_faces(tmp_path / "celeba10k-train.parquet")
    paths = made.store.ok_images()["path"].to_pylist()
    assert set(paths) == set(other.table["path"].to_pylist())
    assert not set(paths) & set(known.table["path"].to_pylist())
    row = tables["train"]["path"].to_pylist().index(paths[0])
    truth = {name: bool(tables["train"][name][row].as_py()) for name in ("Male", "No_Beard", "Black_Hair")}
    assert made.truth[0, [0, 8, 12]].tolist() == [truth["Male"], not truth["No_Beard"], truth["Black_Hair"]]
    seen, features = judged(made.judge, made.pictures)
    assert (seen.shape, features.shape) == ((21, 13), (21, 128))
    assert "with and without each" in made.judge.described
    assert options_of(made, arm_named("tunit"), 0, 5).size == 64


def animals_of(rng: np.random.Generator, count: int) -> pa.Table:
    """Rows of two classes; every second animal fills its picture, others a quarter of it."""
    jpegs = [jpeg_of(rng, 64) for _ in range(count)]
    ends = np.where(np.arange(count) % 2 == 0, 63, 31)
    columns = {"path": [f"{n}.jpg" for n in range(count)], "jpeg": jpegs, "class": ["lion", "bison"] * (count // 2)}
    boxes = {name: np.zeros(count) if name[1] == "0" else ends for name in ("x0", "y0", "x1", "y1")}
    return pa.table(columns | {name: pa.array(box.astype(np.int8)) for name, box in boxes.items()})


def test_generators_learn_from_large_animals_alone_and_what_may_be_known_is_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    for part, count in (("train", 40), ("test", 10)):
        pq.write_table(animals_of(rng, count), tmp_path / f"zoo-{part}.parquet")
    known, unlabelled, held_out = read_large_animals(tmp_path, "zoo", 64, 0.5)
    assert known.names == ("bison", "lion")
    paths = [set(part.table["path"].to_pylist()) for part in (known, unlabelled)]
    assert (len(paths[0]), len(paths[1])) == (30, 10)
    assert not paths[0] & paths[1]
    for part in (unlabelled, held_out):
        assert all(int(path.split(".")[0]) % 2 == 0 for path in part.table["path"].to_pylist())
    assert len(held_out.classes) == 5
    pq.write_table(animals_of(rng, 40).drop_columns(["x1"]), tmp_path / "zoo-train.parquet")
    with pytest.raises(LanitError, match="lacks one of the columns"):
        read_large_animals(tmp_path, "zoo", 64, 0.5)


@pytest.mark.parametrize("preset", ["small-32", "photos-64"])
def test_clip_guides_every_arm_of_words_alike_in_every_world(world: World, preset: str) -> None:
    here = replace(world, preset=preset, options={}, learning={})
    for arm in (each for each in ARMS if each.level != "found"):
        assert options_of(here, arm, 0, 9).to_json()["domain"] == (0 if arm.changes == UNGUIDED else 1), arm.name


def test_a_judge_of_attributes_sees_several_and_one_of_classes_just_one() -> None:
    logits = torch.tensor([[0.5, 2.0, -1.0], [-3.0, -1.0, -2.0]])
    assert recognised(logits, classes=False).tolist() == [[True, True, False], [False, False, False]]
    assert recognised(logits, classes=True).tolist() == [[False, True, False], [False, True, False]]


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


def test_the_ladder_runs_in_all_worlds_before_anything_else() -> None:
    planned = list(jobs(["sample", "animals"], [arm.name for arm in ARMS], [0, 1, 2]))
    assert len(planned) == len(set((w, a.name, s) for w, a, s in planned)) == 6 * len(ARMS)
    order = [arm.experiment for _, arm, _ in planned]
    assert sorted(order, key=list(EXPERIMENTS).index) == order
    assert {world for world, _, _ in planned[:16]} == {"sample", "animals"}


def test_a_job_with_a_result_is_not_done_again(tmp_path: Path) -> None:
    planned = list(jobs(["sample"], ["words", "truth"], [0, 1]))
    write_json(result_path(tmp_path, "sample", "truth", 0), {})
    left = pending(tmp_path, planned)
    assert [(arm.name, seed) for _, arm, seed in left] == [("words", 0), ("words", 1), ("truth", 1)]


def test_a_work_folder_refuses_another_size_and_names_it(tmp_path: Path) -> None:
    keep_plan(Plan(tmp_path, sample_seconds=5))
    keep_plan(Plan(tmp_path, sample_seconds=5))
    with pytest.raises(LanitError, match="sample_seconds 5, not 6"):
        keep_plan(Plan(tmp_path, sample_seconds=6))


def test_a_spread_is_the_mean_with_least_and_most() -> None:
    assert spread([0.25, None, 0.5, 0.75], 2) == "0.50 (0.25–0.75)"
    assert spread([0.0125], 1, 1000) == "12.5"
    assert spread([0.9961, 0.9959], 3) == "0.996"
    assert spread([None], 1) == "–"


def test_a_ratio_is_of_the_means_over_the_seeds_that_both_arms_have() -> None:
    results = [result("words", 0, [0.1, 0.3]), result("words", 1, [0.4]), result("words", 2, [9.0]),
               result("kmeans", 0, [0.4]), result("kmeans", 1, [0.4])]  # fmt: skip
    line = ratio_line(results, "words", "kmeans")
    assert line is not None
    assert "0.750 (0.500–1.000 by seed, 2 seed(s))" in line
    assert ratio_line(results, "words", "truth") is None


def test_the_report_says_how_many_seeds_a_row_has_and_what_prompt_learning_gained(tmp_path: Path) -> None:
    bounds = {"remark": "drawn faces", "judge": "a judge", "sources": {"mfid": [2.0]}, "references": {"mfid": [0.5]}}
    write_json(tmp_path / "results" / "sample" / "bounds.json", bounds)
    learned = result("poor-learned", 0, [0.1], macro_f1=0.7, macro_f1_after=0.75)
    for each in (result("words", 0, [0.2]), result("words", 1, [0.4]), learned):
        write_json(result_path(tmp_path, "sample", each["arm"], each["seed"]), each)
    text = markdown(tmp_path, 2)
    assert "| 300.0 (200.0–400.0) |" in text
    assert "poor templates, prompts learned — 1 of 2 seeds | 100 | 50 | 0.700 → 0.750 | – |" in text
    assert "seed 0: +0.0500" in text
    assert "| sources, untouched |  |  |  |  | 2000.0 |" in text


def test_the_command_line_takes_sizes_and_refuses_an_unknown_arm(capsys: pytest.CaptureFixture[str]) -> None:
    given = parser().parse_args(["run", "--sample-seconds", "7", "--arms", "words,truth", "--seeds", "4,5"])
    assert (given.sample_seconds, given.arms, given.seeds) == (7, ("words", "truth"), (4, 5))
    with pytest.raises(SystemExit):
        parser().parse_args(["run", "--arms", "word"])
    assert "'word' is none of" in capsys.readouterr().err


def test_results_are_json_that_any_reader_takes(tmp_path: Path) -> None:
    path = result_path(tmp_path, "animals", "kmeans", 2)
    write_json(path, result("kmeans", 2, [0.25]))
    assert json.loads(path.read_text())["scores"]["mfid"] == [0.25]
    assert path.relative_to(tmp_path).as_posix() == "results/animals/kmeans-2.json"
