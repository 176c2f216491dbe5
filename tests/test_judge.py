"""Scoring of judged translations: what counts as kept, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.sample_world.faces import ATTRIBUTES
from pipeline.sample_world.judge import open_to_change, score


def face(*attributes: str) -> np.ndarray:
    return np.isin(ATTRIBUTES, attributes)


def opened(requested: str, *attributes: str) -> set[str]:
    rows = open_to_change(ATTRIBUTES.index(requested), face(*attributes)[None])
    return {name for name, is_open in zip(ATTRIBUTES, rows[0], strict=True) if is_open}


def test_only_what_cannot_stand_beside_the_request_may_change() -> None:
    hair = {"blond hair", "black hair", "brown hair", "red hair", "gray hair", "bald"}
    assert opened("smiling", "red hair", "bangs") == {"smiling"}
    assert opened("blond hair", "red hair", "bangs") == hair
    assert opened("bald", "red hair", "bangs") == hair | {"bangs"}
    assert opened("bangs", "red hair") == {"bangs"}
    assert opened("bangs", "bald") == {"bangs"} | hair


def test_scores_are_shares_per_requested_attribute() -> None:
    truth = np.stack([face("red hair"), face("red hair", "bangs"), face("bald", "smiling")])
    seen = np.stack(
        [
            face("red hair", "eyeglasses"),  # asked for eyeglasses: given, and all else kept
            face("black hair", "bangs"),  # asked for eyeglasses: not given; two of eleven others changed
            face("gray hair", "smiling", "mustache"),  # asked for gray hair: given; one of the other six changed
        ]
    )
    glasses, gray = ATTRIBUTES.index("eyeglasses"), ATTRIBUTES.index("gray hair")
    scores = score(seen, truth, np.array([glasses, glasses, gray]))
    assert scores.recognised[glasses] == 0.5
    assert scores.kept[glasses] == pytest.approx((11 + 9) / 22)
    assert scores.recognised[gray] == 1.0
    assert scores.kept[gray] == pytest.approx(5 / 6)
    assert scores.count.tolist() == [2 if n == glasses else int(n == gray) for n in range(len(ATTRIBUTES))]
    assert np.isnan(scores.recognised[ATTRIBUTES.index("bangs")])
