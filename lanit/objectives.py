"""What a training step minimises, for one batch: METHOD §3 as functions of tensors.

Labels reach the networks with the slack domain appended; CLIP sees the prompts alone. Losses and their parts stay on
the device. Where several processes share a batch, every result is one whose mean over them is that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lanit import losses
from lanit.augment import differentiable_augment, flip_and_crop
from lanit.codes import Codes
from lanit.labels import EmbeddedPrompts, edit, similarity, with_slack
from lanit.losses import LossWeights
from lanit.networks import (
    Discriminator,
    GenerativeNetworks,
    Generator,
    NetworkOptions,
    StyleEncoder,
    aggregate,
)
from lanit.options import GIVEN, given
from lanit.ranks import ALONE, Draws, Ranks

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
    def mapping(self) -> Codes:
        return self.generative.mapping


@dataclass(frozen=True)
class StepOptions:
    """What stays the same from step to step.

    adversarial_form: ``softplus`` (METHOD 5), ``hinge`` or ``lsgan``.
    domain_form: ``margin`` (default) or the paper's ``cosine`` (METHOD 10).
    domain_scope: ``drawn`` judges the drawn domain of x̂ (METHOD 10), ``active`` every active one, ``all`` these and,
    as much in sum, that no other is seen.
    domain_images: ``both`` judges x̂ and x̂' (METHOD 10), ``first`` x̂ alone, which saves a decoding.
    guidance_crop: probability of a random crop of what CLIP judges, mirrored half the time, so that no pattern tied to
    a place passes for a domain; 0 shows CLIP the images as they are.
    prompt_update: which side learns in phase 2 (METHOD 14).
    augment: differentiable augmentation of all that D judges, for a few hundred to a few thousand images.
    bf16: autocast the networks to bfloat16, as the run decides. clip_precision: of CLIP's image tower where they are;
    its similarities and losses are float32 all the same. r1_precision: of the gradient penalty's pass through D there.
    moments: of distances between images of each domain (:func:`lanit.losses.distance_moments`), for ``distance``.
    """

    weights: LossWeights = field(default_factory=LossWeights)
    adversarial_form: losses.AdversarialForm = "softplus"
    domain_form: losses.DomainForm = "margin"
    domain_scope: Literal["drawn", "active", "all"] = "drawn"
    domain_images: Literal["both", "first"] = "both"
    guidance_crop: float = 0.0
    prompt_update: PromptUpdate = "alternate"
    augment: Literal["none", "differentiable"] = "none"
    clip_precision: Literal["float32", "bf16"] = "float32"
    r1_precision: Literal["float32", "bf16"] = "float32"
    bf16: bool = given(False)
    moments: Tensor | None = field(default=None, metadata=GIVEN)

    @property
    def clip_bf16(self) -> bool:
        return self.bf16 and self.clip_precision == "bf16"

    @property
    def r1_bf16(self) -> bool:
        return self.bf16 and self.r1_precision == "bf16"


@dataclass(frozen=True)
class Batch:
    """Sources x and references y with their labels, and two latents for each source.

    x, y: float32 (B×3×S×S) in [-1, 1]. x_labels, y_labels: bool (B×N), without slack. z1, z2: float32 (B×D_z).
    paired: whether each y is what its x is to become. y_human: bool (B×N), which labels of y people set; none where
    nobody did. exclusive: bool (N×N), domains that an image never has together (:func:`lanit.labels.exclusive_pairs`).
    kept: bool (B×N), domains in which x̂ is to have the style of x; none where it keeps none.
    """

    x: Tensor
    x_labels: Tensor
    y: Tensor
    y_labels: Tensor
    z1: Tensor
    z2: Tensor
    paired: bool = False
    y_human: Tensor | None = None
    exclusive: Tensor | None = None
    kept: Tensor | None = None


def with_edits(batch: Batch, share: float, draws: Draws) -> Batch:
    """``batch`` in which a ``share`` of the rows, drawn at random, are to become what ``lanit translate --add`` makes:
    x with one domain of y that it lacks, if there is one, and in all others as it is, in its own style."""
    if batch.exclusive is None or not share:
        return batch
    chosen = draws.uniform(len(batch.x), 1) < share
    lacking = batch.y_labels & ~batch.x_labels
    first = (draws.uniform(*lacking.shape) + lacking).argmax(dim=1, keepdim=True)
    added = torch.zeros_like(lacking).scatter_(1, first, True) & lacking  # unlike one_hot, it reads no value
    labels = edit(batch.x_labels, added, torch.zeros_like(added), batch.exclusive)
    return replace(batch, y_labels=torch.where(chosen, labels, batch.y_labels), kept=chosen & labels & batch.x_labels)


@dataclass(frozen=True)
class Guidance:
    """Frozen CLIP as the losses see it.

    encode: images (B×3×S×S) in [-1, 1] to unit-norm embeddings (B×k), differentiable.
    """

    encode: Callable[[Tensor], Tensor]
    prompts: EmbeddedPrompts


def autocast(like: Tensor, enabled: bool) -> torch.autocast:
    """bfloat16 where ``enabled``, on the device of ``like``."""
    return torch.autocast(like.device.type, torch.bfloat16, enabled=enabled)


@dataclass(frozen=True)
class Targets:
    """Where the sources of a batch are to go.

    labels: bool (B×(N+1)), slack included. codes: every domain's style s (B×(N+1)×D_s); style: a^y (B×D_s).
    latent_rows: how many leading rows are latent-guided. second: style of the same rows from z2, for the diversity
    loss, none where no style is drawn. source_style: a^x = E_S(x; d^x).
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
    rows = {"latent": count, "reference": 0, "both": (count + 1) // 2}[kind]
    labels = with_slack(batch.y_labels)
    encoded = nets.generative.own_codes(torch.cat([batch.x, batch.y[rows:]])).float()
    own, codes, second = encoded[:count], encoded[count:], None
    if rows:
        mapped = nets.mapping(torch.cat([batch.z1[:rows], batch.z2[:rows]])).float()
        codes = torch.cat([mapped[:rows], codes])
        if nets.generative.latent_dim:
            second = aggregate(_with_own(mapped[rows:], own[:rows], batch), labels[:rows])
    codes, source_style = _with_own(codes, own, batch), aggregate(own, with_slack(batch.x_labels))
    return Targets(labels, codes, aggregate(codes, labels), rows, second, source_style)


def _with_own(codes: Tensor, own: Tensor, batch: Batch) -> Tensor:
    """Codes (B×(N+1)×D_s) of the first rows of ``batch``, in the domains that x̂ keeps those of x."""
    if batch.kept is None:
        return codes
    return torch.where(F.pad(batch.kept[: len(codes)], (0, 1))[:, :, None], own, codes)


@torch.no_grad()
def reference_fakes(nets: Networks, batch: Batch, content: Tensor, options: StepOptions) -> Tensor:
    """x̂ guided by the references, for D alone: float32 (B×3×S×S) without a graph. content: E_C(x)."""
    with autocast(batch.x, options.bf16):
        codes = nets.generative.own_codes(batch.y).float()
        if batch.kept is not None:
            codes = _with_own(codes, nets.generative.own_codes(batch.x).float(), batch)
        style = aggregate(codes, with_slack(batch.y_labels))
        return nets.generator.decode(content, style, batch.x).float()


@dataclass(frozen=True)
class Translation:
    """x̂ with its graph, and what made it. content: E_C(x)."""

    targets: Targets
    content: Tensor
    image: Tensor


def translate_batch(nets: Networks, batch: Batch, kind: TargetKind, options: StepOptions) -> Translation:
    """x̂ = G(x, a^y) with its graph."""
    with autocast(batch.x, options.bf16):
        targets = make_targets(nets, batch, kind)
        content = nets.generator.encode(batch.x)
        return Translation(targets, content, nets.generator.decode(content, targets.style, batch.x).float())


def discriminator_objective(nets: Networks, batch: Batch, fake: Tensor, labels: Tensor, r1_weight: float,
                            options: StepOptions, draws: Draws) -> tuple[Tensor, Parts]:  # fmt: skip
    """D's loss on sources under their own labels and on x̂ under the target labels (METHOD 5), and R1 (METHOD 6).

    Where D sees pairs, its real ones are (x, y) under the target labels. Where it classifies, it learns to from these.

    fake: x̂ without its graph. labels: bool (B×(N+1)). r1_weight: λ_R1 × r when due this step, else 0; then D judges
    the sources once for both, unless the penalty is to run in another precision.
    """
    real_labels, real = with_slack(batch.x_labels), batch.x.detach()
    if nets.discriminator.pairs:
        real_labels, real = with_slack(batch.y_labels), batch.y.detach()
    shared = bool(r1_weight) and options.r1_bf16 == options.bf16
    if shared:
        real = real.requires_grad_()
    seen = _judged(torch.cat([real, fake]), options, draws)
    with autocast(real, options.bf16):
        if shared:
            (logits, classes), (judged, _) = (nets.discriminator.judge(half, batch.x) for half in seen.chunk(2))
        else:
            (logits, judged), (classes, _) = (each.chunk(2) for each in nets.discriminator.judge(seen, batch.x))
    logits, judged = logits.float(), judged.float()
    loss = losses.discriminator_loss(logits, real_labels, judged, labels, draws.ranks, options.adversarial_form)
    parts = {"d_adversarial": loss.detach()}
    if options.weights.classification:
        told = losses.real_classification_loss(classes, real_labels[:, :-1])
        loss = loss + options.weights.classification * told
        parts["d_classification"] = told.detach()
    if r1_weight:
        if not shared:
            real = real.requires_grad_()
            with autocast(real, options.r1_bf16):
                logits = nets.discriminator(_judged(real, options, draws), batch.x).float()
        penalty = losses.gradient_penalty(logits, real_labels, real)
        loss = loss + r1_weight * penalty
        parts["r1"] = penalty.detach()
    return loss, parts


def _judged(images: Tensor, options: StepOptions, draws: Draws) -> Tensor:
    """Images as D is to see them."""
    return differentiable_augment(images, draws) if options.augment != "none" else images


def domain_losses(prompts: EmbeddedPrompts, embeddings: Tensor, drawn: Tensor, labels: Tensor, flipped: Tensor,
                  options: StepOptions, ranks: Ranks = ALONE) -> Tensor:  # fmt: skip
    """L_dl of x̂ and x̂' (METHOD 10) from their embeddings (2B×k), stacked, or of x̂ alone (B×k).

    labels: bool (B×N), without slack."""
    of_cosines = options.domain_form == "cosine"
    found = similarity(embeddings, prompts.domains) if of_cosines else prompts.margins(embeddings) - prompts.offsets
    kept = found[: len(labels)]
    if of_cosines:
        first = losses.domain_loss_cosine(kept, drawn, labels)
    elif options.domain_scope == "all":
        first = losses.domain_loss_all(kept, labels, prompts.scale, ranks)
    elif options.domain_scope == "active":
        first = losses.domain_loss_active(kept, labels, prompts.scale, ranks)
    else:
        first = losses.domain_loss(kept, drawn, labels, prompts.scale)
    if options.domain_images == "first":
        return first
    turned = found[len(labels) :]
    if of_cosines:
        return first + losses.domain_loss_cosine(turned, drawn, flipped)
    return first + losses.domain_loss(turned, drawn, flipped, prompts.scale)


def generator_objective(nets: Networks, batch: Batch, translation: Translation, guidance: Guidance, diversity: float,
                        guided: float, options: StepOptions,
                        draws: Draws) -> tuple[Tensor, Parts, Callable[[EmbeddedPrompts], Tensor]]:  # fmt: skip
    """METHOD 11 for one batch. Returns the loss, its parts, and L_dl as a function of the prompts alone.

    diversity: λ_ds now. guided: factor of λ_dl, 0 where only the prompts learn from it.

    The encodings of x and of x̂ are shared by every decoding that starts from them. The target of the style loss
    (METHOD 8) is held fixed, unlike in the public code: where both sides move, styles shrink to a constant before a
    small generator has learned to use them.
    """
    weights, targets, image = options.weights, translation.targets, translation.image
    labels = batch.y_labels
    drawn, flipped = losses.flip_one(labels, draws)
    styles = [targets.source_style] if weights.cycle else []
    turns = bool(weights.domain) and options.domain_images == "both"
    styles += [aggregate(targets.codes, with_slack(flipped))] if turns else []
    with autocast(image, options.bf16):
        logits, classes = nets.discriminator.judge(_judged(image, options, draws), batch.x)
        style = aggregate(nets.style_encoder(image).float(), targets.labels) if nets.generative.reads_styles else None
        content = nets.generator.encode(image) if styles or weights.content else None
        decoded = _decoded(nets, content, styles, image)
    form = options.adversarial_form
    parts = {"adversarial": losses.adversarial_loss(logits.float(), targets.labels, draws.ranks, form)}
    total = weights.adversarial * parts["adversarial"]
    if weights.classification:
        parts["classification"] = losses.domain_loss_all(classes, labels, 1.0, draws.ranks)
        total = total + weights.classification * parts["classification"]
    seen = []
    if weights.domain or weights.looks:
        judged = torch.cat([image, decoded[-1]]) if turns else image
        if options.guidance_crop:
            judged = flip_and_crop(judged, draws, options.guidance_crop)
        with autocast(image, options.clip_bf16):
            seen = list(guidance.encode(judged).float().split(len(image)))
    fixed = torch.cat(seen).detach() if weights.domain else None

    def of_prompts(prompts: EmbeddedPrompts, embeddings: Tensor | None = fixed) -> Tensor:
        assert embeddings is not None, "without a domain loss prompts learn nothing"
        return domain_losses(prompts, embeddings, drawn, labels, flipped, options, draws.ranks)

    if weights.domain:
        parts["domain"] = of_prompts(guidance.prompts, torch.cat(seen))
        total = total + guided * weights.domain * parts["domain"]
    if weights.cycle:
        parts["cycle"] = losses.l1(batch.x, decoded[0])
        total = total + weights.cycle * parts["cycle"]
    if style is not None:
        parts["style"] = losses.l1(targets.style.detach(), style)
        total = total + weights.style * parts["style"]
    for name, part in _optional_terms(nets, batch, translation, guidance, content, seen, options, draws.ranks).items():
        parts[name] = part
        total = total + getattr(weights, name) * part
    if diversity and targets.second is not None:
        rows = targets.latent_rows
        with torch.no_grad(), autocast(image, options.bf16):
            other = nets.generator.decode(translation.content[:rows], targets.second, batch.x[:rows])
        parts["diversity"] = losses.l1(image[:rows], other)
        total = total - diversity * parts["diversity"]
    parts["total"] = total
    return total, {name: part.detach() for name, part in parts.items()}, of_prompts


def _decoded(nets: Networks, content: Tensor | None, styles: list[Tensor], images: Tensor) -> list[Tensor]:
    """Images of one content in each of K styles (B×D_s), decoded at once: K of (B×3×S×S), float32."""
    if content is None or not styles:
        return []
    count = len(styles)
    made = nets.generator.decode(content.repeat(count, 1, 1, 1), torch.cat(styles), images.repeat(count, 1, 1, 1))
    return list(made.float().chunk(count))


def _optional_terms(nets: Networks, batch: Batch, translation: Translation, guidance: Guidance, content: Tensor | None,
                    seen: list[Tensor], options: StepOptions, ranks: Ranks) -> Parts:  # fmt: skip
    """Those terms of :class:`lanit.losses.LossWeights` beside METHOD 11 whose weights are not 0, by their names.

    content: E_C(x̂). seen: of x̂ first, CLIP's embeddings (B×k). Each where something needs it.
    """
    weights, targets, image = options.weights, translation.targets, translation.image
    source_labels = with_slack(batch.x_labels)
    parts: Parts = {}
    if weights.identity:  # of x rather than y: they are drawn alike, and E_C(x) and E_S(x) are at hand
        with autocast(image, options.bf16):
            own = nets.generator.decode(translation.content, targets.source_style, batch.x)
        parts["identity"] = losses.l1(batch.x, own)
    if weights.distance and options.moments is not None:
        moments = [
            aggregate(options.moments.T.expand(len(image), -1, -1), each).T for each in (source_labels, targets.labels)
        ]
        parts["distance"] = losses.distance_loss(image, batch.x, (moments[0], moments[1]))
    if weights.self:
        parts["self"] = losses.l1(image, batch.x)
    if weights.looks:
        with torch.no_grad(), autocast(image, options.clip_bf16):
            before = guidance.encode(batch.x).float()
        prompts = guidance.prompts.detached()
        if weights.feature:
            parts["feature"] = losses.feature_loss(seen[0], before, prompts.domains - prompts.base)
        if weights.direction:
            texts = torch.cat([prompts.domains, prompts.base[None]]).expand(len(image), -1, -1)
            towards = aggregate(texts, targets.labels) - aggregate(texts, source_labels)
            parts["direction"] = losses.direction_loss(seen[0], before, towards, ranks)
    if weights.triplet and targets.second is not None:
        rows = slice(targets.latent_rows)
        other = aggregate(targets.codes[rows], source_labels[rows])
        changes = (source_labels != targets.labels).any(dim=1)[rows]
        parts["triplet"] = losses.triplet_loss(targets.style[rows], targets.second, other, changes, ranks)
    if weights.shrink:
        parts["shrink"] = losses.shrink_loss(targets.style, targets.source_style)
    if weights.content and content is not None:
        parts["content"] = losses.content_loss(content, translation.content)
    if weights.pair and batch.paired:
        parts["pair"] = losses.l1(image, batch.y)
    return parts
