"""The reference of the benchmark of training is the same mathematics: one iteration leaves the same parameters."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.naive_step import (
    Images,
    NaiveClip,
    NaiveState,
    NaiveWeights,
    naive_iteration,
    naive_networks,
    plain_prompts,
)
from lanit.networks import NetworkOptions
from lanit.objectives import Batch, Guidance, Networks, StepOptions
from lanit.prompts import PromptLearner
from lanit.ranks import Draws
from lanit.steps import Optimisers, StepPlan, paper_step

DOMAINS = ("smiling", "blond hair", "hat")
WEIGHTS = NaiveWeights(domain=0.7, cycle=1.3, r1=0.8)
ROWS = 3


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "float", lambda self: self.to(torch.float64))


def sgd(parameters: Any) -> torch.optim.SGD:
    """Plain descent, so that a parameter moves by its gradient."""
    return torch.optim.SGD(parameters, lr=1e-2)


@pytest.fixture
def nets() -> Networks:
    torch.manual_seed(0)
    options = NetworkOptions(image_size=32, domains=len(DOMAINS) + 1, channels=4, max_channels=8, mapping_width=8)
    made = Networks(options).to(torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


@pytest.fixture
def images() -> Images:
    random = torch.Generator().manual_seed(1)
    x, y = torch.rand(2, ROWS, 3, 32, 32, generator=random, dtype=torch.float64) * 2 - 1
    return Images(x, y, *torch.randn(2, ROWS, 16, generator=random, dtype=torch.float64))


def test_the_copy_computes_what_the_networks_do(nets: Networks, images: Images) -> None:
    copied = naive_networks(nets)
    style = torch.randn(ROWS, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(copied.generator(images.x, style), nets.generator(images.x, style))
    torch.testing.assert_close(copied.discriminator(images.x), nets.discriminator(images.x))
    torch.testing.assert_close(copied.style_encoder(images.x), nets.style_encoder(images.x))


@pytest.mark.parametrize("phase", [1, 2])
def test_the_naive_iteration_leaves_the_parameters_of_the_paper_step(
    nets: Networks, images: Images, tiny_clip: Any, phase: int
) -> None:
    tower = copy.deepcopy(tiny_clip.text)
    tower.tower.double()
    learner = PromptLearner(tower, DOMAINS, ("a face with {}.", "the {} face"))
    random = torch.Generator().manual_seed(3)
    pixels = torch.randn(3 * 16, tiny_clip.embedding_dim, dtype=torch.float64, generator=random)

    def encode(batch: Tensor) -> Tensor:
        pooled = torch.nn.functional.avg_pool2d(batch, 8).flatten(1)
        return torch.nn.functional.normalize(pooled @ pixels, dim=1)

    scale = 5.0
    copied, reference = naive_networks(nets), NaiveClip.of(encode, scale, learner)
    optimisers = {
        name: sgd(getattr(copied, name).parameters())
        for name in ("generator", "style_encoder", "mapping", "discriminator")
    }
    state = NaiveState(copied, optimisers, sgd([reference.learner.context]) if phase == 2 else None)
    start = copy.deepcopy(nets.state_dict())
    began = learner.context.detach().clone()
    with torch.no_grad():
        fixed = learner.text_features()
    labels = [reference.labels(batch, fixed) for batch in (images.x, images.y)]
    assert labels[0].any()
    assert not labels[0].all()

    naive_iteration(state, images, reference, WEIGHTS, Draws(torch.Generator().manual_seed(4)))
    paper_step(
        nets,
        Optimisers(
            sgd(nets.generative.parameters()), sgd(nets.discriminator.parameters()),
            sgd([learner.context]) if phase == 2 else None,
        ),
        Batch(images.x, labels[0], images.y, labels[1], images.z1, images.z2),
        lambda: Guidance(encode, plain_prompts(*(learner.text_features() if phase == 2 else fixed), scale)),
        StepPlan(WEIGHTS.r1, WEIGHTS.diversity, phase == 2),
        StepOptions(WEIGHTS),
        Draws(torch.Generator().manual_seed(4)),
    )  # fmt: skip
    ours, theirs = list(nets.named_parameters()), list(copied.parameters())
    assert len(ours) == len(theirs)
    for (name, parameter), other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-7, atol=1e-9, msg=name)
    moved = sum(not torch.equal(parameter, start[name]) for name, parameter in ours)
    assert moved > 0.9 * len(ours)
    torch.testing.assert_close(learner.context, reference.learner.context, rtol=1e-7, atol=1e-10)
    assert torch.equal(learner.context, began) == (phase == 1)
