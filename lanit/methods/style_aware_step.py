"""One step of a style-aware discriminator (Kim et al., CVPR 2022): D, which is the style encoder too, then G."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lanit.augment import ViewRanges, differentiable_augment, view_of
from lanit.guides import PROTOTYPE_TEMPERATURE, GuidedNetworks, GuideSizes
from lanit.losses import adversarial_loss, discriminator_loss, gradient_penalty, l1
from lanit.objectives import Batch, Parts, autocast
from lanit.options import given
from lanit.prototypes import content_distance, prototype_styles, swapped_loss
from lanit.ranks import Draws
from lanit.steps import frozen, update

_FROM_PROTOTYPES = 0.2  # of the batches


@dataclass(frozen=True)
class StyleAwareTerms:
    """Loss weights, and what stays the same from step to step. swap: of D. reconstruction, style, content: of G, beside
    the adversarial one. recolour, augment, bf16: as TUNIT has them."""

    swap: float = 1.0
    reconstruction: float = 1.0
    style_match: float = 1.0
    content_match: float = 1.0
    recolour: float = 1.0
    augment: Literal["none", "differentiable"] = "none"
    bf16: bool = given(False)

    @property
    def view(self) -> ViewRanges:
        colour = 0.2 * self.recolour
        return ViewRanges(degrees=30, shift=0, shear=0, zoom=(0.5, 1.0), colour=colour, hue=0, erased=0.8)


class StyleAwareNetworks(nn.Module):
    """G and E; D is E's trunk with a logit of its own."""

    def __init__(self, options: GuideSizes) -> None:
        super().__init__()
        self.generative = GuidedNetworks(options)
        self.logit = nn.Linear(self.generative.guide.style.in_features, 1)

    def judge(self, images: Tensor) -> Tensor:
        """D's logit, (B×1), of images (B×3×S×S)."""
        logits: Tensor = self.logit(self.generative.guide.features(images)).float()
        return logits


def discriminator_objective(nets: StyleAwareNetworks, y: Tensor, made: Tensor, r1_weight: float,
                            terms: StyleAwareTerms, draws: Draws) -> tuple[Tensor, Parts]:  # fmt: skip
    """METHOD 5 with one logit, on references y against translations and reconstructions (2B×3×S×S), and R1 on y."""
    real = y.detach().requires_grad_(bool(r1_weight))
    seen = torch.cat([real, made])
    seen = differentiable_augment(seen, draws) if terms.augment != "none" else seen
    with autocast(real, terms.bf16):
        of_real, of_made = nets.judge(seen).tensor_split([len(y)])
    loss = discriminator_loss(of_real, torch.ones_like(of_real), of_made, torch.ones_like(of_made))
    parts = {"d_adversarial": loss}
    if r1_weight:
        penalty = gradient_penalty(of_real, torch.ones_like(of_real), real)
        loss, parts["r1"] = loss + r1_weight * penalty, penalty
    return loss, parts


def generator_objective(nets: StyleAwareNetworks, x: Tensor, content: Tensor, made: Tensor, style: Tensor,
                        terms: StyleAwareTerms, draws: Draws) -> tuple[Tensor, Parts]:  # fmt: skip
    """made: x̂, then the reconstructions of x, (2B×3×S×S) with their graph. content: of x. style: asked for (B×D_s)."""
    fake, again = made.chunk(2)
    judged = differentiable_augment(made, draws) if terms.augment != "none" else made
    with autocast(x, terms.bf16):
        logits = nets.judge(judged)
        seen = nets.generative.guide.look(fake).style
        kept = nets.generative.content(fake)
    parts = {
        "adversarial": adversarial_loss(logits, torch.ones_like(logits)),
        "reconstruction": l1(x, again),
        "style_match": (seen - style).square().sum(dim=1).mean(),
        "content_match": content_distance(content, kept),
    }
    total = parts["adversarial"] + sum(getattr(terms, name) * parts[name] for name in list(parts)[1:])
    return torch.as_tensor(total), parts


def style_aware_step(nets: StyleAwareNetworks, average: GuidedNetworks, optimisers: Mapping[str, Optimizer],
                     batch: Batch, step: int, joint: bool, moves: bool, r1_weight: float, terms: StyleAwareTerms,
                     draws: Draws) -> Parts:  # fmt: skip
    """joint: whether G learns too. moves: whether prototypes do. average: as averaged so far."""
    generative, x, y = nets.generative, batch.x, batch.y
    guide, count = generative.guide, len(x)
    both = torch.cat([y, view_of(y, draws, terms.view)])
    with torch.no_grad(), autocast(x, terms.bf16):
        average.guide.features(both, step, draws.ranks)
    with frozen(*([] if moves else [_Alone(guide.prototypes)])), autocast(x, terms.bf16):
        first, second = (
            look.logits * PROTOTYPE_TEMPERATURE for look in guide.look(both, step, draws.ranks).split(count)
        )
        swap = swapped_loss(first, second, draws.ranks)
    loss, parts = terms.swap * swap, {"swap": swap}
    made = content = style = None
    if joint:
        with autocast(x, terms.bf16):
            with torch.no_grad():
                own, style = guide.look(torch.cat([x, y])).style.chunk(2)
                drawn = prototype_styles(F.normalize(guide.prototypes, dim=1), count, draws)
                chosen = torch.rand((), generator=draws.generator, device=x.device) < _FROM_PROTOTYPES
                style = torch.where(chosen, drawn, style)
            content = generative.content(x)
            twice = content.repeat(2, 1, 1, 1), x.repeat(2, 1, 1, 1)
            made = generative.render(twice[0], torch.cat([style, own]), twice[1]).float()
        judged, more = discriminator_objective(nets, y, made.detach(), r1_weight, terms, draws)
        loss, parts = loss + judged, parts | more
    update(loss, draws.ranks, optimisers["discriminator"])
    with torch.no_grad():
        guide.prototypes.copy_(F.normalize(guide.prototypes, dim=1))
    if made is not None and content is not None and style is not None:
        with frozen(guide, nets.logit):
            loss, others = generator_objective(nets, x, content, made, style, terms, draws)
            update(loss, draws.ranks, optimisers["generative"])
        parts |= others | {"total": loss}
    return {name: part.detach() for name, part in parts.items()}


class _Alone(nn.Module):
    """One parameter as a module, to be frozen."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.parameter = parameter
