"""One training step is METHOD §3 one image at a time, without shared passes; nothing learns that should not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.naive_step import plain_prompts
from lanit import losses, objectives
from lanit.losses import LossWeights
from lanit.losses import flip_one as real_flip_one
from lanit.networks import NetworkOptions
from lanit.objectives import Batch, Guidance, Networks, StepOptions, domain_losses, make_targets, with_edits
from lanit.ranks import Draws
from lanit.steps import Optimisers, StepPlan, frozen, fused_step, paper_step

DOMAINS, ROWS, STYLE, WIDTH = 3, 5, 6, 8
SCALE = 20.0
WEIGHTS = LossWeights(adversarial=0.9, domain=0.7, cycle=1.3, style=1.1)
PLAN = StepPlan(r1_weight=0.0, diversity_weight=0.8, learn_prompts=False)
Steps = Callable[..., dict[str, Tensor]]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here is float64: rounding turns the sign of a gradient of L1 now and then, which hides mistakes."""
    monkeypatch.setattr(Tensor, "float", lambda self: self.to(torch.float64))


def build(output: Any = "image") -> Networks:
    torch.manual_seed(0)
    setup = NetworkOptions(
        image_size=32,
        domains=DOMAINS + 1,
        channels=4,
        max_channels=8,
        style_dim=STYLE,
        mapping_width=WIDTH,
        output=output,
    )
    made = Networks(setup).to(torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


@pytest.fixture
def nets() -> Networks:
    return build()


@pytest.fixture
def batch() -> Batch:
    """Rows with one label, with several, with all and with none, as sources and as references."""
    random = torch.Generator().manual_seed(1)
    x, y = (torch.rand(ROWS, 3, 32, 32, generator=random, dtype=torch.float64) * 2 - 1 for _ in range(2))
    x_labels = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1]], dtype=torch.bool)
    y_labels = torch.tensor([[0, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 0], [1, 1, 1]], dtype=torch.bool)
    z1, z2 = torch.randn(2, ROWS, 16, generator=random, dtype=torch.float64)
    return Batch(x, x_labels, y, y_labels, z1, z2)


class Prompts(nn.Module):
    """Text embeddings to learn, and an image encoder small enough to be read: pooled pixels through a matrix."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(2)
        self.table = nn.Parameter(torch.randn(DOMAINS + 1, WIDTH, generator=random, dtype=torch.float64))
        self.register_buffer("pixels", torch.randn(3 * 16, WIDTH, generator=random, dtype=torch.float64))
        self.seen: list[Tensor] = []

    def encode(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach())
        return nn.functional.normalize(nn.functional.avg_pool2d(images, 8).flatten(1) @ self.pixels, dim=1)

    def forward(self) -> Guidance:
        unit = nn.functional.normalize(self.table, dim=1)
        return Guidance(self.encode, plain_prompts(unit[:-1], unit[-1], SCALE))


@pytest.fixture
def prompts() -> Prompts:
    return Prompts()


@dataclass
class Drawn:
    """What flip_one gave, call by call."""

    drawn: list[Tensor]
    flipped: list[Tensor]


@pytest.fixture
def flips(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    record = Drawn([], [])

    def spy(labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        drawn, flipped = real_flip_one(labels, draws)
        record.drawn.append(drawn)
        record.flipped.append(flipped)
        return drawn, flipped

    monkeypatch.setattr(losses, "flip_one", spy)
    return record


def still(nets: Networks, prompts: Prompts | None = None) -> Optimisers:
    """Optimisers that leave every parameter where it is, so that gradients can be read after the step."""
    return Optimisers(
        torch.optim.SGD(nets.generative.parameters(), lr=0.0),
        torch.optim.SGD(nets.discriminator.parameters(), lr=0.0),
        torch.optim.SGD([prompts.table], lr=0.0) if prompts is not None else None,
    )


def seeded() -> Draws:
    return Draws(torch.Generator().manual_seed(3))


# --- METHOD §3, one image at a time ---


def active_of(labels: Tensor) -> list[int]:
    """Active domains of one image; the slack domain where there is none."""
    return [n for n in range(DOMAINS) if labels[n]] or [DOMAINS]


def mixed(codes: Tensor, labels: Tensor) -> Tensor:
    """a = Σ d_n s_n / Σ d_n of one image."""
    chosen = [codes[n] for n in active_of(labels)]
    return sum(chosen[1:], chosen[0]) / len(chosen)


def codes_of(nets: Networks, batch: Batch, i: int, latent_rows: int, latents: Tensor | None = None) -> Tensor:
    """Target styles of one image: drawn from its latent, or its reference's; its own where it keeps that."""
    drawn = batch.z1 if latents is None else latents
    codes = nets.mapping(drawn[i, None])[0] if i < latent_rows else nets.style_encoder(batch.y[i, None])[0]
    if batch.kept is None:
        return codes
    own = nets.style_encoder(batch.x[i, None])[0]
    return torch.stack([own[n] if n < DOMAINS and batch.kept[i, n] else codes[n] for n in range(DOMAINS + 1)])


def moved(nets: Networks, image: Tensor, style: Tensor) -> Tensor:
    return nets.generator(image[None], style[None])[0]


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(x))


def naive_domain(guidance: Guidance, image: Tensor, n: int, label: bool, form: str) -> Tensor:
    seen = guidance.encode(image[None])[0]
    cosine, of_base = (seen * guidance.prompts.domains[n]).sum(), (seen * guidance.prompts.base).sum()
    p = cosine.clamp(1e-6, 1 - 1e-6) if form == "cosine" else 1 / (1 + torch.exp(-SCALE * (cosine - of_base)))
    return -torch.log(p) if label else -torch.log(1 - p)


def naive_generator_loss(
    nets: Networks,
    batch: Batch,
    guidance: Guidance,
    latent_rows: int,
    drawn: Tensor,
    flipped: Tensor,
    options: StepOptions,
    diversity: float,
    domain: float,
) -> dict[str, Tensor]:
    """METHOD 5 and 7 to 11 with a network pass of its own for every term of every image.

    The target of the style reconstruction is held fixed, unlike in the public code: it would shrink to a constant.
    """
    zero = torch.zeros(())
    terms: dict[str, list[Tensor]] = {
        "adversarial": [],
        "cycle": [],
        "style": [],
        "diversity": [],
        "kept": [],
        "turned": [],
        "others": [],
    }
    for i in range(len(batch.x)):
        wanted, source = batch.y_labels[i], batch.x[i]
        style = mixed(codes_of(nets, batch, i, latent_rows), wanted)
        made = moved(nets, source, style)
        logits = nets.discriminator(made[None])[0]
        terms["adversarial"] += [softplus(-logits[n]) for n in active_of(wanted)]
        terms["style"].append((style.detach() - mixed(nets.style_encoder(made[None])[0], wanted)).abs().mean())
        back = moved(nets, made, mixed(nets.style_encoder(source[None])[0], batch.x_labels[i]))
        terms["cycle"].append((source - back).abs().mean())
        turned = moved(nets, made, mixed(codes_of(nets, batch, i, latent_rows), flipped[i]))
        n = int(drawn[i])
        asked = [m for m in range(DOMAINS) if wanted[m]]
        judged = [n] if options.domain_scope == "drawn" else asked
        terms["kept"] += [naive_domain(guidance, made, m, bool(wanted[m]), options.domain_form) for m in judged]
        if options.domain_scope == "all":
            rest = [m for m in range(DOMAINS) if m not in asked]
            terms["others"] += [naive_domain(guidance, made, m, False, "margin") for m in rest]
        if options.domain_images == "both":
            terms["turned"].append(naive_domain(guidance, turned, n, bool(flipped[i, n]), options.domain_form))
        if i < latent_rows:
            with torch.no_grad():
                other = moved(nets, source, mixed(codes_of(nets, batch, i, latent_rows, batch.z2), wanted))
            terms["diversity"].append((made - other).abs().mean())
    means = {name: torch.stack(values).mean() if values else zero for name, values in terms.items()}
    means["domain"] = means.pop("kept") + means.pop("turned") + means.pop("others")
    weights = options.weights
    means["total"] = (
        weights.adversarial * means["adversarial"] + domain * means["domain"] + weights.cycle * means["cycle"]
        + weights.style * means["style"] - diversity * means["diversity"]
    )  # fmt: skip
    return means


def naive_discriminator_loss(nets: Networks, batch: Batch, latent_rows: int, r1: float) -> Tensor:
    real: list[Tensor] = []
    fake: list[Tensor] = []
    penalties = []
    for i in range(len(batch.x)):
        image = batch.x[i, None].clone().requires_grad_()
        of_real = [nets.discriminator(image)[0, n] for n in active_of(batch.x_labels[i])]
        (gradient,) = torch.autograd.grad(sum(of_real[1:], of_real[0]), image, create_graph=True)
        penalties.append(gradient.square().sum() / 2)
        with torch.no_grad():
            made = moved(nets, batch.x[i], mixed(codes_of(nets, batch, i, latent_rows), batch.y_labels[i]))
        logits = nets.discriminator(made[None])[0]
        real += [softplus(-value) for value in of_real]
        fake += [softplus(logits[n]) for n in active_of(batch.y_labels[i])]
    return torch.stack(real).mean() + torch.stack(fake).mean() + r1 * torch.stack(penalties).mean()


def gradients_of(module: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()}


def assert_gradients(module: nn.Module, loss: Tensor, grads: dict[str, Tensor | None] | None = None) -> None:
    """What ``module`` holds as gradients is the gradient of ``loss``; a parameter without one needs none."""
    named = dict(module.named_parameters())
    held = {name: parameter.grad for name, parameter in named.items()} if grads is None else grads
    expected = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    largest = max(reference.abs().max() for reference in expected)
    for (name, parameter), reference in zip(named.items(), expected, strict=True):
        result = held[name]
        difference = (torch.zeros_like(parameter) if result is None else result) - reference
        # A bias before a normalisation has a gradient of rounding errors alone.
        assert difference.abs().max() < 1e-5 * reference.abs().max() + 1e-8 * largest, name


# --- edits ---


def test_an_edit_adds_one_domain_of_the_reference_and_keeps_all_else_that_can_stay(batch: Batch) -> None:
    exclusive = torch.zeros(DOMAINS, DOMAINS, dtype=torch.bool)
    exclusive[0, 1] = exclusive[1, 0] = True
    batch = replace(batch, exclusive=exclusive)
    added = set()
    for seed in range(20):
        edits = with_edits(batch, 1.0, Draws(torch.Generator().manual_seed(seed)))
        assert edits.kept is not None
        for i in range(ROWS):
            had, asked, wanted = (set(torch.nonzero(each[i])[:, 0].tolist()) for each in
                                  (batch.x_labels, batch.y_labels, edits.y_labels))  # fmt: skip
            new = wanted - had
            assert len(new) == min(1, len(asked - had))
            assert new <= asked
            assert had - wanted == {1 - n for n in new if n < 2} & had  # what excludes the new one gives way
            assert set(torch.nonzero(edits.kept[i])[:, 0].tolist()) == wanted - new
            added |= {(i, n) for n in new}
    assert {n for i, n in added if i == 2} == {0, 2}  # a row without labels takes either of its reference's


def test_only_a_share_of_the_rows_are_edits(batch: Batch) -> None:
    many = replace(
        batch, x=batch.x.repeat(200, 1, 1, 1), x_labels=batch.x_labels.repeat(200, 1),
        y_labels=batch.y_labels.repeat(200, 1), exclusive=torch.zeros(DOMAINS, DOMAINS, dtype=torch.bool),
    )  # fmt: skip
    edits = with_edits(many, 0.3, seeded())
    assert edits.kept is not None
    whole = (edits.y_labels == many.y_labels).all(dim=1) & ~edits.kept.any(dim=1)
    assert 0.6 < whole.float().mean() < 0.8
    assert with_edits(many, 0.0, seeded()) is many
    assert with_edits(batch, 0.5, seeded()) is batch  # where nobody says what excludes what


@pytest.mark.parametrize("step", [fused_step, paper_step])
def test_what_an_edit_keeps_has_the_style_of_the_source_in_every_pass(
    nets: Networks, batch: Batch, prompts: Prompts, flips: Drawn, step: Steps
) -> None:
    batch = with_edits(replace(batch, exclusive=torch.zeros(DOMAINS, DOMAINS, dtype=torch.bool)), 0.6, seeded())
    assert batch.kept is not None
    assert 0 < batch.kept.any(dim=1).sum() < ROWS
    optimisers, log, judged = still(nets), [], []
    optimisers.generative.register_step_pre_hook(lambda *_: log.append(gradients_of(nets.generative)))
    optimisers.discriminator.register_step_pre_hook(lambda *_: judged.append(gradients_of(nets.discriminator)))
    step(nets, optimisers, batch, prompts, PLAN, StepOptions(WEIGHTS), seeded())
    kinds = [3] if step is fused_step else [ROWS, 0]
    for k, (latent_rows, drawn, flipped) in enumerate(zip(kinds, flips.drawn, flips.flipped, strict=True)):
        naive = naive_generator_loss(
            nets, batch, prompts(), latent_rows, drawn, flipped, StepOptions(WEIGHTS), 0.8, 0.7
        )
        module = nets.generative if k == 0 else nets.generator  # E_S and E_M do not learn in the second
        held = log[k] if k == 0 else {name.removeprefix("generator."): grad for name, grad in log[k].items()}
        assert_gradients(module, naive["total"], held)
        assert_gradients(
            nets.discriminator, naive_discriminator_loss(nets, batch, latent_rows, PLAN.r1_weight), judged[k]
        )


# --- fused ---


VARIANTS = {
    "drawn": StepOptions(WEIGHTS),
    "active": StepOptions(WEIGHTS, domain_scope="active"),
    "all": StepOptions(WEIGHTS, domain_scope="all"),
    "first": StepOptions(WEIGHTS, domain_scope="all", domain_images="first"),
    "cosine": StepOptions(WEIGHTS, domain_form="cosine"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_fused_step_gives_the_generator_the_gradient_of_separate_passes(
    nets: Networks, batch: Batch, prompts: Prompts, flips: Drawn, variant: str
) -> None:
    options = VARIANTS[variant]
    parts = fused_step(nets, still(nets), batch, prompts, PLAN, options, seeded())
    latent_rows = 3  # of five: the half with the odd one
    naive = naive_generator_loss(
        nets, batch, prompts(), latent_rows, flips.drawn[0], flips.flipped[0], options, 0.8, 0.7
    )
    for name in ("adversarial", "domain", "cycle", "style", "diversity", "total"):
        assert parts[name].item() == pytest.approx(naive[name].item(), rel=1e-6), name
        assert not parts[name].requires_grad
    assert_gradients(nets.generative, naive["total"])


@pytest.mark.parametrize("output", ["residual", "masked"])
@pytest.mark.parametrize("step", [fused_step, paper_step])
def test_the_same_holds_of_generators_that_change_their_input(
    batch: Batch, prompts: Prompts, flips: Drawn, step: Steps, output: str
) -> None:
    """Each decoding is added to the image whose content it decodes, or covers it: x for x̂, x̂ for the rest."""
    nets = build(output)
    optimisers, log = still(nets), []
    optimisers.generative.register_step_pre_hook(lambda *_: log.append(gradients_of(nets.generator)))
    step(nets, optimisers, batch, prompts, PLAN, StepOptions(WEIGHTS), seeded())
    kinds = [3] if step is fused_step else [ROWS, 0]
    for latent_rows, drawn, flipped, held in zip(kinds, flips.drawn, flips.flipped, log, strict=True):
        naive = naive_generator_loss(
            nets, batch, prompts(), latent_rows, drawn, flipped, StepOptions(WEIGHTS), 0.8, 0.7
        )
        assert_gradients(nets.generator, naive["total"], held)


def test_what_clip_judges_may_be_cropped_and_nothing_else(
    nets: Networks, batch: Batch, prompts: Prompts, flips: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here every crop is a mirror image, so that the naive losses can follow."""
    asked: list[tuple[int, float]] = []

    def mirror(images: Tensor, draws: Draws, probability: float) -> Tensor:
        asked.append((len(images), probability))
        return images.flip(3)

    monkeypatch.setattr(objectives, "flip_and_crop", mirror)
    options = StepOptions(WEIGHTS, guidance_crop=0.7)
    parts = fused_step(nets, still(nets), batch, prompts, PLAN, options, seeded())
    assert asked == [(2 * ROWS, 0.7)]
    mirrored = replace(prompts(), encode=lambda images: prompts.encode(images.flip(3)))
    naive = naive_generator_loss(nets, batch, mirrored, 3, flips.drawn[0], flips.flipped[0], options, 0.8, 0.7)
    for name in ("domain", "cycle", "total"):
        assert parts[name].item() == pytest.approx(naive[name].item(), rel=1e-6), name
    assert_gradients(nets.generative, naive["total"])
    fused_step(nets, still(nets), batch, prompts, PLAN, StepOptions(WEIGHTS), seeded())
    assert len(asked) == 1, "not by default"


def test_fused_step_gives_the_discriminator_its_own_loss_alone(nets: Networks, batch: Batch, prompts: Prompts) -> None:
    """Were the generator's loss to reach D, it would be added to this gradient."""
    parts = fused_step(nets, still(nets), batch, prompts, PLAN, StepOptions(WEIGHTS), seeded())
    loss = naive_discriminator_loss(nets, batch, 3, 0.0)
    assert parts["d_adversarial"].item() == pytest.approx(loss.item(), rel=1e-6)
    assert_gradients(nets.discriminator, loss)


def test_r1_is_paid_only_when_due(nets: Networks, batch: Batch, prompts: Prompts) -> None:
    due = replace(PLAN, r1_weight=4.0)
    parts = fused_step(nets, still(nets), batch, prompts, due, StepOptions(WEIGHTS), seeded())
    assert parts["r1"] > 0
    assert_gradients(nets.discriminator, naive_discriminator_loss(nets, batch, 3, 4.0))
    assert not batch.x.requires_grad
    assert "r1" not in fused_step(nets, still(nets), batch, prompts, PLAN, StepOptions(WEIGHTS), seeded())


def test_diversity_ends_with_its_weight(nets: Networks, batch: Batch, prompts: Prompts, flips: Drawn) -> None:
    ended = replace(PLAN, diversity_weight=0.0)
    parts = fused_step(nets, still(nets), batch, prompts, ended, StepOptions(WEIGHTS), seeded())
    assert "diversity" not in parts
    naive = naive_generator_loss(
        nets, batch, prompts(), 3, flips.drawn[0], flips.flipped[0], StepOptions(WEIGHTS), 0.0, 0.7
    )
    assert_gradients(nets.generative, naive["total"])


def test_only_the_first_image_of_the_diversity_loss_learns(nets: Networks, batch: Batch, prompts: Prompts) -> None:
    """METHOD (9), second image detached: what the mapping network learns of it is from z₁ alone."""
    weights = LossWeights(adversarial=0, domain=0, cycle=0, style=0)
    fused_step(nets, still(nets), batch, prompts, replace(PLAN, diversity_weight=1.0), StepOptions(weights), seeded())

    def diversity(detach: bool) -> Tensor:
        terms = []
        for i in range(3):
            styles = (mixed(nets.mapping(z[i, None])[0], batch.y_labels[i]) for z in (batch.z1, batch.z2))
            first, second = (moved(nets, batch.x[i], style) for style in styles)
            terms.append((first - (second.detach() if detach else second)).abs().mean())
        return torch.stack(terms).mean()

    assert_gradients(nets.generative, -diversity(detach=True))
    with pytest.raises(AssertionError):
        assert_gradients(nets.generative, -diversity(detach=False))


def test_the_flipped_label_is_the_one_generated_from(
    nets: Networks, batch: Batch, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """METHOD (10) and §8: x̂' = G(x̂, a_inv), with a_inv of the flipped label and the same codes, and CLIP judges it."""
    drawn = torch.tensor([1, 0, 2, 1, 0])
    flipped = batch.y_labels.clone()
    flipped[range(ROWS), drawn] ^= True
    flipped[0] = torch.tensor([False, False, True])  # the only one was flipped off: another is on
    monkeypatch.setattr(losses, "flip_one", lambda labels, draws: (drawn, flipped))
    decoded: list[tuple[Tensor, Tensor, Tensor]] = []
    decode = nets.generator.decode

    def spy(content: Tensor, style: Tensor, source: Tensor) -> Tensor:
        made = decode(content, style, source)
        decoded.append((content.detach(), style.detach(), made.detach()))
        return made

    monkeypatch.setattr(nets.generator, "decode", spy)
    fused_step(nets, still(nets), batch, prompts, PLAN, StepOptions(WEIGHTS), seeded())
    monkeypatch.setattr(nets.generator, "decode", decode)

    translations, second = decoded[0], decoded[1]
    with torch.no_grad():
        codes = torch.stack([codes_of(nets, batch, i, 3) for i in range(ROWS)])
        a = torch.stack([mixed(codes[i], batch.y_labels[i]) for i in range(ROWS)])
        a_inv = torch.stack([mixed(codes[i], flipped[i]) for i in range(ROWS)])
        a_x = torch.stack([mixed(nets.style_encoder(batch.x[i, None])[0], batch.x_labels[i]) for i in range(ROWS)])
        turned = nets.generator(translations[2], a_inv)
    assert ((a - a_inv).abs().amax(dim=1) > 1e-2).all(), "the flipped styles must be distinguishable for this test"
    torch.testing.assert_close(translations[1], a)
    torch.testing.assert_close(second[1], torch.cat([a_x, a_inv]))
    torch.testing.assert_close(second[2][ROWS:], turned)
    assert len(prompts.seen) == 1, "CLIP encodes the pairs of x̂ and x̂' once"
    torch.testing.assert_close(prompts.seen[0], torch.cat([translations[2], turned]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_domain_losses_judge_each_image_by_its_own_label(prompts: Prompts, variant: str) -> None:
    """The kept image by d^y, the turned one by d_inv, over uneven sizes."""
    for rows in (1, 4):
        random = torch.Generator().manual_seed(rows)
        images = torch.rand(2 * rows, 3, 32, 32, generator=random, dtype=torch.float64) * 2 - 1
        labels = torch.rand(rows, DOMAINS, generator=random) < 0.5
        drawn, flipped = real_flip_one(labels, Draws(random))
        options, guidance = VARIANTS[variant], prompts()
        kept = [
            naive_domain(guidance, images[i], n, bool(labels[i, n]), options.domain_form)
            for i in range(rows)
            for n in range(DOMAINS)
            if (n == drawn[i] if options.domain_scope == "drawn" else labels[i, n])
        ]
        others = [
            naive_domain(guidance, images[i], n, False, options.domain_form)
            for i in range(rows)
            for n in range(DOMAINS)
            if options.domain_scope == "all" and not labels[i, n]
        ]
        turned = [
            naive_domain(guidance, images[rows + i], int(drawn[i]), bool(flipped[i, drawn[i]]), options.domain_form)
            for i in range(rows)
        ]
        means = [sum(each, torch.zeros(())) / max(len(each), 1) for each in (kept, others)]
        expected, seen = means[0] + means[1], images[:rows]
        if options.domain_images == "both":
            expected, seen = expected + torch.stack(turned).mean(), images
        result = domain_losses(guidance.prompts, guidance.encode(seen), drawn, labels, flipped, options)
        assert result.item() == pytest.approx(expected.item(), rel=1e-6)


def test_an_offset_moves_the_margin_at_which_an_image_has_the_domain(prompts: Prompts) -> None:
    """p_n > ½ exactly where labelling with the offset labels the image (METHOD 10)."""
    images = torch.rand(8, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 1, 0], [1, 1, 1]], dtype=torch.bool)
    drawn = torch.tensor([2, 0, 1, 1])
    guidance, offsets = prompts(), torch.tensor([0.05, -0.1, 0.2], dtype=torch.float64)
    plain, seen = guidance.prompts, guidance.encode(images)
    expected = 0.0
    for i, n in enumerate(drawn.tolist()):
        for image, label in ((i, labels[i, n]), (4 + i, ~labels[i, n])):
            p = torch.sigmoid(SCALE * (seen.detach()[image] @ (plain.domains[n] - plain.base).detach() - offsets[n]))
            expected -= float(torch.log(p if label else 1 - p)) / 4
    flipped = labels.clone()
    flipped[range(4), drawn] = ~flipped[range(4), drawn]
    result = domain_losses(replace(plain, offsets=offsets), seen, drawn, labels, flipped, StepOptions())
    assert result.item() == pytest.approx(expected)
    assert result.item() != pytest.approx(domain_losses(plain, seen, drawn, labels, flipped, StepOptions()).item())


@pytest.mark.parametrize(("kind", "latent_rows"), [("latent", ROWS), ("reference", 0), ("both", 3)])
def test_targets_come_from_latents_then_references(nets: Networks, batch: Batch, kind: Any, latent_rows: int) -> None:
    targets = make_targets(nets, batch, kind)
    assert targets.latent_rows == latent_rows
    for i in range(ROWS):
        codes = codes_of(nets, batch, i, latent_rows)
        torch.testing.assert_close(targets.codes[i], codes)
        torch.testing.assert_close(targets.style[i], mixed(codes, batch.y_labels[i]))
        own = mixed(nets.style_encoder(batch.x[i, None])[0], batch.x_labels[i])
        torch.testing.assert_close(targets.source_style[i], own)
        if i < latent_rows:
            assert targets.second is not None
            second = mixed(nets.mapping(batch.z2[i, None])[0], batch.y_labels[i])
            torch.testing.assert_close(targets.second[i], second)
    assert (targets.second is None) == (latent_rows == 0)


# --- paper ---


def test_paper_step_is_four_passes_of_the_naive_losses(
    nets: Networks, batch: Batch, prompts: Prompts, flips: Drawn
) -> None:
    """D-latent, D-reference, G-latent, G-reference; in the last, E_S and E_M have no gradient at all."""
    optimisers, log = still(nets), []

    def note(name: str, module: nn.Module) -> Callable[..., None]:
        return lambda *_: log.append((name, gradients_of(module)))

    optimisers.generative.register_step_pre_hook(note("G", nets.generative))
    optimisers.discriminator.register_step_pre_hook(note("D", nets.discriminator))
    paper_step(nets, optimisers, batch, prompts, replace(PLAN, r1_weight=2.0), StepOptions(WEIGHTS), seeded())
    assert [name for name, _ in log] == ["D", "D", "G", "G"]
    for (_, grads), latent_rows in zip(log[:2], (ROWS, 0), strict=True):
        assert_gradients(nets.discriminator, naive_discriminator_loss(nets, batch, latent_rows, 2.0), grads)
    options, guidance = StepOptions(WEIGHTS), prompts()
    latent = naive_generator_loss(nets, batch, guidance, ROWS, flips.drawn[0], flips.flipped[0], options, 0.8, 0.7)
    assert_gradients(nets.generative, latent["total"], log[2][1])
    with frozen(nets.style_encoder, nets.mapping):
        reference = naive_generator_loss(nets, batch, guidance, 0, flips.drawn[1], flips.flipped[1], options, 0.8, 0.7)
        grads = {
            name.removeprefix("generator."): grad for name, grad in log[3][1].items() if name.startswith("generator.")
        }
        assert_gradients(nets.generator, reference["total"], grads)
    rest = [grad for name, grad in log[3][1].items() if not name.startswith("generator.")]
    assert rest
    assert all(grad is None for grad in rest)


def test_paper_step_leaves_style_encoder_and_mapping_in_the_reference_pass(
    nets: Networks, batch: Batch, prompts: Prompts
) -> None:
    """With the optimiser in use: neither momentum nor weight decay may move them."""
    adam = {"lr": 1e-3, "betas": (0.0, 0.99), "weight_decay": 1e-4}
    optimisers = Optimisers(
        torch.optim.Adam(nets.generative.parameters(), **adam),
        torch.optim.Adam(nets.discriminator.parameters(), **adam),
    )
    states: list[dict[str, Tensor]] = []
    optimisers.generative.register_step_post_hook(lambda *_: states.append(copy.deepcopy(nets.generative.state_dict())))
    start = copy.deepcopy(nets.generative.state_dict())
    paper_step(nets, optimisers, batch, prompts, PLAN, StepOptions(WEIGHTS), seeded())
    latent, reference = states
    for name in start:
        learns_in_reference = name.startswith("generator.")
        assert not torch.equal(start[name], latent[name]), name
        assert torch.equal(latent[name], reference[name]) != learns_in_reference, name


# --- what may learn ---


@pytest.mark.parametrize("step", [fused_step, paper_step])
def test_everything_may_learn_again_after_a_step(nets: Networks, batch: Batch, prompts: Prompts, step: Steps) -> None:
    step(nets, still(nets), batch, prompts, PLAN, StepOptions(WEIGHTS), seeded())
    assert all(parameter.requires_grad for parameter in nets.parameters())


def test_frozen_restores_what_it_froze_and_no_more() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)

    def fail() -> None:
        with frozen(module):
            assert not module.weight.requires_grad
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert module.weight.requires_grad
    assert not module.bias.requires_grad


@pytest.mark.parametrize("step", [fused_step, paper_step])
@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("mode", ["alternate", "joint", "prompts-only", "generator-only"])
def test_prompts_move_only_in_phase_2_and_only_in_the_modes_that_say_so(
    nets: Networks, batch: Batch, prompts: Prompts, step: Steps, mode: Any, learns: bool
) -> None:
    optimisers = Optimisers(
        torch.optim.SGD(nets.generative.parameters(), lr=1e-3),
        torch.optim.SGD(nets.discriminator.parameters(), lr=1e-3),
        torch.optim.SGD([prompts.table], lr=1e-2),
    )
    table, before = prompts.table.detach().clone(), copy.deepcopy(nets)
    step(
        nets,
        optimisers,
        batch,
        prompts,
        replace(PLAN, learn_prompts=learns),
        StepOptions(WEIGHTS, prompt_update=mode),
        seeded(),
    )
    assert torch.equal(table, prompts.table) != (learns and mode != "generator-only")
    for name in ("generator", "style_encoder", "mapping", "discriminator"):
        after, start = getattr(nets, name).parameters(), getattr(before, name).parameters()
        assert not all(torch.equal(a, b) for a, b in zip(after, start, strict=True)), f"{name} learns in every mode"


@pytest.mark.parametrize("mode", ["alternate", "joint", "prompts-only", "generator-only"])
def test_prompts_and_generator_get_the_gradients_of_their_mode(
    nets: Networks, batch: Batch, prompts: Prompts, flips: Drawn, mode: Any
) -> None:
    """METHOD (14): the prompts learn from λ_dl L_dl, images held fixed; prompts-only keeps it from the generator."""
    options = StepOptions(WEIGHTS, prompt_update=mode)
    fused_step(nets, still(nets, prompts), batch, prompts, replace(PLAN, learn_prompts=True), options, seeded())
    held = prompts.table.grad
    domain = 0.0 if mode == "prompts-only" else 0.7
    naive = naive_generator_loss(nets, batch, prompts(), 3, flips.drawn[0], flips.flipped[0], options, 0.8, domain)
    (expected,) = torch.autograd.grad(0.7 * naive["domain"], prompts.table, retain_graph=True)
    assert_gradients(nets.generative, naive["total"])
    if mode == "generator-only":
        assert held is None
    else:
        assert held is not None
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(held, expected, rtol=1e-6, atol=1e-9)


def test_phase_1_leaves_no_gradient_on_the_prompts(nets: Networks, batch: Batch, prompts: Prompts) -> None:
    fused_step(nets, still(nets, prompts), batch, prompts, PLAN, StepOptions(WEIGHTS), seeded())
    assert prompts.table.grad is None


@pytest.mark.parametrize("step", [fused_step, paper_step])
def test_a_batch_without_labels_trains_as_slack(nets: Networks, batch: Batch, prompts: Prompts, step: Steps) -> None:
    """METHOD (3): nothing is skipped, and nothing divides by zero."""
    none = torch.zeros_like(batch.x_labels)
    parts = step(
        nets, still(nets), replace(batch, x_labels=none, y_labels=none), prompts, PLAN, StepOptions(WEIGHTS), seeded()
    )
    assert all(torch.isfinite(value) for value in parts.values())
    assert all(torch.isfinite(p.grad).all() for p in nets.parameters() if p.grad is not None)


@pytest.mark.parametrize("step", [fused_step, paper_step])
def test_a_step_is_a_function_of_its_generator(nets: Networks, batch: Batch, prompts: Prompts, step: Steps) -> None:
    torch.manual_seed(1)
    first = step(nets, still(nets), batch, prompts, PLAN, StepOptions(WEIGHTS), seeded())
    torch.manual_seed(2)
    again = step(nets, still(nets), batch, prompts, PLAN, StepOptions(WEIGHTS), seeded())
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("step", [fused_step, paper_step])
def test_bf16_computes_near_the_same_losses_in_float32(
    nets: Networks, batch: Batch, prompts: Prompts, step: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    nets, prompts = nets.float(), prompts.float()
    batch = Batch(batch.x.float(), batch.x_labels, batch.y.float(), batch.y_labels, batch.z1.float(), batch.z2.float())
    exact = step(nets, still(nets), batch, prompts, PLAN, StepOptions(WEIGHTS), seeded())
    rough = step(nets, still(nets), batch, prompts, PLAN, StepOptions(WEIGHTS, bf16=True), seeded())
    for name, value in rough.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.1, abs=0.05), name
    assert all(p.dtype == torch.float32 for p in nets.parameters())
