"""Percentiles without a sort are NumPy's, histograms are NumPy's, and blocks make no difference."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.inspection.margin_statistics import (
    BINS,
    DOMAINS_AT_ONCE,
    PERCENTILES,
    FirstPass,
    MarginPasses,
    SecondPass,
    spread_of,
)

KINDS = {
    "normal": lambda rng, shape: rng.normal(0.01, 0.03, shape),
    "ties": lambda rng, shape: rng.normal(0, 1, shape).round(1),
    "negative": lambda rng, shape: -np.exp(rng.normal(-5, 3, shape)),
    "positive": lambda rng, shape: np.exp(rng.normal(0, 8, shape)),
    "one value": lambda rng, shape: np.full(shape, -0.25),
    "zeros": lambda rng, shape: np.zeros(shape),
    "two values": lambda rng, shape: np.where(rng.random(shape) < 0.05, -1.0, 1.0),
    "an outlier": lambda rng, shape: np.where(rng.random(shape) < 0.01, 1e6, rng.normal(0, 1e-6, shape)),
}


def passes(margin: np.ndarray, size: int, offsets: list[float], epsilon: float) -> tuple[FirstPass, SecondPass]:
    first = FirstPass(margin.shape[1])
    for start in range(0, len(margin), size):
        first.add(margin[start : start + size])
    second = SecondPass(first, offsets, epsilon)
    for start in range(0, len(margin), size):
        second.add(margin[start : start + size])
    return first, second


@pytest.mark.parametrize("most_kept", [0, 1 << 16], ids=["counted", "kept"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 1), (21, 4), (1000, 1000), (1037, 100)])
def test_percentiles_are_numpys_for_any_values(
    kind: str, count: int, size: int, most_kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.inspection.margin_statistics._MOST_KEPT", most_kept)
    margin = KINDS[kind](np.random.default_rng(count), (count, 2)).astype(np.float32)
    first, second = passes(margin, size, [0, 0], 0.1)
    for n in range(2):
        expected = np.percentile(margin[:, n].astype(np.float64), PERCENTILES)
        assert second.percentiles(n) == pytest.approx(expected, rel=1e-12, abs=1e-300)
    np.testing.assert_allclose(first.mean(), margin.mean(axis=0, dtype=np.float64), rtol=1e-12, atol=1e-300)
    assert spread_of([first]) == pytest.approx(margin.std(dtype=np.float64), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_histograms_are_numpys_and_count_every_image(kind: str) -> None:
    margin = KINDS[kind](np.random.default_rng(3), (731, 3)).astype(np.float32)
    _, second = passes(margin, 100, [0] * 3, 0.1)
    edges = np.array(second.edges)
    assert BINS <= len(edges) - 1 <= BINS + 2 or kind in ("one value", "zeros")
    assert edges[0] <= margin.min()
    assert margin.max() < edges[-1]
    for n in range(3):
        np.testing.assert_array_equal(second.histograms[n], np.histogram(margin[:, n], edges)[0])
        assert second.histograms[n].sum() == 731


def test_zero_is_a_bound_and_no_bin_has_both_signs() -> None:
    margin = np.array([[-1e-30], [0.0], [1e-30], [-0.7], [1.9]], np.float32)
    _, second = passes(margin, 5, [0], 0.1)
    zero = second.edges.index(0)
    assert second.histograms[0][:zero].sum() == 2
    assert second.histograms[0][zero:].sum() == 3


def test_ambiguous_is_counted_around_the_offset() -> None:
    margin = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    _, second = passes(margin, 60, [0.0, 0.5], 0.25)
    expected = [(np.abs(margin[:, n].astype(float) - offset) < 0.25).sum() for n, offset in enumerate((0.0, 0.5))]
    assert second.ambiguous.tolist() == expected


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read again"])
def test_many_domains_are_taken_some_at_a_time_with_the_same_result(
    kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = 2 * DOMAINS_AT_ONCE + 3
    margin = np.random.default_rng(1).normal(size=(40, domains)).astype(np.float32)
    margin[:, -1] *= 9  # the ends of the bins are those of the last domains
    if not kept:
        monkeypatch.setattr("pipeline.inspection.margin_statistics._KEPT_BYTES", 0)
    blocks = [margin[:25], margin[25:]]
    passes = MarginPasses(40, domains, lambda: blocks)
    for block in blocks:
        passes.add(block)
    found = passes.finish([0.0] * domains, None, 0.5)
    exact = margin.astype(np.float64)
    assert found.epsilon == pytest.approx(0.5 * exact.std())
    np.testing.assert_allclose(found.mean, exact.mean(axis=0))
    np.testing.assert_allclose(found.percentiles, np.percentile(exact, PERCENTILES, axis=0).T)
    assert found.ambiguous.tolist() == (np.abs(exact) < found.epsilon).sum(axis=0).tolist()
    for n in (0, DOMAINS_AT_ONCE, domains - 1):
        np.testing.assert_array_equal(found.histograms[n], np.histogram(margin[:, n], found.edges)[0])
