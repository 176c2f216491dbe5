"""Schedules are pure functions with the end points METHOD names, and seeds that no two steps share."""

from __future__ import annotations

from itertools import pairwise

import pytest

from lanit.schedules import diversity_weight, ema_decay, learns_prompts, r1_weight, step_seed


@pytest.mark.parametrize("steps", [1, 3, 130, 1000])
@pytest.mark.parametrize("initial", [0.5, 1.0])
def test_diversity_falls_by_equal_amounts_to_zero_and_stays_there(initial: float, steps: int) -> None:
    weights = [diversity_weight(initial, step, steps) for step in range(2 * steps + 2)]
    assert weights[0] == initial
    assert weights[steps:] == [0.0] * (steps + 2)
    falls = [before - after for before, after in pairwise(weights[: steps + 1])]
    assert falls == pytest.approx([initial / steps] * steps)


def test_no_diversity_where_it_decays_over_no_step() -> None:
    assert diversity_weight(1.0, 0, 0) == 0


@pytest.mark.parametrize(("steps", "start"), [(150_000, 0.66), (6, 0.5), (7, 0.5), (10, 0.0), (10, 1.0)])
def test_phase_2_is_the_last_share_of_the_steps(steps: int, start: float) -> None:
    learning = [learns_prompts(step, steps, start) for step in range(steps)]
    assert learning == sorted(learning), "once begun, phase 2 does not end"
    first = min((step for step in range(steps) if learning[step]), default=steps)
    assert first >= start * steps
    assert first - 1 < start * steps
    if (steps, start) == (150_000, 0.66):
        assert first == 99_000  # METHOD §5


@pytest.mark.parametrize("every", [1, 8, 16])
def test_lazy_r1_weighs_the_same_in_the_long_run(every: int) -> None:
    """METHOD (6): every r steps with weight × r."""
    weights = [r1_weight(0.7, step, every) for step in range(5 * every)]
    assert sum(weights) == pytest.approx(0.7 * len(weights))
    assert sum(weight > 0 for weight in weights) == 5
    assert weights[0] > 0


def test_r1_can_be_left_out() -> None:
    assert [r1_weight(1.0, step, 0) for step in range(3)] == [0, 0, 0]
    assert [r1_weight(0.0, step, 4) for step in range(3)] == [0, 0, 0]


def test_the_average_forgets_its_start_and_ends_at_its_decay() -> None:
    decays = [ema_decay(0.999, step) for step in range(20_000)]
    assert decays == sorted(decays)
    assert decays[-1] == 0.999
    remaining = 1.0  # share of the random start in the average
    for decay in decays[:100]:
        remaining *= decay
    assert remaining < 1e-6
    assert all(0 <= decay <= 0.999 for decay in decays)


def test_no_two_steps_share_a_seed() -> None:
    seeds = {step_seed(seed, step) for seed in range(40) for step in range(500)}
    assert len(seeds) == 40 * 500
    assert all(0 <= value < 2**63 for value in seeds), "torch and numpy both take them"
    assert step_seed(3, 17) == step_seed(3, 17)


def test_seeds_of_neighbouring_steps_are_unlike() -> None:
    """About half of their 63 bits differ."""
    differing = [(step_seed(0, step) ^ step_seed(0, step + 1)).bit_count() for step in range(400)]
    assert sum(differing) / len(differing) == pytest.approx(31.5, abs=1)
    assert min(differing) > 10
