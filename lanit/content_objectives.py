"""What content transfer minimises, and its step (Press et al., ICLR 2019; Lample et al., NeurIPS 2017).

An image x has the word or lacks it, d. The autoencoding losses are over sources and references alike, each the mean
over the images with the word plus that over those without, however many there are of either. A translation takes the
word, or its absence, from the reference: x̂ = g(e₁(x), d^y·e₂(y)) adds, removes and swaps as they happen to meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lanit.content_networks import ContentNetworks, LatentDiscriminator
from lanit.losses import adversarial_loss, discriminator_loss, gradient_penalty, l1
from lanit.networks import Discriminator
from lanit.objectives import Batch, Parts, autocast
from lanit.options import given
from lanit.ranks import ALONE, Draws, Ranks
from lanit.steps import frozen, update


@dataclass(frozen=True)
class ContentTerms:
    """Loss weights λ. reconstruction: ‖x − g(e₁(x), d·e₂(x))‖₁. confusion: of e₁ by the latent discriminator, ramped.
    adversarial: of x̂ by a discriminator of images, which the paper has not. cycle: ‖x − g(e₁(x̂), d^x·e₂(x))‖₁.
    guidance: ‖e₂(x̂) − e₂(y)‖₁ where y has the word. A term of weight 0 costs nothing."""

    reconstruction: float = 1.0
    confusion: float = 0.05
    adversarial: float = 1.0
    cycle: float = 1.0
    guidance: float = 0.3
    bf16: bool = given(False)


class ContentLearners(nn.Module):
    """All that learns: the networks that make images, and their two adversaries."""

    def __init__(self, generative: ContentNetworks, latent: LatentDiscriminator, images: Discriminator) -> None:
        super().__init__()
        self.generative, self.latent, self.images = generative, latent, images


def over_both(values: Tensor, present: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """The mean of values (B) where ``present``, bool (B), plus that where not, over the whole batch; 0 for none."""
    total = values.new_zeros(())
    for rows in (present, ~present):
        share = rows.to(values.dtype)
        total = total + (values * share).sum() / ranks.mean(share.sum()).clamp(min=1 / ranks.count)
    return total


def telling_loss(logits: Tensor, present: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """BCE of the latent discriminator, which tells e₁ of images with the word from others. logits: float (B)."""
    return over_both(F.softplus(torch.where(present, -logits, logits)), present, ranks)


def confusion_loss(logits: Tensor, present: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """What e₁ learns from it: to be taken for the other kind (Fader networks' form, eq. 3; Press et al. have all taken
    for one kind, which pulls those of that kind nowhere)."""
    return telling_loss(logits, ~present, ranks)


def both_domains(present: Tensor) -> Tensor:
    """bool (B) as labels of the two domains, the word and its absence: bool (B×2)."""
    return torch.stack([present, ~present], dim=1)


@dataclass(frozen=True)
class Encoded:
    """A batch of B sources, then B references, encoded. images: float32 (2B×3×S×S); present: bool (2B); content: e₁;
    code: d·e₂, float32 (2B×D_s)."""

    images: Tensor
    present: Tensor
    content: Tensor
    code: Tensor


def encode(nets: ContentNetworks, batch: Batch, terms: ContentTerms) -> Encoded:
    """e₁ of all images, and e₂ of those that have the word."""
    images, present = torch.cat([batch.x, batch.y]), torch.cat([batch.x_labels, batch.y_labels])[:, 0]
    with autocast(images, terms.bf16):
        content, code = nets.content(images), nets.code(images).float()
    return Encoded(images, present, content, code * present[:, None])


def latent_objective(latent: LatentDiscriminator, seen: Encoded, terms: ContentTerms, ranks: Ranks) -> Tensor:
    """The latent discriminator's own loss; no gradient reaches e₁."""
    with autocast(seen.images, terms.bf16):
        logits = latent(seen.content.detach()).float()
    return telling_loss(logits, seen.present, ranks)


def image_objective(images: Discriminator, real: Tensor, present: Tensor, fake: Tensor, wanted: Tensor, r1: float,
                    terms: ContentTerms, ranks: Ranks) -> tuple[Tensor, Parts]:  # fmt: skip
    """The image discriminator's loss on sources as they are and on x̂ as they should be (METHOD 5), and R1 (METHOD 6).

    Sources under the label that they have not count among the false, too (Reed et al., ICML 2016): so D knows the word
    before g can draw it.
    fake: x̂ without its graph. present, wanted: bool (B), d^x and d^y. r1: λ_R1 × its interval when due, else 0.
    """
    real = real.detach()
    if r1:
        real = real.requires_grad_()
    with autocast(real, terms.bf16):
        judged, made = images(torch.cat([real, fake])).float().chunk(2)
    false = torch.cat([made, judged]), torch.cat([both_domains(wanted), both_domains(~present)])
    loss = discriminator_loss(judged, both_domains(present), *false, ranks)
    parts = {"d_adversarial": loss.detach()}
    if r1:
        penalty = gradient_penalty(judged, both_domains(present), real)
        loss, parts = loss + r1 * penalty, parts | {"r1": penalty.detach()}
    return loss, parts


def content_objective(nets: ContentLearners, seen: Encoded, fake: Tensor | None, confusion: float,
                      terms: ContentTerms, ranks: Ranks) -> tuple[Tensor, Parts]:  # fmt: skip
    """The loss of e₁, e₂ and g, and its parts. fake: x̂ with its graph; none where no term looks at one. confusion: λ of
    that term now."""
    generative, count = nets.generative, len(seen.images) // 2
    x, x_code, y_code = seen.images[:count], *seen.code.chunk(2)
    y_present = seen.present[count:]
    parts, weights = {}, {}
    with autocast(x, terms.bf16):
        if terms.reconstruction:
            made = generative.render(seen.content, seen.code, seen.images).float()
            parts["reconstruction"] = over_both((seen.images - made).abs().flatten(1).mean(dim=1), seen.present, ranks)
            weights["reconstruction"] = terms.reconstruction
        if confusion:
            parts["confusion"] = confusion_loss(nets.latent(seen.content).float(), seen.present, ranks)
            weights["confusion"] = confusion
        if fake is not None:
            logits = nets.images(fake).float()
            parts["adversarial"] = adversarial_loss(logits, both_domains(y_present), ranks)
            weights["adversarial"] = terms.adversarial
        if fake is not None and terms.cycle:
            back = generative.render(generative.content(fake), x_code, fake).float()
            parts["cycle"], weights["cycle"] = l1(x, back), terms.cycle
        if fake is not None and terms.guidance:
            apart = (generative.code(fake).float() - y_code.detach()).abs().mean(dim=1)
            share = y_present.to(apart.dtype)
            parts["guidance"] = (apart * share).sum() / ranks.mean(share.sum()).clamp(min=1 / ranks.count)
            weights["guidance"] = terms.guidance
    total = sum((weights[name] * part for name, part in parts.items()), x.new_zeros(()))
    return total, {name: part.detach() for name, part in parts.items()} | {"total": total.detach()}


def content_step(nets: ContentLearners, optimisers: Mapping[str, Optimizer], batch: Batch, confusion: float, r1: float,
                 terms: ContentTerms, draws: Draws) -> Parts:  # fmt: skip
    """The adversaries learn, then what makes images does.

    confusion: λ of that term now. r1: as in :func:`image_objective`.
    """
    ranks, generative, count = draws.ranks, nets.generative, len(batch.x)
    seen, parts, fake = encode(generative, batch, terms), {}, None
    if terms.confusion:
        loss = latent_objective(nets.latent, seen, terms, ranks)
        parts["d_latent"] = loss.detach()
        update(loss, ranks, optimisers["latent"])
    if terms.adversarial:
        with autocast(batch.x, terms.bf16):
            fake = generative.render(seen.content[:count], seen.code[count:], batch.x).float()
        present, wanted = seen.present.chunk(2)
        loss, more = image_objective(nets.images, batch.x, present, fake.detach(), wanted, r1, terms, ranks)
        update(loss, ranks, optimisers["discriminator"])
        parts |= more
    with frozen(nets.latent, nets.images):
        loss, more = content_objective(nets, seen, fake, confusion, terms, ranks)
        update(loss, ranks, optimisers["generative"])
    return parts | more
