"""Every loss equals METHOD §3 written as loops, forward and gradient, over uneven sizes; the flipped label is fair."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lanit import losses
from lanit.labels import adaptive, margin
from lanit.ranks import Draws

SIZES = [(1, 1), (2, 5), (7, 3), (5, 13)]  # rows, domains
Double = torch.float64


def labels_of(rows: int, domains: int, share: float = 0.4, seed: int = 0) -> Tensor:
    """Bool labels: random, but row 0 has none and the last row has all, where there is room for both."""
    drawn = torch.rand(rows, domains, generator=torch.Generator().manual_seed(seed + rows)) < share
    if rows > 1:
        drawn[0] = False
        drawn[-1] = True
    return drawn


def values_of(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    random = torch.Generator().manual_seed(seed + sum(shape))
    return (scale * torch.randn(*shape, generator=random, dtype=Double)).requires_grad_()


def same(ours: Tensor, naive: Tensor, inputs: list[Tensor], rtol: float = 1e-9) -> None:
    """Value and gradients agree."""
    assert ours.shape == ()
    naive = naive + sum((0 * x).sum() for x in inputs)  # a graph even where no entry is active
    torch.testing.assert_close(ours.to(Double), naive.to(Double), rtol=rtol, atol=rtol)
    results = torch.autograd.grad(ours, inputs, allow_unused=True, materialize_grads=True)
    expected = torch.autograd.grad(naive, inputs, allow_unused=True, materialize_grads=True)
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, reference, rtol=rtol, atol=rtol)


def softplus(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(x))


def over_active(of: Callable[[int, int], Tensor], labels: Tensor) -> Tensor:
    terms = [of(i, n) for i in range(labels.shape[0]) for n in range(labels.shape[1]) if labels[i, n]]
    return sum(terms, torch.zeros((), dtype=Double)) / max(len(terms), 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("as_float", [False, True])
def test_discriminator_loss(size: tuple[int, int], as_float: bool) -> None:
    real, fake = values_of(*size, seed=1), values_of(*size, seed=2)
    of_real, of_fake = labels_of(*size, seed=3), labels_of(*size, 0.7, seed=4)
    naive = over_active(lambda i, n: softplus(-real[i, n]), of_real) + over_active(
        lambda i, n: softplus(fake[i, n]), of_fake
    )
    dtype = torch.float32 if as_float else torch.bool
    same(losses.discriminator_loss(real, of_real.to(dtype), fake, of_fake.to(dtype)), naive, [real, fake])


@pytest.mark.parametrize("size", SIZES)
def test_adversarial_loss(size: tuple[int, int]) -> None:
    fake, labels = values_of(*size), labels_of(*size)
    same(losses.adversarial_loss(fake, labels), over_active(lambda i, n: softplus(-fake[i, n]), labels), [fake])


def test_a_batch_without_any_label_costs_nothing_and_is_no_division_by_zero() -> None:
    fake, nothing = values_of(4, 3), torch.zeros(4, 3, dtype=torch.bool)
    loss = losses.adversarial_loss(fake, nothing) + losses.discriminator_loss(fake, nothing, fake, nothing)
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, fake)[0] == 0).all()


def test_logits_of_inactive_domains_matter_to_nothing() -> None:
    fake = torch.full((1, 2), 1e4, dtype=Double, requires_grad=True)
    first = torch.tensor([[True, False]])
    (gradient,) = torch.autograd.grad(losses.discriminator_loss(fake, first, fake, first), fake)
    assert gradient[0, 1] == 0
    assert gradient[0, 0] != 0


@pytest.mark.parametrize(("rows", "domains"), SIZES)
def test_gradient_penalty_of_a_linear_discriminator_is_known_in_closed_form(rows: int, domains: int) -> None:
    """D(x) = Wx has the gradient Σ_n d_n w_n at every x: R1 = ½ mean_i ‖Σ_n d_in w_n‖², and its gradient follows."""
    weight, labels = values_of(domains, 3 * 4 * 4, seed=5, scale=1.0), labels_of(rows, domains)
    images = values_of(rows, 3, 4, 4, seed=6)
    penalty = losses.gradient_penalty(images.flatten(1) @ weight.T, labels, images)
    directions = labels.to(Double) @ weight.detach()
    assert penalty.item() == pytest.approx(0.5 * float((directions**2).sum()) / rows, rel=1e-5)  # computed in float32
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, labels.to(Double).T @ directions / rows, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rows", "domains"), SIZES)
def test_gradient_penalty_equals_one_image_at_a_time(rows: int, domains: int) -> None:
    torch.manual_seed(7)
    nets = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, domains)).to(Double)
    images, labels = values_of(rows, 3, 6, 6, scale=1.0), labels_of(rows, domains)
    terms = []
    for image, label in zip(images.detach(), labels, strict=True):
        leaf = image[None].clone().requires_grad_()
        logit = sum((nets(leaf)[0, n] for n in range(domains) if label[n]), (leaf * 0).sum())
        (gradient,) = torch.autograd.grad(logit, leaf, create_graph=True)
        terms.append(0.5 * (gradient**2).sum())
    naive = torch.stack(terms).mean()
    ours = losses.gradient_penalty(nets(images), labels, images)
    assert ours.item() == pytest.approx(naive.item(), rel=1e-5, abs=1e-7)
    if not labels.any():
        return
    parameters = [nets[0].weight, nets[3].weight]
    for result, expected in zip(
        torch.autograd.grad(ours, parameters), torch.autograd.grad(naive, parameters), strict=True
    ):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 3, 4, 5)])
def test_l1_is_the_mean_absolute_difference(shape: tuple[int, ...]) -> None:
    a, b = values_of(*shape, seed=8), values_of(*shape, seed=9)
    pairs = list(zip(a.flatten(), b.flatten(), strict=True))
    naive = sum(((p - q).abs() for p, q in pairs), torch.zeros((), dtype=Double)) / len(pairs)
    same(losses.l1(a, b), naive, [a, b], rtol=1e-6)  # ours is computed in float32


def cross_entropy(target: bool, probability: Tensor) -> Tensor:
    return -torch.log(probability) if target else -torch.log(1 - probability)


@pytest.mark.parametrize(("rows", "domains"), SIZES)
@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
def test_domain_loss_of_the_drawn_and_of_the_active(rows: int, domains: int, scale: float) -> None:
    margins, labels = values_of(rows, domains, scale=0.05), labels_of(rows, domains)
    drawn = torch.randint(domains, (rows,), generator=torch.Generator().manual_seed(rows))

    def term(i: int, n: int) -> Tensor:
        return cross_entropy(bool(labels[i, n]), 1 / (1 + torch.exp(-scale * margins[i, n])))

    naive = sum((term(i, int(drawn[i])) for i in range(rows)), torch.zeros((), dtype=Double)) / rows
    same(losses.domain_loss(margins, drawn, labels, scale), naive, [margins], rtol=2e-5)
    active = over_active(term, labels)
    same(losses.domain_loss_active(margins, labels, scale), active, [margins], rtol=2e-5)


@pytest.mark.parametrize(("rows", "domains"), SIZES)
def test_domain_loss_cosine_is_the_papers(rows: int, domains: int) -> None:
    drawn = torch.randint(domains, (rows,), generator=torch.Generator().manual_seed(rows))
    labels = labels_of(rows, domains)
    cosines = (0.25 + values_of(rows, domains, scale=0.03).detach()).requires_grad_()
    terms = [cross_entropy(bool(labels[i, n]), cosines[i, n]) for i, n in enumerate(drawn.tolist())]
    same(losses.domain_loss_cosine(cosines, drawn, labels), torch.stack(terms).mean(), [cosines], rtol=1e-5)


def test_domain_loss_cosine_stays_finite_at_cosines_that_are_no_probabilities() -> None:
    cosines = torch.tensor([[-0.3], [1.0], [0.0]], requires_grad=True)
    loss = losses.domain_loss_cosine(cosines, torch.zeros(3, dtype=torch.long), torch.tensor([[True], [False], [True]]))
    assert math.isfinite(loss.item())
    assert torch.isfinite(torch.autograd.grad(loss, cosines)[0]).all()


def test_p_exceeds_one_half_exactly_where_the_image_is_labelled() -> None:
    """METHOD (10) and (1) agree: the loss of 'on' is below log 2, and of 'off' above, just where the label is on."""
    random = torch.Generator().manual_seed(3)
    v, u, base = (torch.nn.functional.normalize(torch.randn(n, 6, generator=random), dim=-1) for n in (200, 5, 1))
    margins = margin(v, u, base[0])
    labelled = adaptive(margins)
    assert labelled.any(dim=0).all()
    assert not labelled.all(dim=0).any()
    for n in range(5):
        drawn = torch.full((1,), n)
        for row in range(200):
            on, off = (
                losses.domain_loss(margins[row, None], drawn, torch.full((1, 5), value), 100.0)
                for value in (True, False)
            )
            assert (on < math.log(2)) == bool(labelled[row, n])
            assert (off > math.log(2)) == bool(labelled[row, n])


@pytest.mark.parametrize(("rows", "domains"), [*SIZES, (400, 6), (300, 2)])
def test_flip_one_changes_what_it_says_and_nothing_else(rows: int, domains: int) -> None:
    labels = labels_of(rows, domains, 0.3)
    before = labels.clone()
    drawn, flipped = losses.flip_one(labels, Draws(torch.Generator().manual_seed(11)))
    assert torch.equal(labels, before)
    assert drawn.dtype == torch.int64
    assert flipped.dtype == torch.bool
    for row in range(rows):
        old = {n for n in range(domains) if before[row, n]}
        new = {n for n in range(domains) if flipped[row, n]}
        n = int(drawn[row])
        if not old:
            assert new == {n}, "none active: the drawn one is switched on"
        elif len(old) > 1:
            assert n in old, "an inactive domain was drawn although one is active"
            assert new == old - {n}
        elif domains > 1:
            assert old == {n}
            assert len(new) == 1, "the only one was flipped off: exactly one other is on"
            assert n not in new
        else:
            assert new == set()


def test_an_inactive_domain_is_never_drawn_beside_an_active_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the random numbers favour it as much as they can."""
    labels = torch.tensor([[False, True, False], [True, False, True]])
    worst = torch.where(labels, 0.0, 1 - 2**-24)  # the range of torch.rand in float32
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: worst.clone())
    drawn, flipped = losses.flip_one(labels, Draws(torch.Generator()))
    assert labels.gather(1, drawn[:, None]).all()
    assert not flipped.gather(1, drawn[:, None]).any()


def shares(choices: Tensor, domains: int) -> list[float]:
    return (torch.bincount(choices, minlength=domains) / len(choices)).tolist()


def test_flip_one_draws_each_candidate_equally_often() -> None:
    rows = 6000
    close = pytest.approx  # four standard deviations of a share of a third are 0.024
    generator = torch.Generator().manual_seed(0)
    drawn, _ = losses.flip_one(torch.tensor([[True, True, False, True]]).expand(rows, -1), Draws(generator))
    assert shares(drawn, 4) == close([1 / 3, 1 / 3, 0, 1 / 3], abs=0.03)
    _, flipped = losses.flip_one(torch.tensor([[False, True, False, False]]).expand(rows, -1), Draws(generator))
    assert shares(flipped.int().argmax(dim=1), 4) == close([1 / 3, 0, 1 / 3, 1 / 3], abs=0.03)
    drawn, _ = losses.flip_one(torch.zeros(rows, 4, dtype=torch.bool), Draws(generator))
    assert shares(drawn, 4) == close([0.25] * 4, abs=0.03)


def test_flip_one_depends_on_its_generator_alone() -> None:
    labels = labels_of(50, 6)
    torch.manual_seed(1)
    first = losses.flip_one(labels, Draws(torch.Generator().manual_seed(5)))
    torch.manual_seed(2)
    again = losses.flip_one(labels, Draws(torch.Generator().manual_seed(5)))
    other = losses.flip_one(labels, Draws(torch.Generator().manual_seed(6)))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
