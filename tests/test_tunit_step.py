"""One step of TUNIT is its losses one image at a time; E learns from its own, then from G's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lanit.guides import Guide, GuidedNetworks, GuideSizes
from lanit.methods import tunit_step as module
from lanit.methods.tunit_step import TunitNetworks, TunitTerms, tunit_step
from lanit.networks import Discriminator
from lanit.objectives import Batch
from lanit.ranks import Draws
from tests.test_cluster_losses import information
from tests.test_steps import assert_gradients, gradients_of

ROWS, CLUSTERS, STYLE = 4, 3, 5
TERMS = TunitTerms(
    information=4.0, contrast=0.7, guide_share=0.3, adversarial=0.9, reconstruction=0.6, style_contrast=0.4
)
R1 = 1.5


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "float", lambda self: self.to(torch.float64))


@pytest.fixture
def nets() -> TunitNetworks:
    torch.manual_seed(0)
    sizes = GuideSizes(image_size=32, domains=CLUSTERS + 1, channels=4, max_channels=8, style_dim=STYLE)
    judge = Discriminator(replace(sizes, domains=CLUSTERS, classifies=True), labels=CLUSTERS)
    made = TunitNetworks(sizes, judge, queue=6).to(torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


@pytest.fixture
def average(nets: TunitNetworks) -> GuidedNetworks:
    made = copy.deepcopy(nets.generative)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.requires_grad_(False)


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch) -> Batch:
    """The last reference has a class by people; ``z1`` holds the second view."""
    random = torch.Generator().manual_seed(1)
    x, y, view = (torch.rand(ROWS, 3, 32, 32, generator=random, dtype=torch.float64) * 2 - 1 for _ in range(3))
    monkeypatch.setattr(module, "view_of", lambda images, draws, ranges: view)
    labels = torch.zeros(ROWS, CLUSTERS, dtype=torch.bool)
    labels[-1, 1] = True
    return Batch(x, labels, y, labels, view, view, y_human=labels)


def features(guide: Guide, images: Tensor) -> list[Tensor]:
    return [guide.trunk(image[None]).flatten() for image in images]


def standardise(guide: Guide, seen: Tensor) -> Callable[[Tensor], Tensor]:
    """By the moments of the images ``seen``, which are no function of the weights."""
    rows = torch.stack(features(guide, seen)).detach()
    mean = sum(rows[1:], rows[0]) / len(rows)
    spread = (sum(row.square() for row in rows) / len(rows) - mean.square()).clamp(min=1e-5).sqrt()
    return lambda feature: (feature - mean) / spread


def learning(nets: TunitNetworks, rate: float) -> dict[str, torch.optim.Optimizer]:
    parts = {
        "guide": nets.generative.guide, "generative": nets.generative.generator, "discriminator": nets.discriminator,
    }  # fmt: skip
    return {name: torch.optim.SGD(part.parameters(), lr=rate) for name, part in parts.items()}


def unit(style: Tensor) -> Tensor:
    return style / style.square().sum().sqrt()


def look(guide: Guide, image: Tensor, standard: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    feature = standard(features(guide, image[None])[0])
    logits = guide.classes.weight @ feature + guide.classes.bias
    return logits, unit(guide.style.weight @ feature + guide.style.bias)


def contrast(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    weights = [torch.exp(query @ other / 0.07) for other in (key, *queue)]
    return -torch.log(weights[0] / sum(weights[1:], weights[0]))


def classified(judge: Discriminator, image: Tensor, cluster: int) -> list[Tensor]:
    """Binary cross-entropy of each of D's second logits, of one image."""
    logits = judge.judge(image)[1][0]
    return [torch.log1p(torch.exp(-logit if n == cluster else logit)) for n, logit in enumerate(logits)]


@pytest.mark.parametrize(("joint", "classification"), [(False, 0.0), (True, 0.0), (True, 0.8)])
def test_a_step_has_the_gradients_of_the_losses_one_image_at_a_time(
    nets: TunitNetworks, average: GuidedNetworks, batch: Batch, joint: bool, classification: float
) -> None:
    """Where D classifies, it learns each cluster from references, and G shows it that of y in x̂, of x in x again."""
    terms = replace(TERMS, classification=classification)
    guide, generative, view = nets.generative.guide, nets.generative, batch.z1
    queue, log = nets.queue.clone(), []

    def note(name: str, part: nn.Module) -> Callable[..., None]:
        return lambda *_: log.append((name, gradients_of(part)))

    optimisers = learning(nets, 0.0)
    optimisers["guide"].register_step_pre_hook(note("E", guide))
    optimisers["generative"].register_step_pre_hook(note("G", generative.generator))
    optimisers["discriminator"].register_step_pre_hook(note("D", nets.discriminator))
    parts = tunit_step(nets, average, optimisers, batch, 0, joint, R1, terms, Draws(torch.Generator().manual_seed(3)))

    seen = torch.cat([batch.y, view])
    standard, standard_average = standardise(guide, seen), standardise(average.guide, seen)
    keys = [look(average.guide, image, standard_average)[1] for image in view]
    of_y, of_view = ([look(guide, image, standard) for image in images] for images in (batch.y, view))
    first, second = (torch.stack([one.softmax(dim=0) for one, _ in looks]) for looks in (of_y, of_view))
    told = information(first[:-1], second[:-1])
    named = -(first[-1, 1].log() + second[-1, 1].log())
    apart = torch.stack([contrast(style, keys[i], queue) for i, (_, style) in enumerate(of_y)]).mean()
    share = TERMS.guide_share if joint else 1.0
    assert_gradients(guide, share * (4.0 * named - 4.0 * told + 0.7 * apart), log[0][1])
    assert parts["information"].item() == pytest.approx(told.item())
    torch.testing.assert_close(nets.queue[:ROWS], torch.stack(keys))
    assert torch.equal(nets.queue[ROWS:], queue[ROWS:]), "the oldest go first"
    if not joint:
        assert [name for name, _ in log] == ["E"]
        return
    assert [name for name, _ in log] == ["E", "D", "G", "E"]

    of_x, of_y = ([look(guide, image, standard) for image in images] for images in (batch.x, batch.y))
    keys_y = [look(average.guide, image, standard_average)[1] for image in batch.y]
    judged, generated, told, shown, missing = [], [], [], [], []
    for i in range(ROWS):
        wanted, own = int(of_y[i][0].argmax()), int(of_x[i][0].argmax())
        made, again = (generative.generator(batch.x[i, None], style[None]) for style in (of_y[i][1], of_x[i][1]))
        image = batch.y[i, None].clone().requires_grad_()
        real, fake = nets.discriminator(image)[0, wanted], nets.discriminator(made.detach())[0, wanted]
        (slope,) = torch.autograd.grad(real, image, create_graph=True)
        judged.append((1 - real).clamp(min=0) + (1 + fake).clamp(min=0) + R1 * slope.square().sum() / 2)
        generated.append(
            -0.9 * (nets.discriminator(made)[0, wanted] + nets.discriminator(again)[0, own])
            + 0.6 * (batch.x[i] - again[0]).abs().mean()
            + 0.4 * contrast(look(guide, made[0], standard)[1], keys_y[i], queue)
        )
        told += classified(nets.discriminator, batch.y[i, None], wanted)
        for image, cluster in ((made, wanted), (again, own)):
            each = classified(nets.discriminator, image, cluster)
            shown.append(each.pop(cluster))
            missing += each
    learned = torch.stack(told).mean()
    assert_gradients(nets.discriminator, torch.stack(judged).mean() + classification * learned, log[1][1])
    recognised = torch.stack(shown).mean() + torch.stack(missing).mean()
    total = torch.stack(generated).mean() + classification * recognised
    assert ("classification" in parts) == ("d_classification" in parts) == bool(classification)
    if classification:
        assert parts["classification"].item() == pytest.approx(recognised.item())
        assert parts["d_classification"].item() == pytest.approx(learned.item())
    assert parts["total"].item() == pytest.approx(total.item())
    for name, grads in log[2:]:
        assert any(grad is not None and grad.abs().max() > 1e-6 for grad in grads.values()), name
    both = nn.ModuleList([generative.generator, guide])
    held = {f"{n}.{name}": grad for n, (_, grads) in enumerate(log[2:]) for name, grad in grads.items()}
    assert_gradients(both, total, held)


def test_everything_may_learn_again_after_a_step(nets: TunitNetworks, average: GuidedNetworks, batch: Batch) -> None:
    optimisers = learning(nets, 1e-3)
    tunit_step(nets, average, optimisers, batch, 0, True, 0.0, TERMS, Draws(torch.Generator().manual_seed(3)))
    assert all(parameter.requires_grad for parameter in nets.parameters())


def test_images_lie_in_clusters_from_the_first_step_on() -> None:
    """Of standardised features a head hands out clusters, each to some images: one that begins undecided loses most."""
    torch.manual_seed(0)
    guide = Guide(GuideSizes(image_size=32, domains=13, channels=4, max_channels=64))
    chances = guide.read(torch.randn(2000, guide.classes.in_features)).logits.softmax(dim=1)
    assert chances.max(dim=1).values.mean() > 0.6
    assert chances.argmax(dim=1).bincount(minlength=12).min() > 2000 / 12 / 4
