"""What answers tell: a random sample that needs no record, intervals that cover the truth, a better offset."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from pipeline.review.estimates import LEAST_SAMPLE, estimate
from pipeline.review.figures import fit_curve, suggest_offset
from pipeline.review.samples import SHARES, next_of_sample, random_keys, sample_of, strata_of


def world(seed: int, count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Truth and margins: of 4 % to 50 % of the images, more or less apart."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < rng.uniform(0.04, 0.5)
    margins = rng.normal(size=count) + rng.uniform(0.8, 2.5) * truth
    return truth, margins.astype(np.float32)


def reviewed(truth: np.ndarray, margins: np.ndarray, labelled: np.ndarray, answers: int, seed: int,
             near: int = 0) -> np.ndarray:  # fmt: skip
    """What a person says who first goes through ``near`` images at the threshold, then through the random queue."""
    said = np.full(len(truth), -1, np.int8)
    if near:
        close = np.argsort(np.abs(margins - margins[labelled].min()))[:near]
        said[close] = truth[close]
    keys, strata = np.random.default_rng(seed).permutation(len(truth)).astype(np.uint64), strata_of(margins)
    for _ in range(answers // 20):
        rows = next_of_sample(keys, sample_of(keys, strata, said), said, labelled, 20)
        said[rows] = truth[rows]
    return said


def test_strata_are_shares_of_the_largest_margins() -> None:
    margins = np.random.default_rng(0).permutation(2000).astype(np.float32)
    strata = strata_of(margins)
    sizes = np.bincount(strata, minlength=len(SHARES))
    assert np.abs(np.cumsum(sizes) / 2000 - SHARES).max() <= 0.001
    assert all(margins[strata == n].min() > margins[strata == n + 1].max() for n in range(len(SHARES) - 1))
    assert set(strata_of(np.zeros(50, np.float32)).tolist()) == {0}, "equal margins are one stratum"


def test_an_answer_counts_for_the_sample_from_the_first_on_that_nobody_skipped() -> None:
    keys = np.array([30, 10, 20, 40], np.uint64)
    strata = np.zeros(4, np.int8)
    assert sample_of(keys, strata, np.array([1, 0, -1, 1], np.int8)).taken.tolist() == [False, True, False, False]
    assert sample_of(keys, strata, np.array([1, 0, 1, -1], np.int8)).taken.tolist() == [True, True, True, False]
    assert sample_of(keys, strata, np.array([1, -1, 1, 1], np.int8)).size == 0


def test_random_numbers_depend_on_the_id_alone_and_are_even() -> None:
    ids = [f"{n:016x}" for n in range(5000)]
    keys = random_keys(pa.chunked_array([ids[:7], ids[7:]], pa.string()))
    assert keys[:10].tolist() == random_keys(pa.chunked_array([ids[:10]], pa.string())).tolist()
    assert len(set(keys.tolist())) == 5000
    counts = np.bincount((keys >> np.uint64(60)).astype(int), minlength=16)
    assert ((counts - 5000 / 16) ** 2 / (5000 / 16)).sum() < 40, "chi-squared of 15 degrees of freedom"


def test_below_a_few_answers_of_the_sample_nothing_is_estimated() -> None:
    truth, margins = world(0)
    labelled = margins > 1
    near = reviewed(truth, margins, labelled, 0, 0, near=200)
    keys = np.random.default_rng(0).permutation(len(truth)).astype(np.uint64)
    sample = sample_of(keys, strata_of(margins), near)
    assert sample.size < LEAST_SAMPLE
    assert estimate(sample, near, labelled) is None


@pytest.mark.slow
def test_the_intervals_cover_the_truth_in_nine_of_ten_of_200_reviews() -> None:
    """Of precision, recall and F1, whatever else was answered before; a stop after 60 answers or after 140."""
    covered = []
    for seed in range(200):
        truth, margins = world(seed)
        labelled = margins > np.quantile(margins, 1 - truth.mean() * (0.6 + seed % 5 / 4))
        said = reviewed(truth, margins, labelled, (60, 140)[seed % 2], seed, near=(0, 100)[seed // 2 % 2])
        keys = np.random.default_rng(seed).permutation(len(truth)).astype(np.uint64)
        found = estimate(sample_of(keys, strata_of(margins), said), said, labelled)
        assert found is not None
        true = [score(truth, labelled) for score in (precision_score, recall_score, f1_score)]
        figures = (found.precision, found.recall, found.f1)
        covered.append([each.low <= value <= each.high for each, value in zip(figures, true, strict=True)])
    shares = np.mean(covered, axis=0)
    print(f"covered: precision {shares[0]:.3f}, recall {shares[1]:.3f}, F1 {shares[2]:.3f}")
    assert (shares >= 0.9).all()


def test_the_curve_is_that_of_a_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    truth, margins = world(3)
    curve = fit_curve(margins, truth)
    other = LogisticRegression(C=1e6).fit(margins[:, None].astype(float), truth)
    assert curve is not None
    assert np.abs(curve.of(margins) - other.predict_proba(margins[:, None].astype(float))[:, 1]).max() < 2e-3


def test_too_few_answers_and_answers_against_the_margin_suggest_nothing() -> None:
    truth, margins = world(1)
    said = np.full(len(truth), -1, np.int8)
    said[:8] = [1, 1, 1, 1, 0, 0, 0, 0]
    assert suggest_offset(margins, np.argsort(-margins, kind="stable"), said) is None
    said[:] = margins < 0
    assert suggest_offset(margins, np.argsort(-margins, kind="stable"), said) is None


def test_the_offset_that_answers_at_a_wrong_threshold_suggest_is_better_over_all_images() -> None:
    """The answers are those of the images nearest to the wrong one, which are no sample of all."""
    gains = []
    for seed in range(6):
        truth, margins = world(seed)
        wrong = float(np.quantile(margins, 1 - 2.5 * truth.mean() if truth.mean() < 0.3 else 0.2))
        said = np.full(len(truth), -1, np.int8)
        close = np.argsort(np.abs(margins - wrong))[:400]
        said[close] = truth[close]
        found = suggest_offset(margins, np.argsort(-margins, kind="stable"), said)
        assert found is not None
        best = max(f1_score(truth, margins > t) for t in np.quantile(margins, np.linspace(0.02, 0.98, 49)))
        before, after = f1_score(truth, margins > wrong), f1_score(truth, margins > found[0])
        assert after > before - 0.01
        gains.append((after - before, best - before))
    won, possible = np.sum(gains, axis=0)
    assert won > possible / 2
