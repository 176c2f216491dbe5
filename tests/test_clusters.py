"""``lanit label --clusters``: one label for each image, that of its group, and groups named by words (METHOD §7)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import cli
import pipeline.labelling.cluster_labels as cluster_labels
import pipeline.labelling.label_decisions
import pipeline.stability.crops
from lanit.errors import LanitError, UsageError
from lanit.labels import Rule, decide
from lanit.linear_head import LinearHead
from pipeline.embedding.embed import embed
from pipeline.inspection.inspect_labels import inspect_labels
from pipeline.labelling.cluster_labels import find_clusters, name_each
from pipeline.labelling.known_labels import Truth
from pipeline.labelling.label import HowToLabel, label, relabel
from pipeline.labelling.label_sources import LabelRequest
from pipeline.prompts.embed_prompts import embed_prompts, with_texts
from pipeline.prompts.prompt_sets import PromptSet, ensemble
from pipeline.stability.views import Views
from pipeline.store.store import Store
from pipeline.words.kmeans import cluster_centres
from pipeline.words.vocabulary import Vocabulary

WORDS = ("red", "large green", "blue noise", "walk", "walking", "hat", "stripes", "old house")
VOCABULARY = Vocabulary("test", WORDS)


def groups(sizes: tuple[int, ...], width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in groups far from each other, shuffled: float32 (n×k), and the group of each, int (n)."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(width, len(sizes))))[0].T
    of = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    drawn = centres[of] + 0.05 * rng.normal(size=(len(of), width))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32), of


def with_model_of(store: Store, clip: Any) -> Store:
    """``store`` as if ``clip`` had filled it."""
    return Store(store.root, dataclasses.replace(store.manifest, fingerprint=clip.fingerprint))


@pytest.fixture
def store(make_store: Callable[..., Store], tiny_clip: Any) -> Store:
    """Forty images in three groups of 21, 12 and 7."""
    return with_model_of(make_store(groups((12, 21, 7), tiny_clip.embedding_dim)[0], part_rows=9), tiny_clip)


def test_clusters_are_the_groups_that_were_drawn_largest_first(store: Store, tiny_clip: Any) -> None:
    found = find_clusters(store, tiny_clip, 3, VOCABULARY)
    revision = store.labels(label(store, tiny_clip, found.prompts, HowToLabel(found.rule, head=found.head)).revision)
    truth = groups((12, 21, 7), tiny_clip.embedding_dim)[1]
    assert (revision.active == np.stack([truth == 1, truth == 0, truth == 2], axis=1)).all()
    assert found.fitted == 40
    np.testing.assert_allclose(np.linalg.norm(found.head.weights, axis=1), 1, rtol=1e-6)


def test_clusters_by_mutual_information_are_revisions_like_those_of_k_means(
    store: Store, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, embeddings = np.random.default_rng(1), store.embeddings()
    crops = np.stack([embeddings + 0.02 * rng.normal(size=embeddings.shape) for _ in range(2)])
    crops /= np.linalg.norm(crops, axis=2, keepdims=True)
    monkeypatch.setattr(
        pipeline.stability.crops, "make_views", lambda *rest: Views(crops.astype(np.float32), "made up")
    )
    found = find_clusters(store, tiny_clip, 3, VOCABULARY, by="mutual-information")
    assert found.rule == Rule("clusters", 3, 0, "mutual-information")
    revision = store.labels(label(store, tiny_clip, found.prompts, HowToLabel(found.rule, head=found.head)).revision)
    truth = groups((12, 21, 7), tiny_clip.embedding_dim)[1]
    assert (revision.active == np.stack([truth == 1, truth == 0, truth == 2], axis=1)).all()
    assert revision.rule == found.rule
    plain = find_clusters(store, tiny_clip, 3, VOCABULARY)
    assert found.prompts.domains == plain.prompts.domains, "the same groups have the same names"
    assert label(store, tiny_clip, plain.prompts, HowToLabel(plain.rule, head=plain.head)).created


@pytest.mark.parametrize("words", ["red --by k-means", "--clusters 3 --by magic"])
def test_how_clusters_are_found_goes_with_clusters_and_is_one_of_two(words: str, tmp_path: Path) -> None:
    refused = CliRunner().invoke(cli.app, ["label", *words.split(), "--store", str(tmp_path)])
    assert refused.exit_code == 2


def test_a_cluster_is_named_by_the_word_that_sets_it_apart_most(store: Store, tiny_clip: Any) -> None:
    """By hand: over all templates, the best pair of centre and word, then the best of what is left."""
    found = find_clusters(store, tiny_clip, 3, VOCABULARY, noun="room")
    assert found.prompts.templates == ensemble("room")
    embedded = embed_prompts(tiny_clip, found.prompts.about(WORDS))
    embeddings = store.embeddings().astype(np.float64)
    left = {
        (n, word): float((centre - embeddings.mean(axis=0)) @ (text - embedded.base.double().numpy()))
        for n, centre in enumerate(found.head.weights.astype(float))
        for word, text in zip(WORDS, embedded.domains.double().numpy(), strict=True)
    }
    names: dict[int, str] = {}
    while left:
        cluster, word = max(left, key=lambda pair: left[pair])
        names[cluster] = word
        taken = {word} | ({"walk", "walking"} if word.startswith("walk") else set())
        left = {pair: value for pair, value in left.items() if pair[0] != cluster and pair[1] not in taken}
    assert found.prompts.domains == tuple(names[n] for n in range(3))


def test_names_are_unique_and_forms_of_one_word_come_last() -> None:
    values = np.array([[0.9, 0.8, 0.1], [0.7, 0.6, 0.5]])
    assert name_each(values, ["smile", "smiling", "hat"]) == [0, 2], "not 'smiling' beside 'smile'"
    assert name_each(values, ["smile", "beard", "hat"]) == [0, 1]
    assert sorted(name_each(values[:, :2], ["smile", "smiling"])) == [0, 1], "nothing else is left"
    assert name_each(np.array([[0.9, 0.2], [1.0, 0.3]]), ["hat", "red"]) == [1, 0], "the closer one first"


def test_the_same_again_is_the_same_and_another_seed_says_so(store: Store, tiny_clip: Any) -> None:
    def made(seed: int) -> Any:
        found = find_clusters(store, tiny_clip, 3, VOCABULARY, seed=seed)
        return found, label(store, tiny_clip, found.prompts, HowToLabel(found.rule, head=found.head))

    (first, report), (again, second) = made(0), made(0)
    assert np.array_equal(first.head.weights, again.head.weights)
    assert (report.created, second.created) == (True, False)
    _, third = made(1)
    assert third.created
    assert store.labels(third.revision).rule == Rule("clusters", 3, 1)


def test_the_revision_is_like_any_other(store: Store, tiny_clip: Any) -> None:
    """One label each, margins of the names, a rule that reads back, statistics, and labels by people on top."""
    found = find_clusters(store, tiny_clip, 3, VOCABULARY)
    paths = tuple(store.ok_images()["path"].to_pylist()[:2])
    given = Truth("path", paths, found.prompts.domains, np.array([[True] * 3, [False] * 3]))
    plain = store.labels(label(store, tiny_clip, found.prompts, HowToLabel(found.rule, head=found.head)).revision)
    merged = store.labels(
        label(store, tiny_clip, found.prompts, HowToLabel(found.rule, answers=given, head=found.head)).revision
    )
    assert (plain.active.sum(axis=1) == 1).all()
    embedded = embed_prompts(tiny_clip, found.prompts)
    np.testing.assert_allclose(
        plain.margin, store.embeddings() @ (embedded.domains - embedded.base).numpy().T, atol=1e-5
    )
    assert merged.active[:2].tolist() == [[True] * 3, [False] * 3]
    np.testing.assert_array_equal(merged.active[2:], plain.active[2:])
    assert plain.rule == found.rule
    statistics = inspect_labels(store.revision_file(1))
    assert [domain.count for domain in statistics.domains] == [21, 12, 7]
    assert statistics.coverage == 1


def test_no_word_of_the_templates_of_names_is_warned_of(store: Store, tiny_clip: Any) -> None:
    """They are ours, and decide no label; in prompts, where they do, they are warned of."""
    words = frozenset(word for phrase in WORDS for word in phrase.split())
    clip = dataclasses.replace(tiny_clip, vocabulary=words)
    found = find_clusters(store, clip, 3, VOCABULARY)
    assert label(store, clip, found.prompts, HowToLabel(found.rule, head=found.head)).unknown_words == ()
    assert "photo" in label(store, clip, found.prompts, Rule()).unknown_words


def test_labels_of_clusters_stay_where_training_moves_the_prompts(store: Store, tiny_clip: Any) -> None:
    found = find_clusters(store, tiny_clip, 3, VOCABULARY)
    paths = tuple(store.ok_images()["path"].to_pylist()[:1])
    given = Truth("path", paths, found.prompts.domains, np.array([[True] * 3]))
    number = label(store, tiny_clip, found.prompts, HowToLabel(found.rule, answers=given, head=found.head)).revision
    before = store.labels(number)
    moved = torch.nn.functional.normalize(torch.randn(4, 24, generator=torch.Generator().manual_seed(0)))
    after = store.labels(relabel(store, before, with_texts(found.prompts, moved[:3], moved[3]), "train:run step 3"))
    np.testing.assert_array_equal(after.active, before.active)
    np.testing.assert_array_equal(after.human, before.human)
    np.testing.assert_allclose(after.margin, store.embeddings() @ (moved[:3] - moved[3]).numpy().T, atol=1e-5)
    assert after.rule == before.rule


def test_a_sample_is_fitted_and_every_image_is_labelled(
    store: Store, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find_clusters(store, tiny_clip, 3, VOCABULARY)
    monkeypatch.setattr(cluster_labels, "MOST_FITTED", 19)
    monkeypatch.setattr(pipeline.labelling.label_decisions, "_ROWS", 4)
    fitted: list[int] = []

    def spy(embeddings: np.ndarray, count: int, seed: int) -> np.ndarray:
        fitted.append(len(embeddings))
        return cluster_centres(embeddings, count, seed)

    monkeypatch.setattr(cluster_labels, "cluster_centres", spy)
    some = find_clusters(store, tiny_clip, 3, VOCABULARY)
    assert fitted == [19] == [some.fitted]
    first, second = (
        store.labels(label(store, tiny_clip, each.prompts, HowToLabel(each.rule, head=each.head)).revision)
        for each in (whole, some)
    )
    assert second.rows == 40
    groups_of = [{frozenset(np.flatnonzero(column).tolist()) for column in each.active.T} for each in (first, second)]
    assert groups_of[0] == groups_of[1], "groups this far apart are found in any sample"


def test_the_nearest_centre_is_a_loop_over_centres() -> None:
    random = torch.Generator().manual_seed(0)
    images, centres = (
        torch.nn.functional.normalize(torch.randn(rows, 7, generator=random, dtype=torch.float64)) for rows in (23, 5)
    )
    expected = [min(range(5), key=lambda n: (image - centres[n]).square().sum()) for image in images]
    found = LinearHead(centres, centres.new_zeros(5), one_hot=True).labels(images)
    assert found.dtype == torch.bool
    assert found.sum(dim=1).tolist() == [1] * 23
    assert found.float().argmax(dim=1).tolist() == expected
    twice = LinearHead(centres[[0, 0]], centres.new_zeros(2), one_hot=True)
    assert twice.labels(images)[:, 0].all(), "of equal centres the first"


def test_what_cannot_be_clustered_is_refused_in_one_line(
    store: Store, make_store: Callable[..., Store], tiny_clip: Any
) -> None:
    with pytest.raises(LanitError, match="40 images with an embedding, too few for 41 clusters"):
        find_clusters(store, tiny_clip, 41, VOCABULARY)
    with pytest.raises(LanitError, match="has 8 words that this CLIP knows, too few to name 9 clusters"):
        find_clusters(store, tiny_clip, 9, VOCABULARY)
    same = with_model_of(make_store(np.repeat(np.eye(24, dtype=np.float32)[:2], 6, axis=0), "same"), tiny_clip)
    with pytest.raises(LanitError, match="fall into 2 clusters, not 4") as caught:
        find_clusters(same, tiny_clip, 4, VOCABULARY)
    assert caught.value.hint == "Try --clusters 2."
    with pytest.raises(LanitError, match="not of"):
        find_clusters(make_store(np.eye(24, dtype=np.float32), "other"), tiny_clip, 3, VOCABULARY)
    with pytest.raises(UsageError, match="at least 2"):
        Rule("clusters", 1)
    with pytest.raises(LanitError, match="found in embeddings, not in margins"):
        decide(Rule("clusters", 2), torch.zeros(3, 2), torch.zeros(3))


def test_options_that_contradict_clusters_are_refused(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    one = "one of --prompts, --from-folders, --from-table and --clusters"
    for message, request in (
        (one, LabelRequest(prompts="p", clusters=3)),
        (one, LabelRequest(from_folders=True, clusters=3)),
        ("--rule does not go", LabelRequest(rule="adaptive", clusters=3)),
        ("--words are the names of --clusters", LabelRequest(prompts="p", words=words)),
    ):
        with pytest.raises(UsageError, match=message):
            request.check()
    LabelRequest(labels="labels.csv", clusters=3, words=words).check()


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(each) for each in arguments])


def test_the_command_clusters_reports_and_merges(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    embed([make_images(9)], tmp_path / "manifests", tiny_clip)
    (tmp_path / "words.txt").write_text("\n".join(WORDS), encoding="utf-8")
    done = run("label", "--clusters", 3, "--words", "words.txt", "--noun", "picture", "--seed", 4)
    assert done.exit_code == 0, done.output
    assert "3 clusters, seed 4" in " ".join(done.stdout.split())
    store = Store.open(Path("manifests"))
    revision = store.labels()
    assert revision.rule == Rule("clusters", 3, 4)
    assert set(revision.domains) < set(WORDS)
    assert revision.prompt_set.name == "clusters-3"
    report = json.loads(run("inspect-labels", "--json").stdout)
    assert report["labels_per_image"] == 1
    assert sum(domain["count"] for domain in report["domains"]) == 9
    name = revision.domains[0]
    (tmp_path / "labels.csv").write_text(f"path,{name}\nb/000.png,1\na/001.png,0\n", encoding="utf-8")
    again = ("--clusters", 3, "--words", "words.txt", "--noun", "picture", "--seed", 4)
    merged = run("label", *again, "--labels", "labels.csv")
    assert merged.exit_code == 0, merged.output
    assert "2 labels are people's" in merged.stdout
    for arguments in (["--clusters", 3, "--prompts", "p.txt"], ["--clusters", 3, "--rule", "top-2"], ["--clusters", 1]):
        refused = run("label", *arguments)
        assert refused.exit_code == 2, refused.output
        assert len(refused.stderr.strip().splitlines()) == 1
    unsuited = run("inspect-labels", "--augment", 3)
    assert unsuited.exit_code == 1
    assert "does not come from words" in unsuited.stderr


def test_prompt_sets_of_other_phrases_keep_their_sentences() -> None:
    prompts = PromptSet(("a",), ("x {}", "y {}"), ("x", "y"), "name", (0.1,), (2.0,))
    assert prompts.about(["b", "c"]) == PromptSet(("b", "c"), ("x {}", "y {}"), ("x", "y"), "name")
    assert prompts.first_template().templates == ("x {}",)
