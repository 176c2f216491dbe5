"""What the page says of a phrase as answers come in: how good it is, a better offset, and what that would change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.review.estimates import LEAST_SAMPLE, estimate
from pipeline.review.queues import Phrase
from pipeline.review.samples import sample_of

LEAST_EACH = 5
"""Answers of yes, and as many of no, below which no offset is suggested."""

_NEXT = 20  # images that are looked at next
_BORDER = 24  # images on either side of a threshold
_STEPS = 50  # of Newton's method
_RIDGE = 1e-2  # of the curve's slope, in standard deviations of the margin


@dataclass(frozen=True)
class Curve:
    """The chance that an image has the phrase, of its margin: logistic. Which images people were shown depended on
    margins alone, or on nothing, so it is the same for those they were not shown."""

    middle: float
    slope: float

    def of(self, margins: np.ndarray) -> np.ndarray:
        """float64 (n), of margins (n)."""
        chances: np.ndarray = 1 / (1 + np.exp(-np.clip(self.slope * (margins - self.middle), -30, 30)))
        return chances


def fit_curve(margins: np.ndarray, yes: np.ndarray) -> Curve | None:
    """Of answers: margins, float (a), and bool (a). None where they are too few, or where larger margins do not go
    with yes."""
    if min(int(yes.sum()), int((~yes).sum())) < LEAST_EACH:
        return None
    margins = margins.astype(np.float64)
    mean, spread = float(margins.mean()), float(margins.std())
    if spread == 0:
        return None
    design = np.stack([np.ones(len(margins)), (margins - mean) / spread], axis=1)
    weights, ridge = np.zeros(2), np.diag([0.0, _RIDGE])
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (chances - yes) + ridge @ weights
        bend = (design.T * (chances * (1 - chances))) @ design + ridge + 1e-9 * np.eye(2)
        step = np.linalg.solve(bend, gradient)
        weights -= np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-6:
            break
    level, slope = weights.tolist()
    return Curve(mean - spread * level / slope, slope / spread) if slope > 0 else None


def suggest_offset(margins: np.ndarray, falling: np.ndarray, said: np.ndarray) -> tuple[float, Curve] | None:
    """The offset of the largest expected F1 over all images: answers where there are some, the curve elsewhere.

    margins: float32 (n). falling: rows by margin, the largest first, int (n). said: int8 (n), 1 and 0 where people
    answered.
    """
    known = said >= 0
    curve = fit_curve(margins[known], said[known] == 1)
    if curve is None:
        return None
    chances = curve.of(margins)
    chances[known] = said[known]
    hits = np.cumsum(chances[falling])
    scores = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    ordered = margins[falling]
    scores[:-1][ordered[:-1] == ordered[1:]] = 0  # no threshold parts equal margins
    best = int(scores.argmax())
    above = float(ordered[best])
    below = float(ordered[best + 1]) if best + 1 < len(ordered) else above - 1e-3
    return _written((above + below) / 2, below, above), curve


def _written(cut: float, low: float, high: float) -> float:
    """In as few digits as stay between two margins, at least three."""
    rounded = (float(f"{cut:.{digits}g}") for digits in range(3, 17))
    return next((value for value in rounded if low <= np.float32(value) < high), cut)


def report(phrase: Phrase) -> dict[str, Any]:
    """Figures of CLIP's labels of a phrase, from answers alone; where they rest on too few, how many are missing."""
    margins, said, by_clip = phrase.margins, phrase.said, phrase.by_clip
    sample = sample_of(phrase.place.random_keys, phrase.strata, said)
    found = estimate(sample, said, by_clip)
    out: dict[str, Any] = {
        "answered": int((said >= 0).sum()), "yes": int((said == 1).sum()),
        "against": int((((said == 1) != by_clip) & (said >= 0)).sum()),
        "sample": sample.size, "missing": max(LEAST_SAMPLE - sample.size, 0),
        "estimates": None if found is None else found.to_json(), "offset": phrase.offset, "suggested": None,
        "least": LEAST_EACH,
    }  # fmt: skip
    adaptive = phrase.labelling.revision.rule.kind == "adaptive"
    suggested = suggest_offset(margins, phrase.falling, said) if adaptive else None
    if suggested is not None:
        offset, curve = suggested
        there = margins > np.float32(offset)
        better = estimate(sample, said, there)
        near = _nearest(phrase, _NEXT)
        wrong = np.where(by_clip[near], 1 - curve.of(margins[near]), curve.of(margins[near]))
        out["suggested"] = {
            "offset": offset, "gained": int((there & ~by_clip).sum()), "lost": int((~there & by_clip).sum()),
            "estimates": None if better is None else better.to_json(), "wrong_of_next": float(wrong.sum()),
            "next": len(near),
        }  # fmt: skip
    return out


def at_offset(phrase: Phrase, offset: float) -> dict[str, Any]:
    """What another offset would label, and the images on either side of it."""
    margins, said = phrase.margins, phrase.said
    labelled = margins > np.float32(offset)
    found = estimate(sample_of(phrase.place.random_keys, phrase.strata, said), said, labelled)
    sides = []
    for side in (np.flatnonzero(labelled), np.flatnonzero(~labelled)):
        distance = np.abs(margins[side] - np.float32(offset))
        if len(side) > _BORDER:
            chosen = np.argpartition(distance, _BORDER)[:_BORDER]
            side, distance = side[chosen], distance[chosen]
        sides.append(side[np.argsort(distance, kind="stable")].tolist())
    return {
        "offset": offset, "count": int(labelled.sum()), "gained": int((labelled & ~phrase.by_clip).sum()),
        "lost": int((~labelled & phrase.by_clip).sum()), "above": sides[0], "below": sides[1],
        "estimates": None if found is None else found.to_json(),
    }  # fmt: skip


def _nearest(phrase: Phrase, count: int) -> np.ndarray:
    """Rows of the images nearest to the threshold that nobody answered on, int64 (≤ count)."""
    waiting = np.flatnonzero(phrase.said < 0)
    distance = np.abs(phrase.margins[waiting] - np.float32(phrase.offset))
    return waiting if len(waiting) <= count else waiting[np.argpartition(distance, count)[:count]]
