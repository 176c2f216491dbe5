"""What one-shot translation minimises, and its step (Benaim and Wolf, NeurIPS 2018), in two phases.

Phase I learns to give back images of B. Phase II goes on with that, and learns the ends of A from the one image s: its
gradients reach those alone, whatever they pass through (selective back-propagation), since one image would spoil all
else. Both terms' adversary judges images of B.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lanit.losses import adversarial_loss, discriminator_loss, gradient_penalty, l1
from lanit.networks import Discriminator
from lanit.objectives import Parts, autocast
from lanit.one_shot_networks import OneShotNetworks, TwoEndedGenerator
from lanit.options import given
from lanit.ranks import Draws, Ranks
from lanit.steps import frozen, update


@dataclass(frozen=True)
class OneShotTerms:
    """Loss weights λ. reconstruction: ‖x − x̂_BB‖₁. shrink: mean of the content's squares. adversarial: of D_B on x̂_BB
    and on ŝ_AB, each. one: ‖s − ŝ_AA‖₁. one_cycle: ‖s − ŝ_ABA‖₁, one way."""

    reconstruction: float = 10.0
    shrink: float = 0.1
    adversarial: float = 1.0
    one: float = 1.0
    one_cycle: float = 10.0
    bf16: bool = given(False)


class OneShotLearners(nn.Module):
    """All that learns, and what must be known to go on: the one image, float32 (3×S×S), and whether phase II began."""

    example: Tensor
    begun: Tensor

    def __init__(self, generative: OneShotNetworks, discriminator: Discriminator, example: Tensor) -> None:
        super().__init__()
        self.generative, self.discriminator = generative, discriminator
        self.register_buffer("example", example)
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))


@dataclass(frozen=True)
class OneShotOptimisers:
    generative: torch.optim.Optimizer
    discriminator: torch.optim.Optimizer


def over(values: Tensor, present: Tensor, ranks: Ranks) -> Tensor:
    """The mean of values (B) where ``present``, bool (B), over the whole batch; 0 for none."""
    share = present.to(values.dtype)
    return (values * share).sum() / ranks.mean(share.sum()).clamp(min=1 / ranks.count)


@dataclass(frozen=True)
class Drawn:
    """What the networks make. many: x̂_BB with the content it is of; of phase II, own: ŝ_AA, translated: ŝ_AB, and
    back: ŝ_ABA, or none of them."""

    content: Tensor
    many: Tensor
    own: Tensor | None = None
    translated: Tensor | None = None
    back: Tensor | None = None


def draw_all(generator: TwoEndedGenerator, x: Tensor, s: Tensor | None, terms: OneShotTerms) -> Drawn:
    """Of images x of B, and of s of A in phase II, float32 (B×3×S×S) each, with graphs that reach what may learn."""
    with autocast(x, terms.bf16):
        content = generator.read(x, "many")
        many = generator.draw(content, "many").float()
        if s is None:
            return Drawn(content.float(), many)
        with frozen(generator.encoder, generator.decoder, generator.ends["many"]):
            of_one = generator.read(s, "one")
            own, translated = generator.draw(of_one, "one").float(), generator.draw(of_one, "many").float()
            back = generator.draw(generator.read(translated, "many"), "one").float()
    return Drawn(content.float(), many, own, translated, back)


def discriminator_objective(discriminator: Discriminator, x: Tensor, present: Tensor, drawn: Drawn, r1: float,
                            terms: OneShotTerms, ranks: Ranks) -> tuple[Tensor, Parts]:  # fmt: skip
    """D_B's loss on images of B against x̂_BB and ŝ_AB (METHOD 5), and R1 (METHOD 6).

    present: bool (B), which of x are of B. r1: λ_R1 × its interval when due, else 0.
    """
    real, fakes, labels = x.detach(), [drawn.many.detach()], [present]
    if r1:
        real = real.requires_grad_()
    if drawn.translated is not None:
        fakes.append(drawn.translated.detach())
        labels.append(torch.ones(len(fakes[-1]), dtype=torch.bool, device=x.device))
    with autocast(x, terms.bf16):
        logits = discriminator(torch.cat([real, *fakes])).float()
    judged, made = logits[: len(real)], logits[len(real) :]
    loss = discriminator_loss(judged, present[:, None], made, torch.cat(labels)[:, None], ranks)
    parts = {"d_adversarial": loss.detach()}
    if r1:
        penalty = gradient_penalty(judged, present[:, None], real)
        loss, parts = loss + r1 * penalty, parts | {"r1": penalty.detach()}
    return loss, parts


def one_shot_objective(discriminator: Discriminator, x: Tensor, present: Tensor, s: Tensor | None, drawn: Drawn,
                       terms: OneShotTerms, ranks: Ranks) -> tuple[Tensor, Parts]:  # fmt: skip
    """The autoencoder's loss, and its parts."""
    with autocast(x, terms.bf16):
        judged = discriminator(drawn.many).float()
        translated = None if drawn.translated is None else discriminator(drawn.translated).float()
    parts = {
        "reconstruction": over((x - drawn.many).abs().flatten(1).mean(dim=1), present, ranks),
        "shrink": over(drawn.content.square().flatten(1).mean(dim=1), present, ranks),
        "adversarial": adversarial_loss(judged, present[:, None], ranks),
    }
    if s is not None and drawn.own is not None and drawn.back is not None and translated is not None:
        parts |= {"one": l1(s, drawn.own), "one_cycle": l1(s, drawn.back)}
        parts["one_adversarial"] = F.softplus(-translated).mean()
    weights = {name: terms.adversarial if name.endswith("adversarial") else getattr(terms, name) for name in parts}
    total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    return total, {name: part.detach() for name, part in parts.items()} | {"total": total.detach()}


def one_shot_step(nets: OneShotLearners, optimisers: OneShotOptimisers, x: Tensor, present: Tensor, s: Tensor | None,
                  r1: float, terms: OneShotTerms, draws: Draws) -> Parts:  # fmt: skip
    """D_B learns, then the autoencoder. x: float32 (B×3×S×S), of which those ``present`` are of B. s: augmentations of
    the one image, float32 (B×3×S×S), in phase II; none in phase I."""
    ranks = draws.ranks
    drawn = draw_all(nets.generative.generator, x, s, terms)
    loss, parts = discriminator_objective(nets.discriminator, x, present, drawn, r1, terms, ranks)
    update(optimisers.discriminator, loss, ranks)
    with frozen(nets.discriminator):
        loss, more = one_shot_objective(nets.discriminator, x, present, s, drawn, terms, ranks)
        update(optimisers.generative, loss, ranks)
    return parts | more
