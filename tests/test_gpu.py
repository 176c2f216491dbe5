"""On a CUDA device: training steps run there, wait for nothing, and agree with the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.naive_step import plain_prompts
from lanit.networks import NetworkOptions
from lanit.objectives import Batch, Guidance, Networks, StepOptions
from lanit.ranks import Draws
from lanit.steps import Optimisers, StepPlan, fused_step, paper_step

pytestmark = pytest.mark.gpu
DOMAINS = 3


def batch_on(device: str) -> Batch:
    drawn = torch.Generator().manual_seed(1)
    x, y = (torch.rand(2, 4, 3, 32, 32, generator=drawn) * 2 - 1).to(device)
    x_labels, y_labels = (torch.rand(2, 4, DOMAINS, generator=drawn) < 0.5).to(device)
    z1, z2 = torch.randn(2, 4, 16, generator=drawn).to(device)
    return Batch(x, x_labels, y, y_labels, z1, z2)


def guidance_on(device: str) -> Guidance:
    drawn = torch.Generator().manual_seed(2)
    weights = torch.randn(3 * 32 * 32, 8, generator=drawn).to(device)
    texts = torch.nn.functional.normalize(torch.randn(DOMAINS + 1, 8, generator=drawn), dim=1).to(device)

    def encode(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(images.float().flatten(1) @ weights, dim=1)

    return Guidance(encode, plain_prompts(texts[:-1], texts[-1], 10.0))


def networks_on(device: str) -> tuple[Networks, Optimisers]:
    torch.manual_seed(0)
    nets = Networks(NetworkOptions(32, DOMAINS + 1, channels=8, max_channels=16, mapping_width=8)).to(device)
    optimisers = Optimisers(
        torch.optim.Adam(nets.generative.parameters(), 1e-4, betas=(0.0, 0.99), fused=True),
        torch.optim.Adam(nets.discriminator.parameters(), 1e-4, betas=(0.0, 0.99), fused=True),
    )
    return nets, optimisers


@pytest.mark.parametrize("step", [fused_step, paper_step])
def test_a_step_waits_for_nothing(step: Callable[..., dict[str, torch.Tensor]]) -> None:
    """No host synchronisation in a step, R1 included; the losses are finite when read afterwards."""
    nets, optimisers = networks_on("cuda")
    batch, guidance = batch_on("cuda"), guidance_on("cuda")
    draws = Draws(torch.Generator("cuda").manual_seed(0))
    plan = StepPlan(r1_weight=1.0, diversity_weight=1.0, learn_prompts=False)
    step(nets, optimisers, batch, lambda: guidance, plan, StepOptions(), draws)  # allocations and kernel selection
    torch.cuda.set_sync_debug_mode("error")
    try:
        parts = step(nets, optimisers, batch, lambda: guidance, plan, StepOptions(bf16=True), draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(value) for value in parts.values())


def test_translations_agree_with_the_cpu() -> None:
    images = {}
    for device in ("cpu", "cuda"):
        nets, _ = networks_on("cpu")
        nets = nets.to(device).double()
        batch = batch_on(device)
        style = nets.mapping(batch.z1.double())[:, 0]
        images[device] = nets.generator(batch.x.double(), style).cpu()
    torch.testing.assert_close(images["cuda"], images["cpu"], rtol=1e-6, atol=1e-6)
