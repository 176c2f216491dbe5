"""One training iteration against a naive one with the public code's order and recomputation: ``make bench``.

    python -m benchmarks.train_step [--size 64] [--batch-size 2] [--rounds 3] [--phase 1 2] [--clip ViT-B-32]

Full-width networks, CLIP of random weights (speed is the same), ten domains, nine templates, random images, R1 in every
D pass: the same mathematics in all rows but for the fused schedule, which makes half of the passes. Variants are timed
in turn, so that a drift of the machine's speed meets all alike; medians are printed, and the share of time per part.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import open_clip
import torch
from torch import Tensor

from benchmarks.naive_step import (
    Images,
    NaiveClip,
    NaiveState,
    NaiveWeights,
    copied,
    naive_iteration,
    naive_networks,
    plain_prompts,
)
from benchmarks.step_parts import time_parts
from lanit.methods.stargan import compile_networks
from lanit.networks import NetworkOptions
from lanit.objectives import Batch, Guidance, Networks, StepOptions
from lanit.prompts import PromptLearner
from lanit.ranks import Draws
from lanit.sentences import without_phrase
from lanit.steps import Optimisers, StepPlan, fused_step, paper_step
from pipeline.clip.text_towers import text_tower
from pipeline.computing.devices import pick_device, warning_of_bf16
from pipeline.prompts.prompt_sets import PromptSet, ensemble, read_prompt_set
from pipeline.showing import console

PROMPTS, NOUN, TEMPLATES = "animal-faces-10", "animal face", 9
WEIGHTS = NaiveWeights()


@dataclass(frozen=True)
class Setting:
    """What all variants share: CLIP as an encoder and prompts, a batch, and networks to copy. clip: its two towers."""

    encode: Callable[[Tensor], Tensor]
    scale: float
    learner: PromptLearner
    images: Images
    nets: Networks
    clip: tuple[torch.nn.Module, torch.nn.Module]
    device: torch.device

    def text(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.learner.text_features()


@dataclass(frozen=True)
class Variant:
    """schedule: ``naive``, ``paper`` or ``fused``; phase: 1 or 2 (METHOD 13)."""

    schedule: str
    precision: str
    phase: int
    lazy: bool = False
    compiled: bool = False

    def row(self) -> tuple[str, str]:
        return self.schedule + ", R1 every 8th" * self.lazy + ", compiled" * self.compiled, self.precision


VARIANTS = (("naive", "float32"), ("paper", "float32"), ("paper", "bf16"), ("fused", "float32"), ("fused", "bf16"))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--channels", type=int, default=0, help="c0; the paper's 2^14 / size by default")
    parser.add_argument("--clip", default="ViT-B-32", help="an architecture of open_clip")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--phase", type=int, nargs="+", choices=(1, 2), default=[1, 2])
    parser.add_argument("--compile", action="store_true", help="with torch.compile too: minutes of compiling")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    setting = prepare(given.clip, given.size, given.channels, given.batch_size, pick_device(given.device))
    slow = warning_of_bf16(setting.device)
    if slow:
        console.note(f"{slow}: not measured")
    measured = ("float32",) if slow else ("float32", "bf16")
    for phase in given.phase:
        variants = [Variant(schedule, precision, phase) for schedule, precision in VARIANTS if precision in measured]
        variants += [Variant("fused", measured[-1], phase, lazy=True)]
        variants += [Variant("fused", "float32", phase, compiled=True)] * given.compile
        report(variants, setting, given)


def report(variants: list[Variant], setting: Setting, given: argparse.Namespace) -> None:
    made = {variant: step_of(variant, setting) for variant in variants}
    steps = {variant: step for variant, (step, _) in made.items()}
    seconds: dict[Variant, list[float]] = {variant: [] for variant in variants}
    for step in steps.values():
        step()  # not counted: allocations, kernel selection
    for _ in range(given.rounds):
        for variant, step in steps.items():
            seconds[variant].append(timed(step, setting.device))
    medians = {variant: statistics.median(values) for variant, values in seconds.items()}
    naive = medians[variants[0]]
    rows = [(*variant.row(), f"{median:.3f}", f"{naive / median:.2f}") for variant, median in medians.items()]
    title = (
        f"Phase {variants[0].phase}: one iteration of {given.batch_size} images, {given.size} px, {given.clip}, "
        f"on {setting.device}, median of {given.rounds}"
    )
    console.table(title, ("schedule", "precision", "seconds", "times faster"), rows, left=2)
    for variant in (each for each in variants if each.precision == "float32" and not each.lazy | each.compiled):
        shares = time_parts(steps[variant], parts_of(made[variant][1], setting), setting.device)
        parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        console.say(f"{' '.join(variant.row())}: {parts}")


def timed(step: Callable[[], object], device: torch.device) -> float:
    begun = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def prepare(architecture: str, size: int, channels: int, count: int, device: torch.device) -> Setting:
    """CLIP of random weights under lanit's own preprocessing, networks and random images."""
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, device=device).eval().requires_grad_(False)
    phrases = read_prompt_set(PROMPTS).domains
    templates = ensemble(NOUN)[:TEMPLATES]
    prompts = PromptSet(phrases, templates, tuple(map(without_phrase, templates)), PROMPTS)
    tower = text_tower(model, open_clip.get_tokenizer(architecture))
    learner = PromptLearner(tower, prompts.domains, prompts.templates, prompts.bases).to(device)
    side = model.visual.image_size[0]

    def encode(images: Tensor) -> Tensor:
        resized = torch.nn.functional.interpolate(images, (side, side), mode="bicubic", antialias=True)
        return torch.nn.functional.normalize(model.encode_image(resized), dim=-1)

    towers = (model.visual, model.transformer)
    options = NetworkOptions(image_size=size, domains=len(phrases) + 1, channels=channels)
    x, y = torch.rand(2, count, 3, size, size, device=device) * 2 - 1
    z1, z2 = torch.randn(2, count, options.latent_dim, device=device)
    return Setting(encode, 100.0, learner, Images(x, y, z1, z2), Networks(options).to(device), towers, device)


def adam(parameters: list[torch.nn.Parameter], rate: float = 1e-4) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, rate, betas=(0.0, 0.99), weight_decay=1e-4, fused=True)


def parts_of(nets: Networks, setting: Setting) -> dict[str, list[torch.nn.Module]]:
    generator = nets.generator
    return {
        "G": [generator.from_rgb, generator.encoder, *generator.decoder, generator.norm, generator.to_rgb],
        "D": [nets.discriminator.trunk],
        "E_S": [nets.style_encoder.trunk],
        "CLIP images": [setting.clip[0]],
        "CLIP text": [setting.clip[1]],
    }


def step_of(variant: Variant, setting: Setting) -> tuple[Callable[[], object], Networks]:
    """One iteration, on networks and prompts of its own, and the networks."""
    draws = Draws(torch.Generator(setting.device).manual_seed(0))
    if variant.schedule == "naive":
        return naive_of(variant, setting, draws)
    nets, learner = copy.deepcopy(setting.nets), copied(setting.learner)
    learning = variant.phase == 2
    if variant.compiled:
        compile_networks(nets)
    optimisers = Optimisers(
        adam(list(nets.generative.parameters())),
        adam(list(nets.discriminator.parameters())),
        adam([learner.context], 1e-5) if learning else None,
    )
    fixed, images = setting.text(), setting.images

    def prompts() -> Guidance:
        text = learner.text_features() if learning else fixed
        return Guidance(setting.encode, plain_prompts(*text, setting.scale))

    labels = [naive_labels(setting, fixed, image) for image in (images.x, images.y)]
    batch = Batch(images.x, labels[0], images.y, labels[1], images.z1, images.z2)
    bf16 = variant.precision == "bf16"
    options = StepOptions(WEIGHTS, bf16=bf16, r1_precision="bf16")
    plan = StepPlan(WEIGHTS.r1, WEIGHTS.diversity, learning)
    take, count = (fused_step if variant.schedule == "fused" else paper_step), [0]

    def step() -> None:
        due = not variant.lazy or count[0] % 8 == 0
        count[0] += 1
        now = plan if due else replace(plan, r1_weight=0.0)
        take(nets, optimisers, batch, prompts, now, options, draws)

    return step, nets


def naive_labels(setting: Setting, text: tuple[Tensor, Tensor], images: Tensor) -> Tensor:
    return NaiveClip(setting.encode, setting.scale, setting.learner).labels(images, text)


def naive_of(variant: Variant, setting: Setting, draws: Draws) -> tuple[Callable[[], object], Networks]:
    nets = naive_networks(setting.nets)
    clip = NaiveClip.of(setting.encode, setting.scale, setting.learner)
    named = ("generator", "style_encoder", "mapping", "discriminator")
    optimisers: dict[str, torch.optim.Optimizer] = {
        name: adam(list(getattr(nets, name).parameters())) for name in named
    }
    state = NaiveState(nets, optimisers, adam([clip.learner.context], 1e-5) if variant.phase == 2 else None)
    return lambda: naive_iteration(state, setting.images, clip, WEIGHTS, draws), nets


if __name__ == "__main__":
    main()
