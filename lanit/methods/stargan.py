"""LANIT as the paper has it (METHOD §3 to §5): StarGAN v2's networks, guided by CLIP where ``domain`` is above 0."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lanit.ema import Average
from lanit.errors import UsageError
from lanit.labels import EmbeddedPrompts
from lanit.methods.method import Moment, Options, Setting
from lanit.networks import NetworkOptions
from lanit.objectives import Batch, Guidance, Networks, Parts, StepOptions
from lanit.options import check_settings
from lanit.ranks import Draws
from lanit.schedules import diversity_weight, ema_decay, r1_weight
from lanit.steps import Optimisers, StepPlan, fused_step, paper_step


@dataclass(frozen=True)
class StarganOptions:
    """Settings of this method; the defaults are METHOD §5's.

    schedule: ``fused`` or ``paper`` (METHOD §3). learning_rate: of Adam for all four networks.
    diversity, r1: loss weights λ, of which the first falls to 0 at the share ``diversity_until`` of the steps.
    r1_every: steps between R1 penalties. prompt_learning_rate: of Adam for the prompts.
    compile: compile G and E_S; D is not, since R1 differentiates it twice.
    """

    networks: NetworkOptions = field(default_factory=NetworkOptions)
    terms: StepOptions = field(default_factory=StepOptions)
    schedule: Literal["fused", "paper"] = "fused"
    learning_rate: float = 1e-4
    diversity: float = 1.0
    diversity_until: float = 13 / 15
    r1: float = 1.0
    r1_every: int = 8
    prompt_learning_rate: float = 1e-5
    compile: Literal["no", "yes"] = "no"

    def __post_init__(self) -> None:
        check_settings(self.networks)
        check_settings(self.terms, ("guidance_crop",))
        check_settings(self.terms.weights)
        check_settings(self, ("diversity_until",))
        if self.terms.domain_form == "cosine" and self.terms.domain_scope == "active":
            raise UsageError("domain_form cosine knows no domain_scope active", "Add --set domain_scope=drawn.")

    def network_options(self, image_size: int, domains: int) -> NetworkOptions:
        """Sizes of the networks for images of S pixels and N prompts; the slack domain is added here."""
        widths = self.networks
        return replace(
            widths,
            image_size=image_size,
            domains=domains + 1,
            max_channels=widths.max_channels or 512,
            mapping_width=widths.mapping_width or 512,
        )


class Stargan:
    """:class:`lanit.methods.method.Method`: four networks, two optimisers for them, and the prompts."""

    options: ClassVar[type[Options]] = StarganOptions
    groups: ClassVar[tuple[str, ...]] = (
        "networks", "average", "generative_optimiser", "discriminator_optimiser", "prompts", "prompt_optimiser",
    )  # fmt: skip

    def __init__(self, options: StarganOptions, setting: Setting) -> None:
        self._options, self._setting = options, setting
        self._terms = replace(options.terms, bf16=setting.bf16)
        self.networks = Networks(options.network_options(setting.image_size, setting.domains)).to(setting.device)
        self._average = Average(self.networks.generative)
        self.averaged = self._average.module
        generative, discriminator = self.networks.generative, self.networks.discriminator
        self._optimisers = Optimisers(
            _adam(list(generative.parameters()), options.learning_rate),
            _adam(list(discriminator.parameters()), options.learning_rate),
        )
        self._fixed = setting.prompts
        self._learner = setting.learner if options.terms.prompt_update != "generator-only" else None
        self._contexts = nn.ParameterDict()
        if self._learner is not None:
            self._learner.to(setting.device)
            self._learned = Average(nn.ParameterList([self._learner.context]))
            (average,) = self._learned.module.parameters()
            self._contexts = nn.ParameterDict({"context": self._learner.context, "average": average})
            self._optimisers.prompts = _adam([self._learner.context], options.prompt_learning_rate)

    @property
    def learns_prompts(self) -> bool:
        return self._learner is not None

    def step(self, batch: Batch, moment: Moment, draws: Draws) -> Parts:
        options, learning = self._options, moment.learning and self.learns_prompts
        until = round(options.diversity_until * moment.planned)
        plan = StepPlan(
            r1_weight(options.r1, moment.step, options.r1_every),
            diversity_weight(options.diversity, moment.step, until) if moment.planned else options.diversity,
            learning,
        )

        def guidance() -> Guidance:
            """Text embeddings of the prompts as they are now in phase 2; as written before it, as settled after."""
            prompts = self._fixed
            if learning and self._learner is not None:
                prompts = prompts.moved(*self._learner.text_features())
            return Guidance(self._setting.encode, prompts)

        take = fused_step if options.schedule == "fused" else paper_step
        parts = take(self.networks, self._optimisers, batch, guidance, plan, self._terms, draws)
        decay = ema_decay(self._setting.ema, moment.step)
        self._average.update(self.networks.generative, decay)
        if self._learner is not None:
            self._learned.update(nn.ParameterList([self._learner.context]), decay)
        return parts

    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        found: dict[str, nn.Module | torch.optim.Optimizer] = {
            "networks": self.networks,
            "average": self.averaged,
            "generative_optimiser": self._optimisers.generative,
            "discriminator_optimiser": self._optimisers.discriminator,
        }
        if self._optimisers.prompts is not None:
            found |= {"prompts": self._contexts, "prompt_optimiser": self._optimisers.prompts}
        return found

    def compile(self) -> None:
        if self._options.compile == "yes":
            compile_networks(self.networks)

    def context(self) -> Tensor | None:
        return self._contexts["average"] if self.learns_prompts else None

    @torch.no_grad()
    def prompts(self, context: Tensor | None) -> EmbeddedPrompts:
        if self._learner is None or context is None:
            return self._setting.prompts
        return self._setting.prompts.moved(*self._learner.text_features(context))

    @torch.no_grad()
    def settle(self, context: Tensor | None) -> None:
        if context is not None:
            for kept in self._contexts.values():
                kept.copy_(context)
        self._fixed = self.prompts(context)


def compile_networks(nets: Networks) -> None:
    """Let torch compile G's halves and E_S, each with and without gradients for its parameters."""
    compiled: list[tuple[nn.Module, str]] = [(nets.generator, "encode"), (nets.generator, "decode")]
    if nets.generative.reads_styles:
        compiled.append((nets.style_encoder, "forward"))
    for owner, name in compiled:
        setattr(owner, name, torch.compile(getattr(owner, name)))


def _adam(parameters: list[nn.Parameter], rate: float) -> torch.optim.Adam:
    """As METHOD §5 sets it."""
    return torch.optim.Adam(parameters, rate, betas=(0.0, 0.99), weight_decay=1e-4, fused=True)
