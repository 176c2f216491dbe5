"""Means of losses between two metric lines, and the name of the first that went wrong."""

from __future__ import annotations

import math

import pytest
import torch

from lanit.errors import LanitError
from lanit.ranks import ALONE
from pipeline.training.loss_log import LossLog


def parts(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_a_mean_is_over_the_steps_that_had_the_loss() -> None:
    log = LossLog()
    assert not log
    log.add(parts(cycle=1.0, style=4.0), 1)
    log.add(parts(cycle=2.0, r1=10.0, style=5.0), 2)
    log.add(parts(cycle=6.0, style=0.0), 3)
    assert log
    assert log.means(ALONE, "") == pytest.approx({"cycle": 3.0, "style": 3.0, "r1": 10.0})
    log.clear()
    assert not log


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_loss_that_was_first_not_finite_is_named_though_others_follow(bad: float) -> None:
    log = LossLog()
    log.add(parts(cycle=1.0, domain=1.0, style=1.0), 7)
    log.add(parts(cycle=1.0, domain=1.0, style=bad), 8)
    log.add(parts(cycle=bad, domain=bad, style=bad, r1=bad), 9)
    log.add(parts(cycle=bad, domain=bad, style=1.0), 10)
    with pytest.raises(LanitError, match="the loss 'style' was not finite at step 8") as caught:
        log.means(ALONE, "try this")
    assert caught.value.hint == "try this"
