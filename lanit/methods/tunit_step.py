"""One step of TUNIT (Baek et al., ICCV 2021): E alone, then D, then G with E; the negatives of the next step last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lanit.augment import ViewRanges, differentiable_augment, view_of
from lanit.contrast import hinge_discriminator, info_nce, known_class_loss, known_classes, own_logit
from lanit.guides import GuidedNetworks, GuideSizes, Look
from lanit.losses import domain_loss_all, gradient_penalty, l1, real_classification_loss
from lanit.mutual_information import cluster_information
from lanit.networks import Discriminator
from lanit.objectives import Batch, Parts, autocast
from lanit.options import given
from lanit.ranks import Draws
from lanit.steps import frozen, update

_TEMPERATURE = 0.07
_VIEW = ViewRanges(degrees=20, shift=0.1, shear=10, zoom=(0.9, 1.1), colour=0.4, hue=0.125)


@dataclass(frozen=True)
class TunitTerms:
    """Loss weights, and what stays the same from step to step; the defaults are the paper's code's.

    information: of −I(P), and of cross-entropy where people named the class; contrast: of the styles of two views;
    guide_share: of both once G learns. adversarial, reconstruction, style_contrast: of G. classification: D's second
    head learns to tell the clusters of references, and G is to be recognised by it; as LANIT's, not of the paper.
    recolour: whether the second view has other colours too, which clusters are then not told apart by. augment: as
    LANIT's. bf16: see there.
    """

    information: float = 5.0
    contrast: float = 1.0
    guide_share: float = 0.1
    adversarial: float = 1.0
    reconstruction: float = 0.1
    style_contrast: float = 0.01
    classification: float = 0.0
    recolour: float = 1.0
    augment: Literal["none", "differentiable"] = "none"
    bf16: bool = given(False)

    @property
    def view(self) -> ViewRanges:
        return ViewRanges(
            _VIEW.degrees, _VIEW.shift, _VIEW.shear, _VIEW.zoom, _VIEW.colour * self.recolour, _VIEW.hue * self.recolour
        )


class TunitNetworks(nn.Module):
    """G and E; D, with a logit for each cluster; and the queue of negatives, unit-norm (Q×D_s), noise at first."""

    queue: Tensor

    def __init__(self, options: GuideSizes, discriminator: Discriminator, queue: int) -> None:
        super().__init__()
        self.generative = GuidedNetworks(options)
        self.discriminator = discriminator
        self.register_buffer("queue", F.normalize(torch.randn(queue, options.style_dim), dim=1))


def guide_objective(of_y: Look, of_view: Look, keys: Tensor, known: Tensor, nets: TunitNetworks, terms: TunitTerms,
                    draws: Draws) -> tuple[Tensor, Parts]:  # fmt: skip
    """−I(P) of y and its view where people named no class, cross-entropy of both where they did; InfoNCE of styles.

    keys: styles of the view by E's average, (B×D_s). known: int64 (B), −1 where nobody named a class.
    """
    first, second = (F.softmax(look.logits, dim=1) for look in (of_y, of_view))
    parts = {
        "information": cluster_information(first, second, (known < 0).to(first), draws.ranks),
        "contrast": info_nce(of_y.style, keys, nets.queue, _TEMPERATURE),
    }
    loss = terms.contrast * parts["contrast"] - terms.information * parts["information"]
    named = sum(known_class_loss(look.logits, known, draws.ranks) for look in (of_y, of_view))
    return loss + terms.information * named, parts | {"known_classes": torch.as_tensor(named)}


def discriminator_objective(nets: TunitNetworks, y: Tensor, clusters: Tensor, fake: Tensor, r1_weight: float,
                            terms: TunitTerms, draws: Draws) -> tuple[Tensor, Parts]:  # fmt: skip
    """Hinge on references y and x̂, both judged by the cluster of y; where D classifies, that cluster told from y; R1 on
    y where its weight is above 0."""
    real = y.detach().requires_grad_(bool(r1_weight))
    seen = torch.cat([real, fake])
    seen = differentiable_augment(seen, draws) if terms.augment != "none" else seen
    with autocast(real, terms.bf16):
        logits, classes = nets.discriminator.judge(seen)
    of_real, of_fake = logits.float().chunk(2)
    loss = hinge_discriminator(own_logit(of_real, clusters), own_logit(of_fake, clusters))
    parts, labels = {"d_adversarial": loss.detach()}, _labels(clusters, of_real.shape[1])
    if terms.classification:
        told = real_classification_loss(classes.chunk(2)[0], labels)
        loss, parts["d_classification"] = loss + terms.classification * told, told.detach()
    if r1_weight:
        penalty = gradient_penalty(of_real, labels, real)
        loss, parts["r1"] = loss + r1_weight * penalty, penalty.detach()
    return loss, parts


def generator_objective(nets: TunitNetworks, x: Tensor, made: Tensor, clusters: Tensor, keys: Tensor,
                        terms: TunitTerms, draws: Draws) -> tuple[Tensor, Parts]:  # fmt: skip
    """What G and E learn from images. made: x̂, then the reconstructions of x, (2B×3×S×S) with their graph. clusters:
    those of y, then of x, (2B). keys: styles of y by E's average (B×D_s)."""
    fake, again = made.chunk(2)
    judged = differentiable_augment(made, draws) if terms.augment != "none" else made
    with autocast(x, terms.bf16):
        logits, classes = nets.discriminator.judge(judged)
        style = nets.generative.guide.look(fake).style
    parts = {
        "adversarial": -2 * own_logit(logits.float(), clusters).mean(),  # of translations, and of reconstructions
        "reconstruction": l1(x, again),
        "style_contrast": info_nce(style, keys, nets.queue, _TEMPERATURE),
    }
    if terms.classification:
        parts["classification"] = domain_loss_all(classes, _labels(clusters, logits.shape[1]), 1.0, draws.ranks)
    total = sum(getattr(terms, name) * part for name, part in parts.items())
    return torch.as_tensor(total), parts


def _labels(clusters: Tensor, count: int) -> Tensor:
    """Bool (B×K) of int64 (B); unlike one_hot, it reads no value, for which a GPU would be waited for."""
    return clusters[:, None] == torch.arange(count, device=clusters.device)


def tunit_step(nets: TunitNetworks, average: GuidedNetworks, optimisers: Mapping[str, Optimizer], batch: Batch,
               step: int, joint: bool, r1_weight: float, terms: TunitTerms, draws: Draws) -> Parts:  # fmt: skip
    """joint: whether G learns too. average: G and E as averaged so far, whose E makes the keys."""
    guide, x, y = nets.generative.guide, batch.x, batch.y
    view, known = view_of(y, draws, terms.view), known_classes(batch.y_labels, batch.y_human)
    with torch.no_grad(), autocast(x, terms.bf16):
        keys, of_view = (
            look.style for look in average.guide.look(torch.cat([y, view]), step, draws.ranks).split(len(y))
        )
    with autocast(x, terms.bf16):
        first, second = guide.look(torch.cat([y, view]), step, draws.ranks).split(len(y))
    loss, parts = guide_objective(first, second, of_view, known, nets, terms, draws)
    update(loss * (terms.guide_share if joint else 1.0), draws.ranks, optimisers["guide"])
    if joint:
        with autocast(x, terms.bf16):
            look = guide.look(torch.cat([y, x]))
            content = nets.generative.content(x).repeat(2, 1, 1, 1)
            made = nets.generative.render(content, look.style, x.repeat(2, 1, 1, 1)).float()
        clusters = look.logits.argmax(dim=1)
        fake, of_y = made[: len(x)].detach(), clusters[: len(x)]
        loss, more = discriminator_objective(nets, y, of_y, fake, r1_weight, terms, draws)
        update(loss, draws.ranks, optimisers["discriminator"])
        with frozen(nets.discriminator):
            loss, others = generator_objective(nets, x, made, clusters, keys, terms, draws)
            update(loss, draws.ranks, optimisers["generative"], optimisers["guide"])
        parts |= more | others | {"total": loss}
    _queue(nets, draws.ranks.whole(of_view), step)
    return {name: part.detach() for name, part in parts.items()}


@torch.no_grad()
def _queue(nets: TunitNetworks, keys: Tensor, step: int) -> None:
    """The newest keys take the place of the oldest, step by step."""
    keys = keys[-len(nets.queue) :]
    places = (step * len(keys) + torch.arange(len(keys), device=keys.device)) % len(nets.queue)
    nets.queue[places] = keys.to(nets.queue)
