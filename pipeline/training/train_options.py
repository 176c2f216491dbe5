"""Everything that can be set about a training run, and the presets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from lanit.errors import UsageError
from lanit.losses import DomainForm
from lanit.networks import NetworkOptions
from lanit.objectives import LossWeights, PromptUpdate, StepOptions

Schedule = Literal["fused", "paper"]
Precision = Literal["auto", "float32", "bf16"]


@dataclass(frozen=True)
class TrainOptions:
    """Options of ``lanit train``; the defaults are METHOD §5's.

    size: image side S, pixels, a power of two. steps: iterations in all, 0 for no limit. minutes: training time after
    which to stop, 0 for no limit; where it is given, schedules are planned from the speed of the first steps.
    channels, max_channels, discriminator_channels, mapping_width: widths of the networks; 0 is the paper's.
    output: ``image``, or ``residual`` to keep content from the first step, see :class:`lanit.networks.NetworkOptions`.
    schedule: ``fused`` or ``paper`` (METHOD §3). learning_rate: of Adam for all four networks.
    adversarial, domain, cycle, style, diversity, r1: loss weights λ. r1_every: steps between R1 penalties.
    domain_form, domain_scope, guidance_crop: METHOD 10, see :class:`lanit.objectives.StepOptions`.
    diversity_until: share of the steps at which λ_ds reaches 0. prompts_from: share of the steps at which phase 2
    begins; 1 never learns prompts.
    prompt_update: METHOD 14. prompt_learning_rate: of Adam for the prompts. refresh_every: steps between label
    refreshes in phase 2 (METHOD 15). slack: ``domain`` trains images without a label as ∅, ``drop`` leaves them out.
    balance: draw rows ``uniform``-ly, or a ``domain`` first and then a row of it. crop: probability of a random crop.
    augment: differentiable augmentation of all that the discriminator sees, for a few hundred to a few thousand images.
    compile: compile G and E_S; D is not, since R1 differentiates it twice.
    precision: of the networks; ``auto`` is bf16 where the processor has it. clip_precision, r1_precision: of CLIP's
    image tower and of the gradient penalty, where the networks are bf16. ema: decay of the averages.
    cache_gb: images at training size are decoded once into the store where they fit into this, in 10⁹ bytes; else
    whenever they are drawn.
    log_every, sample_every, checkpoint_every, evaluate_every: steps between metric lines, sample grids, checkpoints and
    evaluations. evaluate_images: how many are translated to every domain in one. keep: how many checkpoints stay,
    besides the best by ``best_by``: ``kid`` or ``fid`` of CLIP embeddings, or the share ``recognised``.
    """

    size: int = 256
    steps: int = 150_000
    minutes: float = 0.0
    batch_size: int = 8
    seed: int = 0
    channels: int = 0
    max_channels: int = 512
    discriminator_channels: int = 0
    mapping_width: int = 512
    output: Literal["image", "residual"] = "image"
    schedule: Schedule = "fused"
    learning_rate: float = 1e-4
    adversarial: float = 1.0
    domain: float = 0.5
    cycle: float = 1.0
    style: float = 1.0
    diversity: float = 1.0
    r1: float = 1.0
    r1_every: int = 8
    domain_form: DomainForm = "margin"
    domain_scope: Literal["drawn", "active"] = "drawn"
    guidance_crop: float = 0.0
    diversity_until: float = 13 / 15
    prompts_from: float = 0.66
    prompt_update: PromptUpdate = "alternate"
    prompt_learning_rate: float = 1e-5
    refresh_every: int = 1000
    slack: Literal["domain", "drop"] = "domain"
    balance: Literal["uniform", "domain"] = "uniform"
    crop: float = 0.5
    augment: Literal["none", "differentiable"] = "none"
    compile: Literal["no", "yes"] = "no"
    precision: Precision = "auto"
    clip_precision: Literal["float32", "bf16"] = "float32"
    r1_precision: Literal["float32", "bf16"] = "float32"
    ema: float = 0.999
    cache_gb: float = 100.0
    log_every: int = 50
    sample_every: int = 1000
    checkpoint_every: int = 1000
    evaluate_every: int = 5000
    evaluate_images: int = 64
    keep: int = 2
    best_by: Literal["kid", "fid", "recognised"] = "kid"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise UsageError(f"{field.name} must be a number of at least 0, not {value:g}")
        for name, hint in get_type_hints(TrainOptions).items():
            allowed = get_args(hint)
            if allowed and getattr(self, name) not in allowed:
                raise UsageError(f"{name} '{getattr(self, name)}' is unknown", f"Choose one of {', '.join(allowed)}.")
        for name in ("ema", "crop", "guidance_crop", "diversity_until", "prompts_from"):
            if getattr(self, name) > 1:
                raise UsageError(f"{name} is a share and lies between 0 and 1, not {getattr(self, name):g}")
        if self.domain_form == "cosine" and self.domain_scope == "active":
            raise UsageError("domain_form cosine knows no domain_scope active", "Add --set domain_scope=drawn.")
        if self.batch_size < 2:
            raise UsageError(f"a batch needs at least 2 images, not {self.batch_size}", "Try --batch-size 8.")
        if not self.steps and not self.minutes:
            raise UsageError("neither steps nor minutes of training are given", "Try --steps 20000.")
        self.network_options(1)

    def network_options(self, domains: int) -> NetworkOptions:
        """Sizes of the networks for ``domains`` prompts; the slack domain is added here."""
        return NetworkOptions(
            image_size=self.size, domains=domains + 1, channels=self.channels, max_channels=self.max_channels or 512,
            discriminator_channels=self.discriminator_channels, mapping_width=self.mapping_width or 512,
            output=self.output,
        )  # fmt: skip

    def step_options(self, bf16: bool) -> StepOptions:
        weights = LossWeights(self.adversarial, self.domain, self.cycle, self.style, self.diversity, self.r1)
        return StepOptions(
            weights,
            self.domain_form,
            self.domain_scope,
            self.guidance_crop,
            self.prompt_update,
            self.augment == "differentiable",
            bf16,
            bf16 and self.clip_precision == "bf16",
            bf16 and self.r1_precision == "bf16",
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _of_size(size: int, batch_size: int, r1: float) -> dict[str, dict[str, Any]]:
    """Presets of an image size: for many images, and for a few hundred to a few thousand."""
    many = {"size": size, "batch_size": batch_size, "r1": r1}
    few = {"augment": "differentiable", "steps": 100_000, "evaluate_every": 2000}
    return {str(size): many, f"{size}-few": many | few}


_SMALL: dict[str, Any] = {
    "max_channels": 128, "mapping_width": 64, "output": "residual", "batch_size": 16, "learning_rate": 1e-3,
    "domain": 1.5, "domain_scope": "active", "guidance_crop": 1.0, "cycle": 2.0, "diversity": 0.5, "r1": 0.05,
    "r1_every": 16, "balance": "domain", "crop": 0.0, "prompts_from": 1.0, "clip_precision": "bf16",
    "evaluate_every": 1000,
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"schedule": "paper"},
    **_of_size(256, 8, 1.0),
    **_of_size(128, 16, 0.25),
    **_of_size(64, 32, 0.1),
    **_of_size(32, 32, 0.05),
    "small-32": _SMALL | {"size": 32, "channels": 32, "steps": 5000, "ema": 0.995},
    "small-64": _SMALL | {"size": 64, "channels": 16, "steps": 20_000, "ema": 0.998},
}
"""Named sets of options. ``paper``: METHOD §5 as published. The others take the ``fused`` schedule: half of the passes
a step, and for equal quality about twice the steps (docs/LOG.md). ``256`` to ``32``: the paper's networks at that image
size, R1 weighed down with it, since a weight of 1 keeps a small discriminator too smooth to see noise; ``…-few``: for
few images. ``small-32``, ``small-64``: drawings and a CPU, minutes to hours."""


def options_from(preset: str, changes: dict[str, Any]) -> TrainOptions:
    """The options of a preset with ``changes`` (those not None) laid over it; minutes alone lift the limit of steps."""
    if preset not in PRESETS:
        raise UsageError(f"there is no preset '{preset}'", f"Choose one of {', '.join(PRESETS)}.")
    given = {name: value for name, value in changes.items() if value is not None}
    if given.get("minutes") and "steps" not in given:
        given["steps"] = 0
    return TrainOptions(**(PRESETS[preset] | given))
