"""Which images a step sees: by policy, evenly, and as a function of the random numbers alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lanit.errors import LanitError
from pipeline.training.sampling import LabelSampler

ACTIVE = np.array(
    [[1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]], bool
)  # the last domain has nobody
COUNT = 12_000


def share_of(rows: np.ndarray) -> np.ndarray:
    return np.bincount(rows, minlength=len(ACTIVE)) / len(rows)


@pytest.mark.parametrize(
    ("slack", "balance", "expected"),
    [
        ("domain", "uniform", [1 / 6] * 6),
        ("drop", "uniform", [1 / 4, 0, 1 / 4, 1 / 4, 0, 1 / 4]),
        # a group each: rows 0, 2, 3, 5; row 2; the rows without a label
        ("domain", "domain", [1 / 12, 1 / 6, 1 / 12 + 1 / 3, 1 / 12, 1 / 6, 1 / 12]),
        ("drop", "domain", [1 / 8, 0, 1 / 8 + 1 / 2, 1 / 8, 0, 1 / 8]),
    ],
)
def test_each_row_is_drawn_as_often_as_the_policy_says(slack: Any, balance: Any, expected: list[float]) -> None:
    drawn = LabelSampler(ACTIVE, slack, balance).draw(np.random.default_rng(0), COUNT)
    np.testing.assert_allclose(share_of(drawn), expected, atol=0.02)
    assert (share_of(drawn)[np.array(expected) == 0] == 0).all()


@pytest.mark.parametrize("balance", ["uniform", "domain"])
def test_draws_depend_on_the_generator_alone(balance: Any) -> None:
    draws = [LabelSampler(ACTIVE, "domain", balance).draw(np.random.default_rng(seed), 50) for seed in (3, 3, 4)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_fewer_than_two_images_are_refused() -> None:
    one = np.array([[True], [False], [False]])
    assert len(LabelSampler(one, "domain", "uniform").rows) == 3
    with pytest.raises(LanitError, match="only 1 images"):
        LabelSampler(one, "drop", "uniform")
