"""Scores of labels against truth are scikit-learn's on the same arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

import pipeline.store.label_revisions
from lanit.errors import LanitError
from pipeline.inspection.inspect_labels import inspect_labels, truth_of
from pipeline.inspection.scores import Scores, average_precision, score
from pipeline.labelling.known_labels import Truth
from pipeline.store.label_revisions import LabelRevision

DOMAINS = ("blond hair", "smiling", "eyeglasses")
Make = Callable[..., LabelRevision]
EXACT = 1e-6


def random_labels(make_revision: Make, seed: int, count: int) -> tuple[LabelRevision, np.ndarray]:
    """Margins with ties; truth with, at times, an empty and a full class."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=(count, 3)).round(1)
    actual = margin + rng.normal(size=margin.shape) > 0.3
    if seed % 2:
        actual[:, 1], actual[:, 2] = False, True
    return make_revision(margin), actual


def agree_with_scikit_learn(scores: Scores, predicted: np.ndarray, margin: np.ndarray, actual: np.ndarray) -> None:
    expected = metrics.precision_recall_fscore_support(actual, predicted, average=None, zero_division=0)
    for n, domain in enumerate(scores.domains):
        ours = (domain.precision, domain.recall, domain.f1, domain.count)
        assert ours == pytest.approx([figure[n] for figure in expected], abs=EXACT)
        if domain.count:
            reference = metrics.average_precision_score(actual[:, n], margin[:, n])
            assert domain.average_precision == pytest.approx(reference, abs=EXACT)
        else:
            assert domain.average_precision is None
    for average in ("micro", "macro"):
        ours = [getattr(scores, f"{average}_{name}") for name in ("precision", "recall", "f1")]
        reference = metrics.precision_recall_fscore_support(actual, predicted, average=average, zero_division=0)[:3]
        assert ours == pytest.approx(reference, abs=EXACT)
    if actual.any():
        reference = metrics.average_precision_score(actual.ravel(), margin.ravel())
        assert scores.micro_average_precision == pytest.approx(reference, abs=EXACT)
        held = actual.any(axis=0)
        reference = metrics.average_precision_score(actual[:, held], margin[:, held], average="macro")
        assert scores.mean_average_precision == pytest.approx(reference, abs=EXACT)
    assert scores.subset_accuracy == pytest.approx(metrics.accuracy_score(actual, predicted), abs=EXACT)


@pytest.mark.filterwarnings("ignore:No positive class")
@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 2), (2, 37), (3, 400), (4, 1000)])
def test_scores_equal_scikit_learn(seed: int, count: int, make_revision: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.store.label_revisions, "BLOCK_ROWS", 64)
    revision, actual = random_labels(make_revision, seed, count)
    scores = score(revision, Truth("path", tuple(revision.paths), DOMAINS, actual))
    agree_with_scikit_learn(scores, revision.active, revision.margin, actual)


def test_scores_of_the_sample_world_equal_scikit_learn(tmp_path: Path) -> None:
    from lanit.labels import Rule
    from pipeline.clip.models import load_clip
    from pipeline.embedding.embed import embed
    from pipeline.labelling.label import label
    from pipeline.prompts.prompt_sets import read_prompt_set
    from pipeline.sample_world.dataset import write_faces
    from pipeline.sample_world.faces import ATTRIBUTES, draw_faces
    from pipeline.store.store import Store

    clip = load_clip("sample")
    table = write_faces(tmp_path / "faces", 150, 77, 64)
    embed([tmp_path / "faces"], tmp_path / "store", clip)
    store = Store.open(tmp_path / "store")
    label(store, clip, read_prompt_set("sample-faces"), Rule())
    revision = store.labels()
    scores = inspect_labels(store.revision_file(), truth=truth_of(revision, str(table))).scores
    _, drawn = draw_faces(77, range(150), 16)
    number = [int("".join(filter(str.isdigit, Path(path).stem))) for path in revision.paths]
    actual = np.asarray(drawn)[number]
    assert revision.domains == ATTRIBUTES
    assert scores is not None
    assert scores.images == 150
    agree_with_scikit_learn(scores, revision.active, revision.margin, actual)
    assert scores.macro_f1 > 0.9


def test_the_best_offset_has_the_best_f1_of_all_thresholds(make_revision: Make) -> None:
    revision, actual = random_labels(make_revision, 4, 300)
    scores = score(revision, Truth("path", tuple(revision.paths), DOMAINS, actual))
    for n, domain in enumerate(scores.domains):
        margin = revision.margin[:, n]
        thresholds = [*np.unique(margin), margin.min() - 1]
        best = max(metrics.f1_score(actual[:, n], margin > threshold, zero_division=0) for threshold in thresholds)
        assert domain.best_f1 == pytest.approx(best)
        assert domain.best_offset is not None
        assert metrics.f1_score(actual[:, n], margin > domain.best_offset) == pytest.approx(best)


def test_an_offset_that_would_help_is_warned_of(make_revision: Make) -> None:
    actual = np.zeros((200, 3), bool)
    actual[:40] = True
    margin = np.where(actual, 0.3, 0.1) * np.array([1, -1, 1]) + np.random.default_rng(0).normal(0, 0.01, (200, 3))
    truth = Truth("path", tuple(f"folder/{row}.png" for row in range(200)), DOMAINS, actual)
    statistics = inspect_labels(make_revision(margin), truth=truth)
    (advice,) = [warning for warning in statistics.warnings if "'blond hair' has F1" in warning]
    offset = float(advice.rpartition("offset=")[2])
    moved = inspect_labels(make_revision(margin, margin > offset, offsets=(offset,) * 3), truth=truth)
    assert moved.scores is not None
    assert moved.scores.domains[0].f1 == 1
    assert not any("'blond hair' has F1" in warning for warning in moved.warnings)


def test_confusions_are_missed_and_labelled_another(make_revision: Make) -> None:
    actual = np.array([[1, 0, 0]] * 6 + [[0, 1, 0]] * 4, bool)
    predicted = np.array(
        [[0, 1, 0]] * 3 + [[0, 1, 1]] + [[1, 1, 0]] + [[0, 0, 0]] + [[0, 1, 0]] * 2 + [[1, 0, 0]] + [[1, 1, 0]], bool
    )
    revision = make_revision(predicted - 0.5)
    scores = score(revision, Truth("path", tuple(revision.paths), DOMAINS, actual))
    found = [(c.actual, c.predicted, c.count, c.share) for c in scores.confusions]
    assert found == [
        ("blond hair", "smiling", 4, 4 / 6),
        ("blond hair", "eyeglasses", 1, 1 / 6),
        ("smiling", "blond hair", 1, 1 / 4),
    ]


def test_average_precision_takes_ties_together() -> None:
    ranking, actual = np.array([1.0, 1.0, 1.0, 0.0]), np.array([False, True, True, False])
    assert average_precision(ranking, actual) == pytest.approx(2 / 3)
    assert average_precision(ranking, np.zeros(4, bool)) is None


def test_nothing_predicted_and_nothing_true_scores_zero(make_revision: Make) -> None:
    revision, nothing = make_revision(-np.ones((4, 3))), np.zeros((4, 3), bool)
    for domain in score(revision, Truth("path", tuple(revision.paths), DOMAINS, nothing)).domains:
        assert (domain.precision, domain.recall, domain.f1) == (0.0, 0.0, 0.0)


def test_scores_join_by_key_and_count_what_is_left_out(make_revision: Make) -> None:
    revision, actual = random_labels(make_revision, 6, 40)
    order = np.random.default_rng(9).permutation(40)[:30]
    keys = (*(revision.image_ids[row] for row in order), "elsewhere")
    labels = np.concatenate([actual[order], [[True, True, True]]])
    partial = score(revision, Truth("image_id", keys, DOMAINS, labels))
    assert (partial.images, partial.without_truth, partial.not_in_store) == (30, 10, 1)
    agree_with_scikit_learn(partial, revision.active[order], revision.margin[order], actual[order])
    two = score(revision, Truth("image_id", keys, (DOMAINS[2], DOMAINS[0]), labels[:, [2, 0]]))
    assert two.domains_without_truth == ("smiling",)
    assert [d.f1 for d in two.domains] == [partial.domains[0].f1, partial.domains[2].f1]
    with pytest.raises(LanitError, match="no path of the known labels"):
        score(revision, Truth("path", ("x.png",), DOMAINS, labels[:1]))
    with pytest.raises(LanitError, match="leaves some labels blank"):
        score(revision, Truth("image_id", keys, DOMAINS, labels, np.zeros_like(labels)))


def test_folders_are_truth_of_the_domains_named_after_them(make_revision: Make) -> None:
    paths = ["a/Smiling/1.png", "a/blond_hair/deep/2.png", "a/other/3.png", "4.png", "smiling/blond hair/5.png"]
    margin = np.array([[1, 1, 1], [1, -1, 1], [1, 1, 1], [1, 1, 1], [-1, 1, -1]])
    revision = make_revision(margin, paths=paths)
    scores = score(revision, truth_of(revision, "folders"))
    assert (scores.images, scores.without_truth, scores.not_in_store) == (3, 2, 0)
    assert scores.domains_without_truth == ("eyeglasses",)
    rows = [0, 1, 4]
    actual = np.array([[0, 1], [1, 0], [1, 1]], bool)
    agree_with_scikit_learn(scores, revision.active[rows][:, :2], revision.margin[rows][:, :2], actual)
