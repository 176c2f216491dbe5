"""Charts as SVG: every value lands where its axis says, whatever the lengths and ranges."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from pipeline.showing.line_charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Series,
    line_chart,
    thinned,
    ticks,
)


def paths(svg: str) -> list[list[tuple[float, float]]]:
    curves = re.findall(r'<path class="curve curve-\d" d="M([^"]+)"', svg)
    return [[tuple(map(float, point.split())) for point in curve.split("L")] for curve in curves]  # type: ignore[misc]


def test_points_lie_on_their_axes() -> None:
    chart = Chart("t", (Series("a", [0, 50, 100], [0.0, 0.25, 1.0]), Series("b", [0, 100], [1.0, 0.5])), y_range=(0, 1))
    first, second = paths(line_chart(chart))
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    assert first == [(LEFT, bottom), ((LEFT + right) / 2, bottom - (bottom - TOP) / 4), (right, TOP)]
    assert second == [(LEFT, TOP), (right, (TOP + bottom) / 2)]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.037), (-3, 12), (0, 1243), (10, 50_000), (0.2, 0.21)])
def test_ticks_are_few_even_and_within(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 9
    assert low - 1e-9 <= found[0] <= found[-1] <= high * (1 + 1e-9)
    steps = [b - a for a, b in pairwise(found)]
    assert steps == pytest.approx([steps[0]] * len(steps))


@pytest.mark.parametrize("count", [1, MAX_POINTS, MAX_POINTS + 1, 7 * MAX_POINTS + 3])
def test_thinning_bounds_the_points_and_keeps_the_mean(count: int) -> None:
    y = [float(i * i % 17) for i in range(count)]
    thin = thinned(Series("a", list(range(count)), y))
    assert len(thin.x) == len(thin.y) <= MAX_POINTS
    if count <= MAX_POINTS:
        assert thin.y == y
    else:
        assert min(y) <= min(thin.y)
        assert max(thin.y) <= max(y)


@pytest.mark.parametrize("values", [[0.0], [2.0, 2.0], [0.0, 0.0], [-1.0, -0.5]])
def test_flat_and_single_values_draw(values: list[float]) -> None:
    svg = line_chart(Chart("t", (Series("a", list(range(len(values))), values),)))
    ElementTree.fromstring(svg)
    assert len(paths(svg)[0]) == len(values)


def test_an_empty_chart_says_so_and_a_title_is_escaped() -> None:
    assert "nothing was recorded" in line_chart(Chart("t", (Series("a", [], []),)))
    svg = line_chart(Chart('<"&', (Series("<b>", [1], [1.0]),)))
    assert '<"&' in ElementTree.fromstring(svg).attrib["aria-label"]
