"""Line charts as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 10, 26
MAX_POINTS = 200


@dataclass(frozen=True)
class Series:
    """One curve. x and y: as many finite numbers each, x rising."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """One or more curves over training steps.

    y_range: lowest and highest value shown; chosen from the values where it is None.
    """

    title: str
    series: tuple[Series, ...]
    caption: str = ""
    y_range: tuple[float, float] | None = None


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high``, both within."""
    step = (high - low) / count
    power = 10.0 ** math.floor(math.log10(step))
    step = min((power * factor for factor in (1, 2, 2.5, 5, 10)), key=lambda candidate: abs(candidate - step))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def thinned(series: Series) -> Series:
    """At most MAX_POINTS points: the mean of each run of neighbours."""
    run = math.ceil(len(series.x) / MAX_POINTS)
    if run <= 1:
        return series
    starts = range(0, len(series.x), run)
    mean = [[sum(values[i : i + run]) / len(values[i : i + run]) for i in starts] for values in (series.x, series.y)]
    return Series(series.name, mean[0], mean[1])


def number(value: float) -> str:
    """A short axis label: 0.25, 1500, 12k."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{round(value, 6):g}"


def line_chart(chart: Chart) -> str:
    """The chart as one ``<svg>`` element; curve i has class ``curve-i`` (0 and on)."""
    shown = [thinned(series) for series in chart.series if len(series.x)]
    if not shown:
        return '<p class="note">Too short a run: nothing was recorded.</p>'
    x_values, y_values = [x for series in shown for x in series.x], [y for series in shown for y in series.y]
    low, high = chart.y_range or (min(0.0, *y_values), max(y_values))
    high = high if high > low else low + 1
    first, last = min(x_values), max(x_values)
    last = last if last > first else first + 1

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in ticks(low, high):
        _, y = at(first, tick)
        parts.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in ticks(first, last):
        x, _ = at(tick, low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{number(tick)}</text>')
    for position, series in enumerate(shown):
        points = [at(x, min(max(y, low), high)) for x, y in zip(series.x, series.y, strict=True)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path class="curve curve-{position}" d="M{path}"/>')
        parts.append(
            f'<circle class="dot curve-{position}" cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="2.5"/>'
        )
    ends = "; ".join(f"{series.name}: {series.y[0]:.3g} to {series.y[-1]:.3g}" for series in shown)
    label = escape(f"{chart.title} over steps {first:g} to {last:g}. {ends}.", quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
