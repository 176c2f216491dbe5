"""Time of one training step by schedule and precision, as ratios within one run: ``make bench``.

Random images, the sample CLIP, networks of the small-64 preset unless told otherwise. Variants are timed in turn, so
that a drift of the machine's speed meets all of them alike; medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from lanit.prompts import PromptLearner
from lanit.steps import Batch, Guidance, Networks, Optimisers, StepPlan, fused_step, paper_step
from pipeline import console
from pipeline.clip_models import load_clip
from pipeline.devices import pick_device
from pipeline.labelling.prompt_sets import read_prompt_set
from pipeline.training.train_options import options_from

VARIANTS = (("paper", False), ("paper", True), ("fused", False), ("fused", True))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--preset", default="small-64")
    parser.add_argument("--batch-size", type=int, default=0, help="the preset's by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = pick_device(given.device)
    options = options_from(given.preset, {"batch_size": given.batch_size or None})
    steps = {
        (schedule, bf16): step_of(given.preset, schedule, bf16, options.batch_size, device)
        for schedule, bf16 in VARIANTS
    }
    seconds: dict[tuple[str, bool], list[float]] = {variant: [] for variant in VARIANTS}
    for step in steps.values():
        step()  # not counted: allocations, kernel selection
    for _ in range(given.rounds):
        for variant, step in steps.items():
            seconds[variant].append(timed(step, device))
    medians = {variant: statistics.median(values) for variant, values in seconds.items()}
    reference = medians["paper", False]
    rows = [
        (
            schedule,
            "bf16" if bf16 else "float32",
            f"{medians[schedule, bf16]:.3f}",
            f"{reference / medians[schedule, bf16]:.2f}",
        )
        for schedule, bf16 in VARIANTS
    ]
    title = f"One step of {options.batch_size} images at {options.size} px on {device}, median of {given.rounds}"
    console.table(title, ("schedule", "precision", "seconds", "times faster"), rows, left=2)


def timed(step: Callable[[], object], device: torch.device) -> float:
    begun = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def step_of(preset: str, schedule: str, bf16: bool, count: int, device: torch.device) -> Callable[[], object]:
    """One step without R1 or prompt learning, on networks of its own."""
    torch.manual_seed(0)
    options, prompts, clip = options_from(preset, {}), read_prompt_set("sample-faces"), load_clip("sample", device)
    nets = Networks(options.network_options(len(prompts.domains))).to(device)
    with torch.no_grad():
        learner = PromptLearner(clip.text, prompts.domains, prompts.templates, prompts.bases).to(device)
        guidance = Guidance(clip.encode_images, clip.logit_scale, *learner.text_features())
    optimisers = Optimisers(
        torch.optim.Adam(nets.generative.parameters(), 1e-4, betas=(0.0, 0.99), fused=True),
        torch.optim.Adam(nets.discriminator.parameters(), 1e-4, betas=(0.0, 0.99), fused=True),
    )
    x, y = torch.rand(2, count, 3, options.size, options.size, device=device) * 2 - 1
    labels = torch.rand(2, count, len(prompts.domains), device=device) < 0.3
    z1, z2 = torch.randn(2, count, nets.mapping.latent_dim, device=device)
    batch = Batch(x, labels[0], y, labels[1], z1, z2)
    plan, settings = StepPlan(0.0, 1.0, False), options.step_options(bf16)
    take = fused_step if schedule == "fused" else paper_step
    randomness = torch.Generator(device).manual_seed(0)
    return lambda: take(nets, optimisers, batch, lambda: guidance, plan, settings, draws)


if __name__ == "__main__":
    main()
