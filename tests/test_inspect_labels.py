"""Statistics and scores of a label revision, against scikit-learn and by counting."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from lanit.errors import LanitError, UsageError
from pipeline.inspect_labels import Truth, average_precision, inspect_labels, precision_recall_f1, read_truth, score
from pipeline.prompt_sets import PromptSet
from pipeline.store import LabelRevision

DOMAINS = ("blond hair", "smiling", "eyeglasses")


def _revision(active: np.ndarray, margin: np.ndarray, domains: tuple[str, ...] = DOMAINS) -> LabelRevision:
    count = len(active)
    return LabelRevision(
        number=3,
        parent=None,
        origin="label",
        rule={"kind": "adaptive", "value": 0.0},
        prompt_set=PromptSet(domains, ("a {}.",), ("a.",), "test"),
        active=active,
        margin=margin.astype(np.float32),
        similarity_base=np.zeros(count, np.float32),
        image_ids=np.array([f"id{row}" for row in range(count)], dtype=object),
        paths=np.array([f"folder/{row}.png" for row in range(count)], dtype=object),
    )


def _random(seed: int, count: int) -> tuple[LabelRevision, np.ndarray]:
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=(count, 3)).round(1)  # rounded, so that there are ties
    actual = margin + rng.normal(size=margin.shape) > 0.3
    return _revision(margin > 0, margin), actual


@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 2), (2, 37), (3, 400)])
def test_scores_equal_scikit_learn(seed: int, count: int) -> None:
    revision, actual = _random(seed, count)
    scores = score(revision, Truth("path", tuple(revision.paths), DOMAINS, actual))
    predicted = revision.active
    expected = metrics.precision_recall_fscore_support(actual, predicted, average=None, zero_division=0)
    for position, domain in enumerate(scores.domains):
        assert domain.precision == pytest.approx(expected[0][position])
        assert domain.recall == pytest.approx(expected[1][position])
        assert domain.f1 == pytest.approx(expected[2][position])
        assert domain.count == expected[3][position]
        if domain.count:
            reference = metrics.average_precision_score(actual[:, position], revision.margin[:, position])
            assert domain.average_precision == pytest.approx(reference)
        else:
            assert domain.average_precision is None
    assert scores.micro_f1 == pytest.approx(metrics.f1_score(actual, predicted, average="micro", zero_division=0))
    assert scores.macro_f1 == pytest.approx(metrics.f1_score(actual, predicted, average="macro", zero_division=0))
    assert scores.subset_accuracy == pytest.approx(metrics.accuracy_score(actual, predicted))


def test_average_precision_takes_ties_together() -> None:
    ranking, actual = np.array([1.0, 1.0, 1.0, 0.0]), np.array([False, True, True, False])
    assert average_precision(ranking, actual) == pytest.approx(2 / 3)
    assert average_precision(ranking, np.zeros(4, bool)) is None


def test_nothing_predicted_and_nothing_true_scores_zero() -> None:
    nothing = np.zeros(4, bool)
    assert precision_recall_f1(nothing, nothing) == (0.0, 0.0, 0.0)


def test_statistics_by_counting() -> None:
    margin = np.array([[0.2, -0.1, -0.3], [0.1, 0.4, -0.3], [-0.02, -0.2, -0.3], [0.3, 0.01, -0.3]])
    statistics = inspect_labels(_revision(margin > 0, margin), epsilon=0.05)
    first, second, third = statistics.domains
    assert (first.count, first.share, first.ambiguous_share) == (3, 0.75, 0.25)
    assert first.mean_margin == pytest.approx(0.145)
    assert first.mean_margin_labelled == pytest.approx(0.2)
    assert (second.count, second.ambiguous_share) == (2, 0.25)
    assert (third.count, third.mean_margin_labelled) == (0, None)
    assert (statistics.coverage, statistics.slack_share, statistics.labels_per_image) == (0.75, 0.25, 1.25)
    assert statistics.label_counts == (1, 1, 2)
    assert sum(statistics.label_counts) == statistics.images == 4
    assert json.loads(json.dumps(statistics.to_json(), allow_nan=False))["epsilon"] == 0.05


def test_default_epsilon_follows_the_spread_of_margins() -> None:
    margin = np.random.default_rng(0).normal(size=(500, 3))
    small, large = (inspect_labels(_revision(margin > 0, margin * scale)) for scale in (0.01, 1))
    assert large.epsilon == pytest.approx(0.1 * margin.std(), rel=1e-5)
    for ours, theirs in zip(small.domains, large.domains, strict=True):
        assert ours.ambiguous_share == pytest.approx(theirs.ambiguous_share, abs=0.005)
        assert 0.04 < theirs.ambiguous_share < 0.13
    with pytest.raises(UsageError):
        inspect_labels(_revision(margin > 0, margin), epsilon=-1.0)


def test_warnings_name_prompts_that_never_or_always_fire_and_low_coverage() -> None:
    active = np.zeros((100, 3), bool)
    active[:96, 1] = True
    active[:30, 0] = True
    warnings = inspect_labels(_revision(active, active - 0.5)).warnings
    assert len(warnings) == 2
    assert "'eyeglasses' labels no image" in warnings[0]
    assert "'smiling' labels 96.0 %" in warnings[1]
    active[:, 1] = False
    warnings = inspect_labels(_revision(active, active - 0.5)).warnings
    assert "only 30.0 % of the images" in warnings[-1]


def test_scores_join_by_key_and_count_what_is_left_out() -> None:
    revision, actual = _random(5, 40)
    order = np.random.default_rng(9).permutation(40)[:30]
    keys = (*(revision.image_ids[row] for row in order), "elsewhere")
    labels = np.concatenate([actual[order], [[True, True, True]]])
    partial = score(revision, Truth("image_id", keys, DOMAINS, labels))
    assert (partial.images, partial.without_truth, partial.not_in_store) == (30, 10, 1)
    expected = metrics.f1_score(actual[order], revision.active[order], average="macro", zero_division=0)
    assert partial.macro_f1 == pytest.approx(expected)
    two = score(revision, Truth("image_id", keys, (DOMAINS[2], DOMAINS[0]), labels[:, [2, 0]]))
    assert two.domains_without_truth == ("smiling",)
    assert [d.f1 for d in two.domains] == [partial.domains[0].f1, partial.domains[2].f1]
    with pytest.raises(LanitError, match="no path of the truth"):
        score(revision, Truth("path", ("x.png",), DOMAINS, labels[:1]))


def test_truth_reads_csv_and_parquet_alike(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["a b/é.png", "2.png"], "Blond_Hair": [1, 0], "smiling ": [0, 1], "note": ["x", "y"]})
    frame.to_csv(tmp_path / "truth.csv", index=False)
    frame.assign(Blond_Hair=[True, False]).to_parquet(tmp_path / "truth.parquet")
    ours = read_truth(tmp_path / "truth.csv", DOMAINS)
    theirs = read_truth(tmp_path / "truth.parquet", DOMAINS)
    assert ours.key == theirs.key == "path"
    assert ours.keys == theirs.keys == ("a b/é.png", "2.png")
    assert ours.domains == theirs.domains == ("blond hair", "smiling")
    assert ours.labels.tolist() == theirs.labels.tolist() == [[True, False], [False, True]]


BAD_TRUTH = {
    "no key": ("file,smiling\na.png,1\n", "no column 'path'"),
    "no domain": ("path,hat\na.png,1\n", "no column for any"),
    "no rows": ("path,smiling\n", "no rows"),
    "two rows": ("path,smiling\na.png,1\nb.png,0\na.png,0\n", "2 rows for 'a.png'"),
    "not binary": ("path,smiling\na.png,1\nb.png,maybe\n", "has 'maybe' in row 2"),
    "blank": ("path,smiling\na.png,\n", "has '' in row 1"),
    "ragged": ("path,smiling\na.png,1,1,1\nb.png,0\nc,d,e,f,g,h\n", "cannot read"),
}


@pytest.mark.parametrize("mistake", BAD_TRUTH)
def test_bad_truth_is_one_line(mistake: str, tmp_path: Path) -> None:
    text, expected = BAD_TRUTH[mistake]
    path = tmp_path / "truth.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LanitError) as caught:
        read_truth(path, DOMAINS)
    assert expected in caught.value.message
    assert caught.value.hint


def test_missing_and_damaged_truth(tmp_path: Path) -> None:
    with pytest.raises(LanitError, match="no file of truth"):
        read_truth(tmp_path / "none.csv", DOMAINS)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(LanitError, match="cannot read"):
        read_truth(tmp_path / "bad.parquet", DOMAINS)
