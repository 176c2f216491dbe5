"""Optional terms and forms of the losses: each is its equation in loops, alone and in a step; at 0 it costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lanit import losses
from lanit.codes import CodeTable, NormalCodes
from lanit.errors import UsageError
from lanit.losses import LossWeights
from lanit.methods.stargan import StarganOptions
from lanit.networks import NetworkOptions
from lanit.objectives import Batch, Networks, StepOptions
from lanit.steps import fused_step, paper_step
from tests import test_steps as steps
from tests.test_losses import labels_of, over_active, same, values_of
from tests.test_steps import (
    DOMAINS,
    PLAN,
    ROWS,
    STYLE,
    WIDTH,
    Drawn,
    Prompts,
    active_of,
    assert_gradients,
    gradients_of,
    mixed,
    moved,
    naive_generator_loss,
    seeded,
    still,
)

exact, nets, batch, prompts, flips = (getattr(steps, name) for name in ("exact", "nets", "batch", "prompts", "flips"))
SIZES = [(1, 1), (2, 5), (7, 3)]
TERMS = ("identity", "distance", "self", "feature", "direction", "triplet", "shrink", "content", "pair")


# --- each loss ---


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["hinge", "lsgan"])
def test_adversarial_forms(size: tuple[int, int], form: Any) -> None:
    real, fake = values_of(*size, seed=1), values_of(*size, seed=2)
    of_real, of_fake = labels_of(*size, seed=3), labels_of(*size, 0.7, seed=4)
    zero = torch.zeros((), dtype=torch.float64)
    if form == "hinge":
        d = over_active(lambda i, n: torch.maximum(zero, 1 - real[i, n]), of_real) + over_active(
            lambda i, n: torch.maximum(zero, 1 + fake[i, n]), of_fake
        )
        g = over_active(lambda i, n: -fake[i, n], of_fake)
    else:
        d = over_active(lambda i, n: (real[i, n] - 1) ** 2 / 2, of_real) + over_active(
            lambda i, n: fake[i, n] ** 2 / 2, of_fake
        )
        g = over_active(lambda i, n: (fake[i, n] - 1) ** 2, of_fake)
    same(losses.discriminator_loss(real, of_real, fake, of_fake, form=form), d, [real, fake])
    same(losses.adversarial_loss(fake, of_fake, form=form), g, [fake])


@pytest.mark.parametrize("size", SIZES)
def test_a_classifier_learns_every_domain_and_its_images_are_to_show_theirs_alone(size: tuple[int, int]) -> None:
    classes, labels = values_of(*size, seed=1), labels_of(*size, 0.4, seed=2)
    missed = lambda i, n: -torch.log(torch.sigmoid(classes[i, n]))  # noqa: E731
    false = lambda i, n: -torch.log(1 - torch.sigmoid(classes[i, n]))  # noqa: E731
    every = [(missed if labels[i, n] else false)(i, n) for i in range(size[0]) for n in range(size[1])]
    same(losses.real_classification_loss(classes, labels), torch.stack(every).mean(), [classes], 1e-7)
    made = over_active(missed, labels) + over_active(false, ~labels)
    same(losses.domain_loss_all(classes, labels, 1.0), made, [classes], 1e-7)


def without(vector: Tensor, directions: Tensor) -> Tensor:
    """What is left of a vector by Gram and Schmidt."""
    axes: list[Tensor] = []
    for direction in directions:
        rest = direction - sum(((direction @ axis) * axis for axis in axes), torch.zeros_like(direction))
        axes.append(rest / rest.norm())
    return vector - sum(((vector @ axis) * axis for axis in axes), torch.zeros_like(vector))


def angle(a: Tensor, b: Tensor) -> Tensor:
    return 1 - (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()


@pytest.mark.parametrize("rows", [1, 5])
def test_feature_loss_is_an_angle_beside_the_domains(rows: int) -> None:
    made, source, directions = values_of(rows, 7), values_of(rows, 7, seed=1), values_of(3, 7, seed=2).detach()
    naive = sum((angle(without(m, directions), without(s, directions)) for m, s in zip(made, source, strict=True)))
    same(losses.feature_loss(made, source, directions), naive / rows, [made, source], 1e-7)  # type: ignore[operator]
    moved_along = source + 3 * directions[0] - directions[2]
    assert losses.feature_loss(moved_along, source, directions).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("changing", [0, 1, 3])
def test_direction_loss_looks_at_images_whose_labels_change(changing: int) -> None:
    made, source, texts = values_of(4, 6), values_of(4, 6, seed=1), values_of(4, 6, seed=2).detach()
    texts[changing:] = 0
    terms = [angle(made[i] - source[i], texts[i]) for i in range(changing)]
    naive = sum(terms, torch.zeros((), dtype=torch.float64)) / max(changing, 1)
    same(losses.direction_loss(made, source, texts), naive, [made, source], 1e-7)


def test_triplet_loss_has_a_margin_of_a_tenth() -> None:
    anchor, positive, negative = (values_of(6, 4, seed=seed) for seed in range(3))
    changes = torch.tensor([1, 1, 0, 1, 0, 1], dtype=torch.bool)
    terms = []
    for i in range(6):
        near, far = (anchor[i] - positive[i]).square().sum().sqrt(), (anchor[i] - negative[i]).square().sum().sqrt()
        terms += [torch.clamp(near - far + 0.1, min=0)] if changes[i] else []
    assert 0 < sum(bool(term > 0) for term in terms) < 4
    same(
        losses.triplet_loss(anchor, positive, negative, changes),
        torch.stack(terms).mean(),
        [anchor, positive, negative],
    )


def test_shrink_loss_is_of_squares() -> None:
    target, source = values_of(3, 5), values_of(3, 5, seed=1)
    naive = (
        sum(value**2 for row in target for value in row) / 15 + sum(value**2 for row in source for value in row) / 15
    )
    same(losses.shrink_loss(target, source), naive, [target, source])


def standardised(content: Tensor) -> Tensor:
    maps = content.flatten(2)
    spread = (maps - maps.mean(dim=2, keepdim=True)).square().mean(dim=2, keepdim=True)
    return ((maps - maps.mean(dim=2, keepdim=True)) / (spread + 1e-5).sqrt()).reshape(content.shape)


def test_content_loss_is_blind_to_the_scale_of_a_map_and_holds_the_source() -> None:
    made, source = values_of(2, 3, 4, 4), values_of(2, 3, 4, 4, seed=1)
    naive = (standardised(made) - standardised(source.detach())).abs().mean()
    same(losses.content_loss(made, source), naive, [made, source], 1e-7)
    assert losses.content_loss(1000 * source + 5, source).item() == pytest.approx(0, abs=1e-5)


def apart(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean()


@pytest.mark.parametrize("rows", [2, 5])
def test_distance_loss_compares_standardised_distances(rows: int) -> None:
    made, source = values_of(rows, 3, 2, 2), values_of(rows, 3, 2, 2, seed=1)
    moments = [values_of(2, rows, seed=seed).detach().abs() + 0.5 for seed in (2, 3)]
    terms = []
    for i in range(rows):
        for j in range(i):
            means = [((of[0, i] + of[0, j]) / 2, (of[1, i] + of[1, j]) / 2) for of in moments]
            kept = (apart(source[i], source[j]) - means[0][0]) / means[0][1]
            terms.append((kept - (apart(made[i], made[j]) - means[1][0]) / means[1][1]).abs())
    same(losses.distance_loss(made, source, (moments[0], moments[1])), torch.stack(terms).mean(), [made, source])


def test_moments_are_of_images_within_a_domain() -> None:
    images, labels = values_of(6, 3, 2, 2).detach(), labels_of(6, 3, 0.6, seed=2)
    labels[:, 1] = torch.tensor([1, 0, 0, 0, 0, 1], dtype=torch.bool)  # too few: those of all
    found = losses.distance_moments(images, labels)
    for n in range(3):
        rows = [i for i in range(6) if labels[i, n] or n == 1]
        pairs = torch.stack([apart(images[i], images[j]) for i in rows for j in rows if i < j])
        torch.testing.assert_close(found[:, n], torch.stack([pairs.mean(), pairs.std()]).to(found.dtype))


# --- in a step ---


def naive_terms(nets: Networks, batch: Batch, prompts: Prompts, latent_rows: int, moments: Tensor) -> dict[str, Tensor]:
    """Every term with network passes of its own, an image at a time."""
    encode, guidance = prompts.encode, prompts()
    texts = [*guidance.prompts.domains.detach(), guidance.prompts.base.detach()]
    directions = torch.stack([text - texts[-1] for text in texts[:-1]])
    found: dict[str, list[Tensor]] = {name: [] for name in TERMS}
    made, styles, own_styles = [], [], []
    for i in range(len(batch.x)):
        x, y, wanted, had = batch.x[i], batch.y[i], batch.y_labels[i], batch.x_labels[i]
        codes = nets.mapping(batch.z1[i, None])[0] if i < latent_rows else nets.generative.own_codes(y[None])[0]
        style, own = mixed(codes, wanted), mixed(nets.generative.own_codes(x[None])[0], had)
        image = moved(nets, x, style)
        made.append(image)
        styles.append(style)
        own_styles.append(own)
        found["identity"].append(apart(x, moved(nets, x, own)))
        found["self"].append(apart(image, x))
        found["pair"].append(apart(image, y))
        contents = [standardised(nets.generator.encode(each[None])) for each in (image, x)]
        found["content"].append(apart(contents[0], contents[1].detach()))
        seen, before = encode(image[None])[0], encode(x[None])[0].detach()
        found["feature"].append(angle(without(seen, directions), without(before, directions)))
        changes = active_of(wanted) != active_of(had)
        if changes:
            means = [sum(texts[n] for n in active_of(each)) / len(active_of(each)) for each in (wanted, had)]
            found["direction"].append(angle(seen - before, means[0] - means[1]))
        if changes and i < latent_rows:
            second = mixed(nets.mapping(batch.z2[i, None])[0], wanted)
            near, far = (style - second).norm(), (style - mixed(codes, had)).norm()
            found["triplet"].append(torch.clamp(near - far + 0.1, min=0))
    for i in range(len(made)):
        for j in range(i):
            scales = []
            for labels in (batch.x_labels, batch.y_labels):
                of = [sum(moments[:, n] for n in active_of(labels[k])) / len(active_of(labels[k])) for k in (i, j)]
                scales.append((of[0] + of[1]) / 2)
            kept = (apart(batch.x[i], batch.x[j]) - scales[0][0]) / scales[0][1]
            found["distance"].append((kept - (apart(made[i], made[j]) - scales[1][0]) / scales[1][1]).abs())
    found["shrink"] = [torch.stack(styles).square().mean() + torch.stack(own_styles).square().mean()]
    return {name: torch.stack(values).mean() if values else torch.zeros(()) for name, values in found.items()}


MOMENTS = torch.tensor([[0.3, 0.4, 0.5, 0.6], [0.1, 0.2, 0.15, 0.3]], dtype=torch.float64)
BASE = LossWeights(adversarial=0.9, domain=0.7, cycle=1.3, style=1.1)


@pytest.mark.parametrize("term", [*TERMS, "all"])
@pytest.mark.parametrize("step", [fused_step, paper_step])
def test_a_step_with_a_term_gives_the_gradient_of_separate_passes(
    nets: Networks, batch: Batch, prompts: Prompts, flips: Drawn, step: Callable[..., Any], term: str
) -> None:
    batch = replace(batch, paired=True)
    chosen = TERMS if term == "all" else (term,)
    weights = replace(BASE, **{name: 0.2 + 0.1 * TERMS.index(name) for name in chosen})
    options = StepOptions(weights, moments=MOMENTS)
    optimisers, held = still(nets), []
    optimisers.generative.register_step_pre_hook(lambda *_: held.append(gradients_of(nets.generative)))
    parts = step(nets, optimisers, batch, prompts, PLAN, options, seeded())
    totals = []
    for call, latent_rows in enumerate([3] if step is fused_step else [ROWS, 0]):
        drawn, flipped = flips.drawn[call], flips.flipped[call]
        naive = naive_generator_loss(nets, batch, prompts(), latent_rows, drawn, flipped, options, 0.8, 0.7)
        added = naive_terms(nets, batch, prompts, latent_rows, MOMENTS)
        total = naive["total"] + sum(getattr(weights, name) * added[name] for name in chosen)
        if call == 0:
            assert_gradients(nets.generative, total, held[0])
        else:  # E_S and E_M do not learn in the second
            assert_gradients(nets.generator, total, {name.removeprefix("generator."): g for name, g in held[1].items()})
        totals.append(naive | added | {"total": total})
    for name in (*chosen, "total"):
        values = [each[name].item() for each in totals[: 1 if name == "triplet" else None]]
        assert parts[name].item() == pytest.approx(sum(values) / len(values), rel=1e-6), name


@pytest.mark.parametrize("form", ["hinge", "lsgan"])
def test_a_step_takes_its_adversarial_form_on_both_sides(
    nets: Networks, batch: Batch, prompts: Prompts, form: Any
) -> None:
    parts = fused_step(nets, still(nets), batch, prompts, PLAN, StepOptions(BASE, adversarial_form=form), seeded())
    real, fake, made = [], [], []
    for i in range(ROWS):
        codes = steps.codes_of(nets, batch, i, 3)
        image = moved(nets, batch.x[i], mixed(codes, batch.y_labels[i]))
        logits = nets.discriminator(image[None])[0]
        made += [-logits[n] if form == "hinge" else (logits[n] - 1) ** 2 for n in active_of(batch.y_labels[i])]
        logits = nets.discriminator(image.detach()[None])[0]
        chosen = [logits[n] for n in active_of(batch.y_labels[i])]
        fake += [torch.clamp(1 + each, min=0) if form == "hinge" else each**2 / 2 for each in chosen]
        logits = nets.discriminator(batch.x[i, None])[0]
        chosen = [logits[n] for n in active_of(batch.x_labels[i])]
        real += [torch.clamp(1 - each, min=0) if form == "hinge" else (each - 1) ** 2 / 2 for each in chosen]
    loss = torch.stack(real).mean() + torch.stack(fake).mean()
    assert parts["d_adversarial"].item() == pytest.approx(loss.item())
    assert parts["adversarial"].item() == pytest.approx(torch.stack(made).mean().item())
    assert_gradients(nets.discriminator, loss)


def sized(**changes: Any) -> Networks:
    torch.manual_seed(0)
    sizes = NetworkOptions(32, DOMAINS + 1, 4, 8, 0, STYLE, 16, WIDTH)
    return Networks(replace(sizes, **changes)).to(torch.float64)


@pytest.mark.parametrize("step", [fused_step, paper_step])
def test_with_a_table_every_style_is_its_domains(
    batch: Batch, prompts: Prompts, flips: Drawn, step: Callable[..., Any]
) -> None:
    """CycleGAN's job: adversarial, cycle and identity alone; no E_S to pass, no diversity, no CLIP."""
    nets = sized(codes="table")
    assert isinstance(nets.mapping, CodeTable)
    batch = replace(batch, z1=batch.z1[:, :0], z2=batch.z2[:, :0])
    weights = LossWeights(adversarial=0.9, domain=0, cycle=1.3, style=1.1, identity=0.6)
    optimisers, held = still(nets), []
    optimisers.generative.register_step_pre_hook(lambda *_: held.append(gradients_of(nets.generative)))
    parts = step(nets, optimisers, batch, prompts, PLAN, StepOptions(weights), seeded())
    assert not prompts.seen
    assert not {"style", "diversity", "domain"} & parts.keys()
    loss = torch.zeros((), dtype=torch.float64)
    judged = []
    for i in range(ROWS):
        own, wanted = (mixed(nets.mapping.table, labels[i]) for labels in (batch.x_labels, batch.y_labels))
        image = moved(nets, batch.x[i], wanted)
        logits = nets.discriminator(image[None])[0]
        judged += [steps.softplus(-logits[n]) for n in active_of(batch.y_labels[i])]
        loss = loss + 1.3 * apart(batch.x[i], moved(nets, image, own)) / ROWS
        loss = loss + 0.6 * apart(batch.x[i], moved(nets, batch.x[i], own)) / ROWS
    assert_gradients(nets.generative, loss + 0.9 * torch.stack(judged).mean(), held[0])


@pytest.mark.parametrize("step", [fused_step, paper_step])
def test_a_discriminator_that_classifies_teaches_the_generator_what_it_learned(
    batch: Batch, prompts: Prompts, step: Callable[..., Any]
) -> None:
    """StarGAN's job: D's second head learns d^x from x, G is to be seen to show d^y; R1 is of the first head alone."""
    nets, plan = sized(classifies=True), replace(PLAN, r1_weight=2.0)
    judge = lambda image: nets.discriminator.judge(image[None])  # noqa: E731
    optimisers, held, judged = still(nets), [], []
    optimisers.generative.register_step_pre_hook(lambda *_: held.append(gradients_of(nets.generative)))
    optimisers.discriminator.register_step_pre_hook(lambda *_: judged.append(gradients_of(nets.discriminator)))
    weights = LossWeights(adversarial=0.9, domain=0, cycle=0, style=0, classification=0.6)
    plain = replace(plan, diversity_weight=0.0)
    parts = step(nets, optimisers, batch, prompts, plain, StepOptions(weights), seeded())
    assert not prompts.seen
    values = []
    for latent_rows, generative, discriminator in zip(
        [3] if step is fused_step else [ROWS, 0], held, judged, strict=True
    ):
        adversarial, shown, missing, told = [], [], [], []
        for i in range(ROWS):
            had, classes = batch.x_labels[i], judge(batch.x[i])[1][0]
            told += [steps.softplus(-classes[n] if had[n] else classes[n]) for n in range(DOMAINS)]
            image = moved(nets, batch.x[i], mixed(steps.codes_of(nets, batch, i, latent_rows), batch.y_labels[i]))
            logits, classes = (each[0] for each in judge(image))
            wanted = [n for n in range(DOMAINS) if batch.y_labels[i, n]]
            adversarial += [steps.softplus(-logits[n]) for n in active_of(batch.y_labels[i])]
            shown += [steps.softplus(-classes[n]) for n in wanted]
            missing += [steps.softplus(classes[n]) for n in range(DOMAINS) if n not in wanted]
        classified = torch.stack(shown).mean() + torch.stack(missing).mean()
        values.append(classified.item())
        total = 0.9 * torch.stack(adversarial).mean() + 0.6 * classified
        if latent_rows:
            assert_gradients(nets.generative, total, generative)
        else:  # E_S and E_M do not learn in the second
            of_generator = {name.removeprefix("generator."): g for name, g in generative.items()}
            assert_gradients(nets.generator, total, of_generator)
        apart_from = steps.naive_discriminator_loss(nets, batch, latent_rows, 2.0)
        learned = torch.stack(told).mean()
        assert parts["d_classification"].item() == pytest.approx(learned.item())
        assert_gradients(nets.discriminator, apart_from + 0.6 * learned, discriminator)
    assert parts["classification"].item() == pytest.approx(sum(values) / len(values))


def test_normal_codes_are_the_targets_of_latent_rows(batch: Batch, prompts: Prompts) -> None:
    nets = sized(codes="normal")
    assert isinstance(nets.mapping, NormalCodes)
    z1, z2 = torch.randn(2, ROWS, STYLE, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    batch = replace(batch, z1=z1, z2=z2)
    weights = LossWeights(adversarial=0, domain=0, cycle=0, style=1)
    parts = fused_step(nets, still(nets), batch, prompts, PLAN, StepOptions(weights), seeded())
    terms = []
    for i in range(ROWS):
        codes = nets.mapping.means + z1[i] if i < 3 else nets.style_encoder(batch.y[i, None])[0]
        style = mixed(codes, batch.y_labels[i])
        image = moved(nets, batch.x[i], style)
        terms.append(apart(style.detach(), mixed(nets.style_encoder(image[None])[0], batch.y_labels[i])))
    assert parts["style"].item() == pytest.approx(torch.stack(terms).mean().item())


def test_a_discriminator_of_pairs_sees_each_image_beside_its_source(batch: Batch, prompts: Prompts) -> None:
    """pix2pix: real are (x, y), made are (x, x̂), both under the target label; R1 is of y."""
    nets, batch = sized(discriminator_input="pair"), replace(batch, paired=True)
    plan = replace(PLAN, r1_weight=2.0)
    fused_step(nets, still(nets), batch, prompts, plan, StepOptions(replace(BASE, pair=3.0)), seeded())
    real, fake, penalties = [], [], []
    for i in range(ROWS):
        y = batch.y[i].clone().requires_grad_()
        judge = lambda image, i=i: nets.discriminator.logits(  # noqa: E731
            nets.discriminator.trunk(torch.cat([batch.x[i], image])[None])
        ).flatten()
        of_real = [judge(y)[n] for n in active_of(batch.y_labels[i])]
        (gradient,) = torch.autograd.grad(sum(of_real[1:], of_real[0]), y, create_graph=True)
        penalties.append(gradient.square().sum() / 2)
        with torch.no_grad():
            made = moved(nets, batch.x[i], mixed(steps.codes_of(nets, batch, i, 3), batch.y_labels[i]))
        real += [steps.softplus(-value) for value in of_real]
        fake += [steps.softplus(judge(made)[n]) for n in active_of(batch.y_labels[i])]
    loss = torch.stack(real).mean() + torch.stack(fake).mean() + 2 * torch.stack(penalties).mean()
    assert_gradients(nets.discriminator, loss)


# --- nothing costs where nothing is asked for ---


@pytest.mark.parametrize("step", [fused_step, paper_step])
def test_at_weight_0_a_term_makes_no_pass_through_any_network(
    nets: Networks, batch: Batch, prompts: Prompts, step: Callable[..., Any]
) -> None:
    """LANIT's own step: E_C of x and x̂, one decoding and one more of two styles, CLIP of x̂ and x̂' together."""
    calls: list[str] = []
    for name in ("encode", "decode"):
        inner = getattr(nets.generator, name)
        setattr(nets.generator, name, lambda *given, inner=inner, name=name: (calls.append(name), inner(*given))[1])
    for name in ("style_encoder", "mapping"):
        getattr(nets, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    parts = step(nets, still(nets), batch, prompts, replace(PLAN, diversity_weight=0.0), StepOptions(BASE), seeded())
    passes = {name: calls.count(name) for name in sorted(set(calls))}
    if step is fused_step:
        assert passes == {"decode": 2, "encode": 2, "mapping": 1, "style_encoder": 2}
    else:
        assert passes == {"decode": 5, "encode": 4, "mapping": 1, "style_encoder": 5}
    assert [len(seen) for seen in prompts.seen] == [2 * ROWS] * (1 if step is fused_step else 2)
    assert not set(TERMS) & parts.keys()


def test_every_term_is_a_setting_that_is_off() -> None:
    found = {each.name: each.default for each in fields(LossWeights)}
    assert list(found)[4:] == [*TERMS, "classification"]
    assert not any(found[name] for name in [*TERMS, "classification"])


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="triplet compares styles of a domain, but codes=table has one"):
        StarganOptions(networks=NetworkOptions(codes="table"), terms=StepOptions(LossWeights(triplet=1.0)))
    with pytest.raises(UsageError, match="apart"):
        StarganOptions(NetworkOptions(discriminator_input="pair"), StepOptions(augment="differentiable"))
