"""One training iteration: METHOD §3, schedules ``fused`` and ``paper``.

Every function here works on tensors and returns ``(loss, parts)`` or parts alone; parts stay on the device.
Labels reach the networks with the slack domain appended; CLIP sees the prompts alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from lanit import losses
from lanit.augment import flip_and_crop
from lanit.labels import margin, similarity, with_slack
from lanit.networks import (
    Discriminator,
    GenerativeNetworks,
    Generator,
    MappingNetwork,
    NetworkOptions,
    StyleEncoder,
    aggregate,
)

Parts = dict[str, Tensor]
TargetKind = Literal["latent", "reference", "both"]
PromptUpdate = Literal["alternate", "joint", "prompts-only", "generator-only"]


class Networks(nn.Module):
    """The four networks of METHOD §2."""

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.generative = GenerativeNetworks(options)
        self.discriminator = Discriminator(options)

    @property
    def generator(self) -> Generator:
        return self.generative.generator

    @property
    def style_encoder(self) -> StyleEncoder:
        return self.generative.style_encoder

    @property
    def mapping(self) -> MappingNetwork:
        return self.generative.mapping


@dataclass(frozen=True)
class LossWeights:
    """λ of METHOD 11 and the R1 weight of METHOD 6. ``diversity`` is where its decay starts."""

    adversarial: float = 1.0
    domain: float = 0.5
    cycle: float = 1.0
    style: float = 1.0
    diversity: float = 1.0
    r1: float = 1.0


@dataclass(frozen=True)
class StepOptions:
    """What stays the same from step to step.

    domain_form: ``margin`` (default) or the paper's ``cosine`` (METHOD 10).
    domain_scope: ``drawn`` judges the drawn domain of x̂ (METHOD 10), ``active`` every active one.
    guidance_crop: probability of a random crop of what CLIP judges, mirrored half the time, so that no pattern tied to
    a place passes for a domain; 0 shows CLIP the images as they are.
    prompt_update: which side learns in phase 2 (METHOD 14).
    bf16: autocast the networks to bfloat16.
    clip_bf16: CLIP's image tower too; its similarities and losses are float32 all the same.
    """

    weights: LossWeights = LossWeights()
    domain_form: losses.DomainForm = "margin"
    domain_scope: Literal["drawn", "active"] = "drawn"
    guidance_crop: float = 0.0
    prompt_update: PromptUpdate = "alternate"
    bf16: bool = False
    clip_bf16: bool = False


@dataclass(frozen=True)
class Batch:
    """Sources x and references y with their labels, and two latents for each source.

    x, y: float32 (B×3×S×S) in [-1, 1]. x_labels, y_labels: bool (B×N), without slack. z1, z2: float32 (B×16).
    """

    x: Tensor
    x_labels: Tensor
    y: Tensor
    y_labels: Tensor
    z1: Tensor
    z2: Tensor


@dataclass(frozen=True)
class Guidance:
    """Frozen CLIP as the losses see it.

    encode: images (B×3×S×S) in [-1, 1] to unit-norm embeddings (B×k), differentiable. scale: α.
    domains: ū (N×k). base: ū_base (k). offsets: the margins that labels take, float (N); 0 unless given.
    """

    encode: Callable[[Tensor], Tensor]
    scale: float
    domains: Tensor
    base: Tensor
    offsets: Tensor | None = None


@dataclass
class Optimisers:
    generative: torch.optim.Optimizer
    discriminator: torch.optim.Optimizer
    prompts: torch.optim.Optimizer | None = None


@dataclass(frozen=True)
class StepPlan:
    """What the schedules say of one step. r1_weight: λ_R1 × r when due, else 0. diversity_weight: λ_ds now."""

    r1_weight: float
    diversity_weight: float
    learn_prompts: bool


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """No gradient reaches the parameters of ``modules`` inside; gradients still pass through them."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@dataclass
class Targets:
    """Where the sources of a batch are to go.

    labels: bool (B×(N+1)), slack included. codes: every domain's style s (B×(N+1)×D_s); style: a^y (B×D_s).
    latent_rows: how many leading rows are latent-guided. second: style of the same rows from z2, for the diversity
    loss, or None. source_style: a^x = E_S(x; d^x).
    """

    labels: Tensor
    codes: Tensor
    style: Tensor
    latent_rows: int
    second: Tensor | None
    source_style: Tensor


def make_targets(nets: Networks, batch: Batch, kind: TargetKind) -> Targets:
    """Target styles a^y: E_M(z; d) for latent rows, E_S(y; d) for reference rows; ``both`` halves the batch."""
    count = len(batch.x)
    latent_rows = {"latent": count, "reference": 0, "both": (count + 1) // 2}[kind]
    labels, source_labels = with_slack(batch.y_labels), with_slack(batch.x_labels)
    encoded = nets.style_encoder(torch.cat([batch.x, batch.y[latent_rows:]])).float()
    source_style = aggregate(encoded[:count], source_labels)
    codes = encoded[count:]
    second: Tensor | None = None
    if latent_rows:
        mapped = nets.mapping(torch.cat([batch.z1[:latent_rows], batch.z2[:latent_rows]])).float()
        codes = torch.cat([mapped[:latent_rows], codes])
        second = aggregate(mapped[latent_rows:], labels[:latent_rows])
    return Targets(labels, codes, aggregate(codes, labels), latent_rows, second, source_style)


def discriminator_step(nets: Networks, optimiser: torch.optim.Optimizer, batch: Batch, fake: Tensor, labels: Tensor,
                       r1_weight: float, options: StepOptions) -> Parts:  # fmt: skip
    """Update D on sources under their own labels and on x̂ under the target labels (METHOD 5, 6).

    fake: x̂ without its graph. labels: bool (B×(N+1)). r1_weight: λ_R1 × r when due this step, else 0.
    """
    real_labels = with_slack(batch.x_labels)
    with _autocast(batch.x, options):
        logits = nets.discriminator(torch.cat([batch.x, fake])).float()
    real, judged = logits.split(len(batch.x))
    loss = losses.discriminator_loss(real, real_labels, judged, labels)
    parts = {"d_adversarial": loss.detach()}
    if r1_weight:
        images = batch.x.detach().requires_grad_()
        penalty = losses.gradient_penalty(nets.discriminator(images), real_labels, images)
        loss = loss + r1_weight * penalty
        parts["r1"] = penalty.detach()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return parts


def domain_losses(guidance: Guidance, embeddings: Tensor, drawn: Tensor, labels: Tensor, flipped: Tensor,
                  options: StepOptions) -> Tensor:  # fmt: skip
    """L_dl of x̂ and x̂' (METHOD 10) from their embeddings (2B×k), stacked; labels bool (B×N) without slack."""
    if options.domain_form == "cosine":
        similarities = similarity(embeddings, guidance.domains)
        kept, turned = similarities.chunk(2)
        return losses.domain_loss_cosine(kept, drawn, labels) + losses.domain_loss_cosine(turned, drawn, flipped)
    margins = margin(embeddings, guidance.domains, guidance.base)
    kept, turned = (margins if guidance.offsets is None else margins - guidance.offsets).chunk(2)
    if options.domain_scope == "active":
        first = losses.domain_loss_active(kept, labels, guidance.scale)
    else:
        first = losses.domain_loss(kept, drawn, labels, guidance.scale)
    return first + losses.domain_loss(turned, drawn, flipped, guidance.scale)


@dataclass
class Translation:
    """x̂ with its graph, and what made it."""

    targets: Targets
    content: Tensor
    image: Tensor


def translate_batch(nets: Networks, batch: Batch, kind: TargetKind, options: StepOptions) -> Translation:
    """x̂ = G(x, a^y), with the graph that the caller's grad mode allows."""
    with _autocast(batch.x, options):
        targets = make_targets(nets, batch, kind)
        content = nets.generator.encode(batch.x)
        return Translation(targets, content, nets.generator.decode(content, targets.style, batch.x).float())


def generator_objective(nets: Networks, batch: Batch, translation: Translation, guidance: Guidance, diversity: float,
                        guided: float, options: StepOptions,
                        randomness: torch.Generator) -> tuple[Tensor, Parts, Callable[[Guidance], Tensor]]:  # fmt: skip
    """METHOD 11 for one batch. Returns the loss, its parts, and L_dl as a function of the prompts alone.

    diversity: λ_ds now. guided: factor of λ_dl, 0 where only the prompts learn from it.

    The encodings of x and of x̂ are shared by every decoding that starts from them. The target of the style loss
    (METHOD 8) is held fixed, unlike in the public code: where both sides move, styles shrink to a constant before a
    small generator has learned to use them.
    """
    weights, targets, image = options.weights, translation.targets, translation.image
    labels = batch.y_labels
    drawn, flipped = losses.flip_one(labels, randomness)
    with _autocast(image, options):
        logits = nets.discriminator(image).float()
        style = aggregate(nets.style_encoder(image).float(), targets.labels)
        content = nets.generator.encode(image)
        flipped_style = aggregate(targets.codes, with_slack(flipped))
        styles = torch.cat([targets.source_style, flipped_style])
        decoded = nets.generator.decode(content.repeat(2, 1, 1, 1), styles, image.repeat(2, 1, 1, 1)).float()
        reconstruction, turned = decoded.chunk(2)
    judged = torch.cat([image, turned])
    if options.guidance_crop:
        judged = flip_and_crop(judged, randomness, options.guidance_crop)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=options.bf16 and options.clip_bf16):
        embeddings = guidance.encode(judged).float()
    parts = {
        "adversarial": losses.adversarial_loss(logits, targets.labels),
        "domain": domain_losses(guidance, embeddings, drawn, labels, flipped, options),
        "cycle": losses.l1(batch.x, reconstruction),
        "style": losses.l1(targets.style.detach(), style),
    }
    total = weights.adversarial * parts["adversarial"] + guided * weights.domain * parts["domain"]
    total = total + weights.cycle * parts["cycle"] + weights.style * parts["style"]
    if diversity and targets.second is not None:
        rows = targets.latent_rows
        with torch.no_grad(), _autocast(image, options):
            other = nets.generator.decode(translation.content[:rows], targets.second, batch.x[:rows])
        parts["diversity"] = losses.l1(image[:rows], other)
        total = total - diversity * parts["diversity"]
    parts["total"] = total
    images_fixed = embeddings.detach()
    return (
        total,
        {name: part.detach() for name, part in parts.items()},
        lambda prompts: domain_losses(prompts, images_fixed, drawn, labels, flipped, options),
    )


def fused_step(nets: Networks, optimisers: Optimisers, batch: Batch, prompts: Callable[[], Guidance], plan: StepPlan,
               options: StepOptions, randomness: torch.Generator) -> Parts:  # fmt: skip
    """One D and one G backward over a batch whose halves are latent- and reference-guided; x̂ is made once for both."""
    translation = translate_batch(nets, batch, "both", options)
    fake = translation.image.detach()
    parts = discriminator_step(
        nets, optimisers.discriminator, batch, fake, translation.targets.labels, plan.r1_weight, options
    )
    return parts | _generator_step(nets, optimisers, batch, translation, prompts, plan, options, randomness)


def paper_step(nets: Networks, optimisers: Optimisers, batch: Batch, prompts: Callable[[], Guidance], plan: StepPlan,
               options: StepOptions, randomness: torch.Generator) -> Parts:  # fmt: skip
    """D-latent, D-reference, G-latent, G-reference; E_S and E_M learn in the latent G pass alone."""
    parts: Parts = {}
    kinds: tuple[TargetKind, TargetKind] = ("latent", "reference")
    for kind in kinds:
        with torch.no_grad():
            made = translate_batch(nets, batch, kind, options)
        judged = discriminator_step(
            nets, optimisers.discriminator, batch, made.image, made.targets.labels, plan.r1_weight, options
        )
        parts = _mean(parts, judged)
    made = translate_batch(nets, batch, "latent", options)
    generated = _generator_step(nets, optimisers, batch, made, prompts, plan, options, randomness)
    with frozen(nets.style_encoder, nets.mapping):
        made = translate_batch(nets, batch, "reference", options)
        generated = _mean(generated, _generator_step(nets, optimisers, batch, made, prompts, plan, options, randomness))
    return parts | generated


def _mean(a: Parts, b: Parts) -> Parts:
    """Means of the losses that both passes have; the others as they are."""
    return a | b | {name: (a[name] + b[name]) / 2 for name in a.keys() & b.keys()}


def _generator_step(nets: Networks, optimisers: Optimisers, batch: Batch, translation: Translation,
                    prompts: Callable[[], Guidance], plan: StepPlan, options: StepOptions,
                    randomness: torch.Generator) -> Parts:  # fmt: skip
    """Update G, E_S, E_M and, in phase 2, the prompts as METHOD 14 says."""
    learning = optimisers.prompts is not None and plan.learn_prompts
    joint = learning and options.prompt_update == "joint"
    guidance = prompts()
    seen = guidance if joint else replace(guidance, domains=guidance.domains.detach(), base=guidance.base.detach())
    unguided = learning and options.prompt_update == "prompts-only"
    with frozen(nets.discriminator):
        loss, parts, of_prompts = generator_objective(
            nets, batch, translation, seen, plan.diversity_weight, 0.0 if unguided else 1.0, options, randomness
        )
        optimisers.generative.zero_grad(set_to_none=True)
        if learning and optimisers.prompts is not None:
            optimisers.prompts.zero_grad(set_to_none=True)
        loss.backward()
        optimisers.generative.step()
    if learning and optimisers.prompts is not None and options.prompt_update != "generator-only":
        if not joint:
            (options.weights.domain * of_prompts(guidance)).backward()
        optimisers.prompts.step()
    return parts


def _autocast(like: Tensor, options: StepOptions) -> torch.autocast:
    return torch.autocast(like.device.type, torch.bfloat16, enabled=options.bf16)
