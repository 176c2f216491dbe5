"""One training iteration as the public code orders it, for comparison: the same mathematics with its recomputation.

Written from METHOD. What is repeated here and done once in :mod:`lanit.steps`: CLIP sees the real images of every pass
again, for labels that do not change (10 image batches an iteration in phase 1, 18 in phase 2), and its text tower runs
over the full context; every translation encodes its source again; x̂ and x̂' go through CLIP one by one; gradients flow
into networks that do not learn; 1×1 shortcuts run at the larger size; heads, and the choice of logits, are loops.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lanit import losses
from lanit.labels import EmbeddedPrompts, adaptive, margin, with_slack
from lanit.losses import LossWeights
from lanit.networks import AdaIN, DownBlock, InstanceNorm, MappingNetwork, UpBlock, aggregate
from lanit.objectives import Networks
from lanit.prompts import PromptLearner
from lanit.ranks import Draws

_SLOPE, _HALF = 0.2, 0.5**0.5


class NaiveDown(nn.Module):
    """:class:`lanit.networks.DownBlock` with the shortcut before the pooling."""

    def __init__(self, block: DownBlock) -> None:
        super().__init__()
        self.block, self.down = block, block.down

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        short, residual = block.shortcut(x), block.conv1(F.leaky_relu(block.norm1(x), _SLOPE))
        if self.down:
            short, residual = F.avg_pool2d(short, 2), F.avg_pool2d(residual, 2)
        return (short + block.conv2(F.leaky_relu(block.norm2(residual), _SLOPE))) * _HALF


class NaiveUp(nn.Module):
    """:class:`lanit.networks.UpBlock` with the shortcut after the upsampling."""

    def __init__(self, block: UpBlock) -> None:
        super().__init__()
        self.block, self.up = block, block.up

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        block = self.block
        residual = F.leaky_relu(block.norm1(x, style), _SLOPE)
        if self.up:
            x, residual = (F.interpolate(image, scale_factor=2, mode="nearest") for image in (x, residual))
        residual = block.conv2(F.leaky_relu(block.norm2(block.conv1(residual), style), _SLOPE))
        return (block.shortcut(x) + residual) * _HALF


class NaiveNorm(nn.Module):
    """:class:`lanit.networks.InstanceNorm` by its own operator."""

    def __init__(self, norm: InstanceNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.norm.weight, bias=self.norm.bias)


class NaiveAdaIN(nn.Module):
    def __init__(self, norm: AdaIN) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self.norm.affine(style)[:, :, None, None].chunk(2, dim=1)
        return (1 + gamma) * F.instance_norm(x) + beta


def naive_networks(nets: Networks) -> Networks:
    """A copy of ``nets`` with equal parameters, whose blocks compute the same in the slower order."""
    made = copy.deepcopy(nets).to(memory_format=torch.contiguous_format)
    for module in list(made.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, InstanceNorm):
                setattr(module, name, NaiveNorm(child))
            elif isinstance(child, AdaIN):
                setattr(module, name, NaiveAdaIN(child))
            elif isinstance(child, DownBlock):
                setattr(module, name, NaiveDown(child))
            elif isinstance(child, UpBlock):
                setattr(module, name, NaiveUp(child))
    return made


def copied(learner: PromptLearner) -> PromptLearner:
    """A learner with prompts of its own and the same text tower."""
    return copy.deepcopy(learner, {id(learner.tower): learner.tower})


@dataclass(frozen=True)
class NaiveWeights(LossWeights):
    """With the two that schedules give to a step of the product."""

    diversity: float = 1.0
    r1: float = 1.0


def plain_prompts(domains: Tensor, base: Tensor, scale: float = 1.0) -> EmbeddedPrompts:
    """Prompts without offsets and weights."""
    zero = torch.zeros(len(domains), dtype=base.dtype, device=base.device)
    return EmbeddedPrompts(domains, base, zero, zero + 1, scale)


@dataclass
class NaiveClip:
    """Frozen CLIP and prompts. encode: images in [-1, 1] to unit-norm embeddings. learner: with its full context."""

    encode: Callable[[Tensor], Tensor]
    scale: float
    learner: PromptLearner

    @classmethod
    def of(cls, encode: Callable[[Tensor], Tensor], scale: float, learner: PromptLearner) -> NaiveClip:
        """Prompts are padded to the whole context, as a tokenizer does."""
        full = copied(learner)
        missing = full.tower.context_length - full.rows.shape[1]
        full.rows = F.pad(full.rows, (0, missing), value=int(full.rows.max()))
        return cls(encode, scale, full)

    def labels(self, images: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
        with torch.no_grad():
            return adaptive(margin(self.encode(images), *text))


@dataclass
class NaiveState:
    """Networks and their four optimisers, and that of the prompts, none in phase 1."""

    nets: Networks
    optimisers: dict[str, torch.optim.Optimizer]
    prompts: torch.optim.Optimizer | None


@dataclass(frozen=True)
class Images:
    """x, y: float (B×3×S×S) in [-1, 1]; z1, z2: float (B×16)."""

    x: Tensor
    y: Tensor
    z1: Tensor
    z2: Tensor


def naive_iteration(state: NaiveState, images: Images, clip: NaiveClip, weights: NaiveWeights, draws: Draws) -> None:
    """D-latent, D-reference, G-latent, G-reference; prompts learn in the latent pass."""
    learning = state.prompts is not None
    with torch.set_grad_enabled(learning):
        text = clip.learner.text_features()
    fixed = (text[0].detach(), text[1].detach())
    d_x, d_y = clip.labels(images.x, fixed), clip.labels(images.y, fixed)
    for latent in (True, False):
        if learning:
            d_x, d_y = clip.labels(images.x, fixed), clip.labels(images.y, fixed)
        _discriminator_pass(state, images, d_x, d_y, latent, weights)
    for latent in (True, False):
        for _ in range(2 if learning and latent else 1):
            d_x, d_y = clip.labels(images.x, fixed), clip.labels(images.y, fixed)
        made = _generator_pass(state, images, d_x, d_y, latent, clip, fixed, weights, draws)
        if state.prompts is not None and latent:
            _learn_prompts(state.prompts, clip, text, *made, weights)


def _codes(nets: Networks, latent: bool, z: Tensor, y: Tensor) -> Tensor:
    return _mapped(nets, z) if latent else _styles(nets, y)


def _mapped(nets: Networks, z: Tensor) -> Tensor:
    """E_M, a domain at a time."""
    assert isinstance(nets.mapping, MappingNetwork)
    x = z
    for layer in nets.mapping.shared:
        x = F.relu(layer(x))
    codes = []
    for n in range(len(nets.mapping.weights[0])):
        h = x
        for depth, (weight, bias) in enumerate(zip(nets.mapping.weights, nets.mapping.biases, strict=True)):
            h = (F.relu(h) if depth else h) @ weight[n] + bias[n]
        codes.append(h)
    return torch.stack(codes, dim=1)


def _styles(nets: Networks, images: Tensor) -> Tensor:
    """E_S, a domain at a time."""
    encoder = nets.style_encoder
    features = encoder.trunk(images).flatten(1)
    domains, size = encoder.shape
    weights, biases = encoder.heads.weight.split(size), encoder.heads.bias.split(size)
    return torch.stack([F.linear(features, weights[n], biases[n]) for n in range(domains)], dim=1)


def _judged(nets: Networks, images: Tensor) -> Tensor:
    return nets.discriminator.logits(nets.discriminator.trunk(images)).flatten(1)


def _adversarial(logits: Tensor, labels: Tensor, sign: float) -> Tensor:
    """Mean of softplus(sign × logit) over the active entries, picked one by one."""
    chosen = [logits[b, n] for b in range(len(labels)) for n in range(labels.shape[1]) if labels[b, n]]
    return F.softplus(sign * torch.stack(chosen)).mean()


def _discriminator_pass(state: NaiveState, images: Images, d_x: Tensor, d_y: Tensor, latent: bool,
                        weights: NaiveWeights) -> None:  # fmt: skip
    nets, real_labels, labels = state.nets, with_slack(d_x), with_slack(d_y)
    x = images.x.clone().requires_grad_()
    real = _judged(nets, x)
    penalty = losses.gradient_penalty(real, real_labels, x)
    with torch.no_grad():
        style = aggregate(_codes(nets, latent, images.z1, images.y), labels)
        fake = nets.generator(images.x, style)
    loss = _adversarial(real, real_labels, -1) + _adversarial(_judged(nets, fake), labels, 1) + weights.r1 * penalty
    _update(state, loss, ["discriminator"])


def _generator_pass(state: NaiveState, images: Images, d_x: Tensor, d_y: Tensor, latent: bool, clip: NaiveClip,
                    text: tuple[Tensor, Tensor], weights: NaiveWeights,
                    draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Returns x̂, x̂', d_y, the drawn domains and d_inv, for the prompts to learn from."""
    nets, labels = state.nets, with_slack(d_y)
    drawn, flipped = losses.flip_one(d_y, draws)
    codes = _codes(nets, latent, images.z1, images.y)
    style = aggregate(codes, labels)
    made = nets.generator(images.x, style)
    loss = weights.adversarial * _adversarial(_judged(nets, made), labels, -1)
    loss = loss + weights.style * losses.l1(style.detach(), aggregate(_styles(nets, made), labels))
    if latent and weights.diversity:
        other = nets.generator(images.x, aggregate(_mapped(nets, images.z2), labels)).detach()
        loss = loss - weights.diversity * losses.l1(made, other)
    back = nets.generator(made, aggregate(_styles(nets, images.x), with_slack(d_x)))
    turned = nets.generator(made, aggregate(codes, with_slack(flipped)))
    loss = loss + weights.cycle * losses.l1(images.x, back)
    for image, wanted in ((made, d_y), (turned, flipped)):
        loss = loss + weights.domain * losses.domain_loss(margin(clip.encode(image), *text), drawn, wanted, clip.scale)
    _update(state, loss, ["generator", "style_encoder", "mapping"] if latent else ["generator"])
    return made, turned, d_y, drawn, flipped


def _learn_prompts(
    optimiser: torch.optim.Optimizer,
    clip: NaiveClip,
    text: tuple[Tensor, Tensor],
    made: Tensor,
    turned: Tensor,
    d_y: Tensor,
    drawn: Tensor,
    flipped: Tensor,
    weights: NaiveWeights,
) -> None:
    loss = torch.zeros((), dtype=made.dtype, device=made.device)
    for image, wanted in ((made, d_y), (turned, flipped)):
        with torch.no_grad():
            seen = clip.encode(image)
        loss = loss + weights.domain * losses.domain_loss(margin(seen, *text), drawn, wanted, clip.scale)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _update(state: NaiveState, loss: Tensor, names: list[str]) -> None:
    for optimiser in state.optimisers.values():
        optimiser.zero_grad()
    loss.backward()
    for name in names:
        state.optimisers[name].step()
