"""The average of parameters is the recursion it says, over any module, and never the module itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lanit.ema import Average


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999, 1.0])
def test_update_is_the_recursion(decay: float) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.Conv2d(2, 1, 3), nn.LayerNorm(7)).double()
    average = Average(module)
    naive = [parameter.detach().clone() for parameter in module.parameters()]
    for _ in range(4):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += torch.randn_like(parameter)
        average.update(module, decay)
        naive = [decay * old + (1 - decay) * new.detach() for old, new in zip(naive, module.parameters(), strict=True)]
    for result, expected in zip(average.module.parameters(), naive, strict=True):
        torch.testing.assert_close(result.detach(), expected)


def test_the_average_is_a_frozen_copy_in_evaluation_mode() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    average = Average(module)
    assert not average.module.training
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    before = [parameter.clone() for parameter in average.module.parameters()]
    with torch.no_grad():
        module[0].weight.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(before, average.module.parameters(), strict=True))
    average.update(module, 0.5)
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    module(torch.ones(1, 2)).sum().backward()  # the update left no trace in the module's graph


def test_equal_values_stay_equal_to_the_last_bit() -> None:
    """Prompts in phase 1: their average must not drift."""
    module = nn.ParameterList([nn.Parameter(torch.randn(7, 11))])
    average = Average(module)
    for _ in range(10):
        average.update(module, 0.999)
    (result,) = average.module.parameters()
    assert torch.equal(result, module[0])
