"""Clusters against classes, beside scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score

from lanit.matching import best_assignment, match


@pytest.mark.parametrize("shape", [(6, 6), (3, 7), (7, 3), (1, 4), (4, 1), (2, 2)])
def test_a_matching_is_the_best_there_is_one_to_one(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    for _ in range(30):
        counts = rng.integers(0, 9, shape)
        found = best_assignment(counts)
        rows = np.flatnonzero(found >= 0)
        assert len(rows) == min(shape)
        assert len(set(found[rows])) == len(rows)
        assert counts[rows, found[rows]].sum() == counts[linear_sum_assignment(-counts)].sum()


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_mutual_information_is_that_of_scikit_learn_and_accuracy_that_of_the_best_matching(noise: float) -> None:
    rng = np.random.default_rng(7)
    classes = rng.choice(5, 401, p=(0.5, 0.2, 0.15, 0.1, 0.05))
    clusters = np.where(rng.random(401) < noise, rng.integers(0, 6, 401), classes)
    clusters = np.array((3, 0, 5, 1, 4, 2))[clusters]  # under other numbers
    found = match(clusters, classes)
    assert found.mutual_information == pytest.approx(adjusted_mutual_info_score(classes, clusters), abs=1e-9)
    right = sum(int((clusters[classes == n] == found.cluster_of[n]).sum()) for n in range(5))
    assert found.accuracy == right / 401
    assert noise or found.accuracy == 1


def test_one_cluster_for_all_tells_nothing() -> None:
    classes = np.arange(30) % 3
    found = match(np.zeros(30, np.int64), classes)
    assert found.mutual_information == pytest.approx(0, abs=1e-9)
    assert found.accuracy == pytest.approx(1 / 3)
    assert sorted(found.cluster_of) == [-1, -1, 0]
