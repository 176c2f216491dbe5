"""One step of a style-aware discriminator is its losses one image at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lanit.guides import Guide, GuideSizes
from lanit.methods import style_aware_step as module
from lanit.methods.style_aware_step import StyleAwareNetworks, StyleAwareTerms, style_aware_step
from lanit.objectives import Batch
from lanit.prototypes import balanced_assignment
from lanit.ranks import Draws
from tests.test_steps import assert_gradients, gradients_of, softplus
from tests.test_tunit_step import features, standardise, unit

ROWS, CLUSTERS, STYLE = 4, 3, 5
TERMS = StyleAwareTerms(swap=0.8, reconstruction=0.6, style_match=0.5, content_match=0.7)
R1 = 1.5


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "float", lambda self: self.to(torch.float64))


@pytest.fixture
def nets() -> StyleAwareNetworks:
    torch.manual_seed(0)
    sizes = GuideSizes(image_size=32, domains=CLUSTERS + 1, channels=4, max_channels=8, style_dim=STYLE,
                       classifier="prototypes")  # fmt: skip
    made = StyleAwareNetworks(sizes).to(torch.float64)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if not name.endswith("prototypes"):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def style_of(guide: Guide, image: Tensor, standard: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Its feature and its style."""
    feature = standard(features(guide, image[None])[0])
    return feature, unit(guide.style.weight @ feature + guide.style.bias)


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("from_prototypes", [False, True])
def test_a_step_has_the_gradients_of_the_losses_one_image_at_a_time(
    nets: StyleAwareNetworks, monkeypatch: pytest.MonkeyPatch, moves: bool, from_prototypes: bool
) -> None:
    random = torch.Generator().manual_seed(1)
    x, y, view = (torch.rand(ROWS, 3, 32, 32, generator=random, dtype=torch.float64) * 2 - 1 for _ in range(3))
    drawn = torch.nn.functional.normalize(torch.randn(ROWS, STYLE, generator=random, dtype=torch.float64), dim=1)
    monkeypatch.setattr(module, "view_of", lambda images, draws, ranges: view)
    monkeypatch.setattr(module, "prototype_styles", lambda prototypes, rows, draws: drawn)
    monkeypatch.setattr(module, "_FROM_PROTOTYPES", float(from_prototypes))
    guide, generator = nets.generative.guide, nets.generative.generator
    judge = nn.ModuleList([guide, nets.logit])
    log: list[dict[str, Tensor | None]] = []
    parts_of = {"discriminator": judge, "generative": generator}
    optimisers = {name: torch.optim.SGD(part.parameters(), lr=0.0) for name, part in parts_of.items()}
    optimisers["discriminator"].register_step_pre_hook(lambda *_: log.append(gradients_of(judge)))
    optimisers["generative"].register_step_pre_hook(lambda *_: log.append(gradients_of(generator)))
    labels = torch.zeros(ROWS, CLUSTERS, dtype=torch.bool)
    average = copy.deepcopy(nets.generative).requires_grad_(False)
    draws = Draws(torch.Generator().manual_seed(3))
    parts = style_aware_step(
        nets, average, optimisers, Batch(x, labels, y, labels, x, x), 0, True, moves, R1, TERMS, draws
    )

    standard = standardise(guide, torch.cat([y, view]))
    prototypes = guide.prototypes if moves else guide.prototypes.detach()
    scores = [torch.stack([style_of(guide, image, standard)[1] @ unit(p) for p in prototypes]) for image in (*y, *view)]
    known = [balanced_assignment(torch.stack(half)) for half in (scores[:ROWS], scores[ROWS:])]
    foretold = []
    for i in range(ROWS):
        for wanted, told in ((known[0][i], scores[ROWS + i]), (known[1][i], scores[i])):
            foretold.append(-(wanted * (told / 0.1).log_softmax(dim=0)).sum())
    swap = sum(foretold[1:], foretold[0]) / 2 / ROWS

    def logit(image: Tensor) -> Tensor:
        return (nets.logit.weight @ style_of(guide, image, standard)[0] + nets.logit.bias)[0]

    asked = drawn if from_prototypes else torch.stack([style_of(guide, image, standard)[1] for image in y]).detach()
    judged, generated = [], []
    for i in range(ROWS):
        own = style_of(guide, x[i], standard)[1].detach()
        made, again = (generator(x[i, None], style[None])[0] for style in (asked[i], own))
        image = y[i].clone().requires_grad_()
        real = logit(image)
        (slope,) = torch.autograd.grad(real, image, create_graph=True)
        fakes = softplus(logit(made.detach())) + softplus(logit(again.detach()))
        judged.append(softplus(-real) + fakes / 2 + R1 * slope.square().sum() / 2)
        contents = [generator.encode(each[None])[0].flatten(1).T for each in (x[i], made)]
        apart = [2 - 2 * unit(one) @ unit(other) for one, other in zip(*contents, strict=True)]
        generated.append(
            (softplus(-logit(made)) + softplus(-logit(again))) / 2
            + 0.6 * (x[i] - again).abs().mean()
            + 0.5 * (style_of(guide, made, standard)[1] - asked[i]).square().sum()
            + 0.7 * sum(apart) / len(apart)
        )
    assert parts["swap"].item() == pytest.approx(swap.item())
    assert_gradients(judge, 0.8 * swap + torch.stack(judged).mean(), log[0])
    total = torch.stack(generated).mean()
    assert parts["total"].item() == pytest.approx(total.item())
    assert_gradients(generator, total, log[1])
    assert all(parameter.requires_grad for parameter in nets.parameters())
