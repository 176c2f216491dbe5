"""A model whose domains are clusters, against true classes: matched one-to-one, and figures where references decide."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score

from lanit.inference import target_style
from lanit.metrics import frechet_distance, moments
from lanit.rules import K_MEANS, Rule
from pipeline.decoding.grids import to_float, to_uint8
from pipeline.evaluation.evaluate import Evaluation, Tools, evaluate_runs
from pipeline.evaluation.features import ClipFeatures
from pipeline.evaluation.options import EvaluationOptions
from pipeline.evaluation.page import evaluation_page
from pipeline.evaluation.run_evaluation import REFERENCES
from pipeline.evaluation.sample import draw, generator_of, read_rows, real_labels
from pipeline.evaluation.summary import show_result
from pipeline.evaluation.true_classes import TrueClasses
from pipeline.files import read_json
from pipeline.models.bundle import load_bundle
from pipeline.models.run_folder import RESULT_NAME
from pipeline.store.store import Store
from pipeline.training import found_clusters
from pipeline.training.train_options import make_options
from pipeline.words.vocabulary import Vocabulary
from tests.label_builders import add_labels
from tests.training_world import TINY, changed, copy_of, draw_store, go, labelled

OPTIONS = EvaluationOptions(styles=2, sources=9, guide="reference", bootstrap=20, neighbours=2, seed=3)
SETTINGS = {
    "method": "tunit", "clusters": 3, "warm_up": 0.3, "size": 32, "batch_size": 4, "channels": 4, "max_channels": 8,
    "style_dim": 8, "precision": "float32", "sample_every": 0, "checkpoint_every": 0, "evaluate_images": 3, "steps": 4,
}  # fmt: skip
CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Any) -> Path:
    """A store, a run that found three clusters in it, one of words, and a table of three classes of all images but
    one."""
    folder = tmp_path_factory.mktemp("clusters")
    opened = Store.open(draw_store(folder, tiny_clip))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(found_clusters, "read_vocabulary", lambda: Vocabulary("test", ("red", "green", "blue", "sky")))
        go(folder / "run", tiny_clip, make_options(SETTINGS))
    labelled(opened)
    go(folder / "words", tiny_clip, changed(TINY, steps=2))
    rng = np.random.default_rng(5)
    lines = [f"{path},{rng.choice(CLASSES)}" for path in opened.ok_images()["path"].to_pylist()]
    (folder / "truth.csv").write_text("\n".join(["path,class", *lines[1:]]), encoding="utf-8")
    return folder


@pytest.fixture
def store(world: Path, tmp_path: Path) -> Store:
    return copy_of(world / "store", tmp_path / "store")


@pytest.fixture(scope="module")
def measured(world: Path, tmp_path_factory: pytest.TempPathFactory, tiny_clip: Any) -> Evaluation:
    return evaluated(copy_of(world / "store", tmp_path_factory.mktemp("measured") / "store"), world)


def evaluated(store: Store, world: Path, **more: Any) -> Evaluation:
    return evaluate_runs([str(world / "run")], store, OPTIONS, Tools(), truth=str(world / "truth.csv"), **more)


def truth_of(world: Path, store: Store) -> np.ndarray:
    """Of each image of the store the number of its class, −1 where the table has none."""
    known = dict(line.split(",") for line in (world / "truth.csv").read_text().splitlines()[1:])
    paths = store.ok_images()["path"].to_pylist()
    return np.array([CLASSES.index(known[path]) if path in known else -1 for path in paths])


def test_clusters_are_matched_to_classes_over_the_images_that_have_one(
    world: Path, store: Store, measured: Evaluation
) -> None:
    truth, bundle = truth_of(world, store), load_bundle(world / "run")
    labels = store.labels(bundle.training["label_revision"])
    clusters, known = labels.active.argmax(axis=1), truth >= 0
    matched = measured.runs[0].matched
    assert matched is not None
    assert matched.images == known.sum() == store.ok - 1
    expected = adjusted_mutual_info_score(truth[known], clusters[known])
    assert matched.mutual_information == pytest.approx(expected, abs=1e-9)
    assert set(matched.pairs) == set(CLASSES)
    right = [labels.domains[c] == matched.pairs[CLASSES[t]] for t, c in zip(truth[known], clusters[known], strict=True)]
    assert matched.accuracy == pytest.approx(np.mean(right))
    assert measured.label_scores is None, "names of clusters are no truth's"


def test_figures_by_class_are_those_of_the_style_of_references_of_the_class(
    world: Path, store: Store, measured: Evaluation, tiny_clip: Any
) -> None:
    truth, nets = truth_of(world, store), load_bundle(world / "run").networks
    guide = next(each for each in measured.runs[0].guides if each.guide == "class")
    assert {each.domain for each in guide.domains} | set(guide.skipped) == set(CLASSES)
    rows, encode = draw(np.arange(store.ok), 9, 3, "sources"), ClipFeatures(tiny_clip)
    for figures in guide.domains:
        number = CLASSES.index(figures.domain)
        sources = rows[(truth[rows] >= 0) & (truth[rows] != number)]
        carriers = np.flatnonzero(truth == number)
        assert (figures.sources, figures.translations, figures.real) == (len(sources), 2 * len(sources), len(carriers))
        references = draw(carriers, REFERENCES, 3, f"references of the class {figures.domain}")
        chosen = generator_of(3, f"references of the class {figures.domain}").integers(0, len(references), (9, 2))
        made, seen = [], []
        with torch.no_grad():
            for place in np.flatnonzero(np.isin(rows, sources)):
                for style in range(2):
                    reference = read_rows(store, references[chosen[place, style]][None], 32)
                    code = target_style(nets.own_codes(to_float(reference)), torch.ones(1, 3))
                    made.append(to_uint8(nets.generator(to_float(read_rows(store, rows[place][None], 32)), code))[0])
                    seen.append(int(nets.guide.look(to_float(made[-1][None])).logits.argmax()))  # type: ignore[operator]
        real = torch.from_numpy(store.embeddings_of(carriers))
        expected = frechet_distance(moments(encode(np.stack(made))), moments(real))
        assert figures["frechet"].value == pytest.approx(expected, rel=1e-3, abs=1e-6)
        matched = measured.runs[0].matched
        assert matched is not None
        names = measured.runs[0].domains
        share = np.mean([names[cluster] == matched.pairs[figures.domain] for cluster in seen])
        assert figures["accuracy"].value == pytest.approx(share)
        assert figures.get("kept") is None, "an image has one cluster"
        assert figures.get("left_over") is None


def test_the_guiding_network_is_named_where_it_reads_labels(
    measured: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    show_result(measured, tables=False)
    assert "by the guiding network, which taught it" in " ".join(capsys.readouterr().out.split())
    (warning,) = (each for each in measured.warnings if "flatters" in each)
    assert "in the eyes of the guiding network that taught the generator" in warning


def test_what_was_measured_by_class_is_read_and_other_truth_is_measured_anew(
    world: Path, store: Store, measured: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluated(store, world)
    assert first.to_json()["runs"] == measured.to_json()["runs"]
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.evaluation.by_class._measure", lambda *rest: pytest.fail("measured again"))
        assert evaluated(store, world).to_json() == first.to_json()
    shutil.copy(world / "truth.csv", tmp_path / "truth.csv")
    table = (tmp_path / "truth.csv").read_text()
    (tmp_path / "truth.csv").write_text(table.replace("dog", "wolf"))
    again = evaluate_runs([str(world / "run")], store, OPTIONS, Tools(), truth=str(tmp_path / "truth.csv"))
    matched = again.runs[0].matched
    assert matched is not None
    assert set(matched.pairs) == {"cat", "wolf", "owl"}


def test_summary_json_tables_and_page_tell_the_matching(
    world: Path, store: Store, measured: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    matched = measured.runs[0].matched
    assert matched is not None
    page = evaluation_page(evaluated(store, world, with_examples=True))
    kept = read_json(world / "run" / RESULT_NAME)["runs"][0]
    assert kept["clusters"]["adjusted_mutual_information"] == pytest.approx(matched.mutual_information, abs=5e-4)
    assert kept["clusters"]["cluster_of"] == matched.pairs
    assert set(kept["guides"]) == {"reference", "class"}
    assert "Clusters and true classes" in page
    assert "By true class" in page
    show_result(measured, tables=True)
    text = " ".join(capsys.readouterr().out.split())
    assert f"clusters against the true classes of {matched.images} images: adjusted mutual information" in text
    assert "class styles: recognised in" in text
    assert "the cluster of each class" in text


def test_words_stand_beside_clusters_and_are_recognised_where_they_are_the_name_of_a_class(
    world: Path, store: Store, tmp_path: Path
) -> None:
    table = (world / "truth.csv").read_text().replace("owl", "hat")
    (tmp_path / "truth.csv").write_text(table)
    runs = [str(world / name) for name in ("run", "words")]
    clusters, words = evaluate_runs(runs, store, OPTIONS, Tools(), truth=str(tmp_path / "truth.csv")).runs
    assert clusters.matched is not None
    assert words.matched is None
    measured = [{each.domain: each for each in run.guides[-1].domains} for run in (clusters, words)]
    assert set(measured[0]) == set(measured[1]) == {"cat", "dog", "hat"}
    assert all(each.get("accuracy") is not None for each in measured[0].values())
    assert [name for name, each in measured[1].items() if each.get("accuracy") is not None] == ["hat"]
    assert [measured[0][name].real for name in CLASSES[:2]] == [measured[1][name].real for name in CLASSES[:2]]
    alone = evaluate_runs(runs[1:], store, OPTIONS, Tools(), truth=str(tmp_path / "truth.csv"))
    assert [guide.guide for guide in alone.runs[0].guides] == ["reference"]
    assert alone.label_scores is not None, "of words the labels are scored, as ever"


def test_a_model_that_learned_from_clusters_of_lanit_label_is_one_of_clusters(world: Path, store: Store) -> None:
    bundle = load_bundle(world / "words")
    assert not real_labels(store, bundle, None).of_clusters
    active = np.eye(3, dtype=bool)[np.arange(store.ok) % 3]
    margin = np.where(active, 0.1, -0.1)
    add_labels(store, active, margin, prompts=bundle.prompt_set, rule=Rule("clusters", 3, 0, K_MEANS))
    found = real_labels(store, bundle, None)
    assert found.of_clusters
    assert np.array_equal(found.active, active)


def test_a_class_without_a_cluster_is_never_recognised_and_images_of_two_classes_match_nothing() -> None:
    values = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [-1, -1, -1]], np.int8)
    truth = TrueClasses(CLASSES, values)
    clusters = np.array([[1, 0], [0, 1], [0, 1], [1, 0], [1, 0]], bool)
    found = truth.matched(clusters)
    assert found is not None
    assert found.images == 3
    assert found.cluster_of[0] == 0
    assert sorted(found.cluster_of[1:]) == [-1, 1]
    assert found.accuracy == pytest.approx(2 / 3)
    assert TrueClasses(CLASSES, values[3:]).matched(clusters[3:]) is None
