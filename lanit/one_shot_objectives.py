"""What one-shot translation minimises, and its step (Benaim and Wolf, NeurIPS 2018), in two phases.

Phase I learns to give back images x of B. Phase II goes on with that, and learns the ends of A from the one image s:
its gradients reach those alone, whatever they pass through (selective back-propagation), since one image would spoil
all else. Subscripts say what reads and what draws: ŝ_AB is s read by A's ends and drawn by B's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lanit.losses import gradient_penalty, l1
from lanit.networks import Discriminator
from lanit.objectives import Parts, autocast
from lanit.one_shot_networks import OneShotNetworks, TwoEndedGenerator
from lanit.options import given
from lanit.ranks import Ranks
from lanit.steps import frozen, update

_FAKES = ("BB", "AB")  # what D_B tells from images of B


@dataclass(frozen=True)
class OneShotTerms:
    """Loss weights λ. reconstruction: ‖x − x̂_BB‖₁. shrink: mean of the content's squares. adversarial: of D_B on
    x̂_BB and on ŝ_AB, each. one: ‖s − ŝ_AA‖₁. one_cycle: ‖s − ŝ_ABA‖₁, one way."""

    reconstruction: float = 10.0
    shrink: float = 0.1
    adversarial: float = 1.0
    one: float = 1.0
    one_cycle: float = 1.0
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


def draw_all(generator: TwoEndedGenerator, x: Tensor, s: Tensor | None, terms: OneShotTerms) -> dict[str, Tensor]:
    """What is made of images x of B, and of s of A in phase II, float32 (B×3×S×S) each, by its subscript, with graphs
    that reach what may learn; and the ``content`` of x."""
    with autocast(x, terms.bf16):
        content = generator.read(x, "many")
        made = {"content": content, "BB": generator.draw(content, "many")}
        if s is not None:
            with frozen(generator.from_rgb, generator.encoder, generator.decoder, generator.to_rgb):
                of_one = generator.read(s, "one")
                made |= {"AA": generator.draw(of_one, "one"), "AB": generator.draw(of_one, "many")}
                made["ABA"] = generator.draw(generator.read(made["AB"], "many"), "one")
    return {name: each.float() for name, each in made.items()}


def discriminator_objective(discriminator: Discriminator, x: Tensor, drawn: dict[str, Tensor], r1: float,
                            terms: OneShotTerms) -> tuple[Tensor, Parts]:  # fmt: skip
    """D_B's loss on images of B against x̂_BB and ŝ_AB (METHOD 5), and R1 (METHOD 6). r1: λ_R1 × its interval when due,
    else 0."""
    real, fakes = x.detach().requires_grad_(bool(r1)), [drawn[name].detach() for name in _FAKES if name in drawn]
    with autocast(x, terms.bf16):
        judged, made = discriminator(torch.cat([real, *fakes])).float().tensor_split([len(real)])
    loss = F.softplus(-judged).mean() + F.softplus(made).mean()
    parts = {"d_adversarial": loss.detach()}
    if r1:
        penalty = gradient_penalty(judged, torch.ones_like(judged), real)
        loss, parts = loss + r1 * penalty, parts | {"r1": penalty.detach()}
    return loss, parts


def one_shot_objective(discriminator: Discriminator, x: Tensor, s: Tensor | None, drawn: dict[str, Tensor],
                       terms: OneShotTerms) -> tuple[Tensor, Parts]:  # fmt: skip
    """The autoencoder's loss, and its parts."""
    parts = {"reconstruction": l1(x, drawn["BB"]), "shrink": drawn["content"].square().mean()}
    weights = {"reconstruction": terms.reconstruction, "shrink": terms.shrink}
    if s is not None:
        parts |= {"one": l1(s, drawn["AA"]), "one_cycle": l1(s, drawn["ABA"])}
        weights |= {"one": terms.one, "one_cycle": terms.one_cycle}
    for name in (name for name in _FAKES if name in drawn):
        with autocast(x, terms.bf16):
            logits = discriminator(drawn[name]).float()
        parts[f"adversarial_{name}"], weights[f"adversarial_{name}"] = F.softplus(-logits).mean(), terms.adversarial
    total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    return total, {name: part.detach() for name, part in parts.items()} | {"total": total.detach()}


def one_shot_step(nets: OneShotLearners, optimisers: Mapping[str, Optimizer], x: Tensor, s: Tensor | None, r1: float,
                  terms: OneShotTerms, ranks: Ranks) -> Parts:  # fmt: skip
    """D learns, then the autoencoder. x: images of B, float32 (B×3×S×S). s: augmentations of the one image, float32
    (B×3×S×S), in phase II; none in phase I."""
    drawn = draw_all(nets.generative.generator, x, s, terms)
    loss, parts = discriminator_objective(nets.discriminator, x, drawn, r1, terms)
    update(loss, ranks, optimisers["discriminator"])
    with frozen(nets.discriminator):
        loss, more = one_shot_objective(nets.discriminator, x, s, drawn, terms)
        update(loss, ranks, optimisers["generative"])
    return parts | more
