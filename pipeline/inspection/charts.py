"""Margin histograms of a domain as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 256  # units of the drawing, stretched to the width that the page gives it


@dataclass(frozen=True)
class Axis:
    """Margins from low to high, shared by every histogram of a page."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where ``value`` lies, from 0 to 1; beyond an end, at that end."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def percent(self, value: float) -> str:
        """Where ``value`` lies, as a length in CSS."""
        return f"{100 * self.at(value):.2f}%"


def shown_axis(edges: Sequence[float], histograms: Sequence[Sequence[int]]) -> Axis:
    """The part of the bins of ``edges`` that any histogram fills, with 0 within."""
    filled = [i for i in range(len(edges) - 1) if any(histogram[i] for histogram in histograms)]
    low = edges[filled[0]] if filled else edges[0]
    high = edges[filled[-1] + 1] if filled else edges[-1]
    low, high = min(low, 0.0), max(high, 0.0)
    return Axis(low, high) if high > low else Axis(low - 1, high + 1)


def histogram(counts: Sequence[int], edges: Sequence[float], axis: Axis, threshold: float, height: int) -> str:
    """Bars of ``counts`` (B) between ``edges`` (B+1), over ``axis``; those above ``threshold`` have class ``above``.

    The tallest bar fills the height; a bin that holds anything is at least one unit high. The drawing is decoration:
    the figures beside it say the same.
    """
    tallest = max(counts, default=0) or 1
    parts = {"below": "", "above": ""}
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        if not count:
            continue
        x, end = WIDTH * axis.at(left), WIDTH * axis.at(right)
        tall = max(height * count / tallest, 1.0)
        side = "above" if (left + right) / 2 > threshold else "below"
        parts[side] += f"M{x:.1f} {height}v-{tall:.1f}h{end - x:.1f}v{tall:.1f}z"
    bars = "".join(f'<path class="{side}" d="{path}"/>' for side, path in parts.items() if path)
    return f'<svg viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="none" aria-hidden="true">{bars}</svg>'
