"""One training iteration: schedules ``fused`` and ``paper`` (METHOD §3), and which side learns when (METHOD 14)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lanit.objectives import (
    Batch,
    Guidance,
    Networks,
    Parts,
    StepOptions,
    Translation,
    discriminator_objective,
    generator_objective,
    reference_fakes,
    translate_batch,
)
from lanit.ranks import Draws, Ranks


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


def fused_step(nets: Networks, optimisers: Optimisers, batch: Batch, prompts: Callable[[], Guidance], plan: StepPlan,
               options: StepOptions, draws: Draws) -> Parts:  # fmt: skip
    """One D and one G backward over a batch whose halves are latent- and reference-guided; x̂ is made once for both."""
    translation = translate_batch(nets, batch, "both", options)
    fake, labels = translation.image.detach(), translation.targets.labels
    parts = _update_discriminator(nets, optimisers, batch, fake, labels, plan, options, draws)
    learner = _learner(optimisers, plan, options)
    return parts | _update_generator(nets, optimisers, batch, translation, prompts(), learner, plan, options, draws)


def paper_step(nets: Networks, optimisers: Optimisers, batch: Batch, prompts: Callable[[], Guidance], plan: StepPlan,
               options: StepOptions, draws: Draws) -> Parts:  # fmt: skip
    """D-latent, D-reference, G-latent, G-reference; E_S, E_M and the prompts learn in the latent G pass alone.

    Nothing of the generator changes before its latent pass: x is encoded once for the first three, and the x̂ that D
    judges in its latent pass is the one that G learns from.
    """
    latent = translate_batch(nets, batch, "latent", options)
    labels = latent.targets.labels
    parts = _update_discriminator(nets, optimisers, batch, latent.image.detach(), labels, plan, options, draws)
    fake = reference_fakes(nets, batch, latent.content.detach(), options)
    parts = _mean(parts, _update_discriminator(nets, optimisers, batch, fake, labels, plan, options, draws))
    guidance = prompts()
    learner = _learner(optimisers, plan, options)
    generated = _update_generator(nets, optimisers, batch, latent, guidance, learner, plan, options, draws)
    with frozen(*nets.generative.style_networks):
        anew = translate_batch(nets, batch, "reference", options)
        again = _update_generator(nets, optimisers, batch, anew, guidance, None, plan, options, draws)
    return parts | _mean(generated, again)


def _learner(optimisers: Optimisers, plan: StepPlan, options: StepOptions) -> torch.optim.Optimizer | None:
    """What updates the prompts in this step, if they learn."""
    learns = plan.learn_prompts and options.prompt_update != "generator-only" and options.weights.domain
    return optimisers.prompts if learns else None


def _mean(a: Parts, b: Parts) -> Parts:
    """Means of the losses that both passes have; the others as they are."""
    return a | b | {name: (a[name] + b[name]) / 2 for name in a.keys() & b.keys()}


def _step(optimiser: torch.optim.Optimizer, ranks: Ranks) -> None:
    """Update by the gradients of the whole batch."""
    ranks.average_gradients(parameter for group in optimiser.param_groups for parameter in group["params"])
    optimiser.step()


def update(loss: Tensor, ranks: Ranks, *optimisers: torch.optim.Optimizer) -> None:
    """One update of what a loss alone teaches, by the gradients of the whole batch."""
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for optimiser in optimisers:
        _step(optimiser, ranks)


def _update_discriminator(nets: Networks, optimisers: Optimisers, batch: Batch, fake: Tensor, labels: Tensor,
                          plan: StepPlan, options: StepOptions, draws: Draws) -> Parts:  # fmt: skip
    loss, parts = discriminator_objective(nets, batch, fake, labels, plan.r1_weight, options, draws)
    optimisers.discriminator.zero_grad(set_to_none=True)
    loss.backward()
    _step(optimisers.discriminator, draws.ranks)
    return parts


def _update_generator(nets: Networks, optimisers: Optimisers, batch: Batch, translation: Translation,
                      guidance: Guidance, learner: torch.optim.Optimizer | None, plan: StepPlan, options: StepOptions,
                      draws: Draws) -> Parts:  # fmt: skip
    """Update G, E_S, E_M and, with ``learner``, the prompts as METHOD 14 says.

    ``alternate`` holds the prompts while G learns and the images while the prompts learn, but both see the same
    parameters, so that its gradients are those of ``joint``.
    """
    joint = learner is not None and options.prompt_update == "joint"
    guided = 0.0 if plan.learn_prompts and options.prompt_update == "prompts-only" else 1.0
    seen = guidance if joint else replace(guidance, prompts=guidance.prompts.detached())
    with frozen(nets.discriminator):
        loss, parts, of_prompts = generator_objective(
            nets, batch, translation, seen, plan.diversity_weight, guided, options, draws
        )
        optimisers.generative.zero_grad(set_to_none=True)
        if learner is not None:
            learner.zero_grad(set_to_none=True)
        loss.backward()
    _step(optimisers.generative, draws.ranks)
    if learner is not None:
        if not joint:
            (options.weights.domain * of_prompts(guidance.prompts)).backward()
        _step(learner, draws.ranks)
    return parts
