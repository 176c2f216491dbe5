"""LANIT as the paper has it (METHOD §3 to §5): StarGAN v2's networks, guided by CLIP where ``domain`` is above 0."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lanit import losses
from lanit.ema import Average
from lanit.errors import LanitError, UsageError
from lanit.growing import grow
from lanit.labels import EmbeddedPrompts, with_slack
from lanit.methods.method import Moment, Options, Setting
from lanit.methods.optimisers import adam
from lanit.networks import GenerativeNetworks, NetworkOptions
from lanit.objectives import Batch, Guidance, Networks, Parts, StepOptions, with_edits
from lanit.options import check_settings
from lanit.ranks import Draws
from lanit.schedules import diversity_weight, ema_decay, is_due, r1_weight
from lanit.steps import Optimisers, StepPlan, fused_step, paper_step

_DISTANCES = 512
"""Images that distances between images are measured on, for the term ``distance``."""


@dataclass(frozen=True)
class StarganOptions:
    """Settings of this method; the defaults are METHOD §5's.

    schedule: ``fused`` or ``paper`` (METHOD §3). learning_rate: of Adam for all four networks; mapping_rate: the share
    of it that E_M, or what stands in its place, learns at (0.01 in StarGAN v2's public code).
    diversity, r1: loss weights λ, of which the first falls to 0 at the share ``diversity_until`` of the steps, or stays
    where that is 0. r1_every: steps between R1 penalties. domain_every: steps between those in which CLIP guides, and
    prompts learn; a step without is as one with ``domain=0``. edits: share of the rows of a batch that learn to add one
    domain and to keep all else (:func:`lanit.objectives.with_edits`), for images without partners; the others take on
    y's labels whole. prompt_learning_rate: of Adam for the prompts.
    grow: folder of a run at half the image size, or at the same, whose networks this one begins with
    (:mod:`lanit.growing`).
    compile: compile G and E_S; D is not, since R1 differentiates it twice.
    """

    networks: NetworkOptions = field(default_factory=NetworkOptions)
    terms: StepOptions = field(default_factory=StepOptions)
    schedule: Literal["fused", "paper"] = "fused"
    learning_rate: float = 1e-4
    mapping_rate: float = 1.0
    diversity: float = 1.0
    diversity_until: float = 13 / 15
    r1: float = 1.0
    r1_every: int = 8
    domain_every: int = 1
    edits: float = 0.0
    prompt_learning_rate: float = 1e-5
    grow: str = ""
    compile: Literal["no", "yes"] = "no"

    def __post_init__(self) -> None:
        check_settings(self.networks)
        check_settings(self.terms, ("guidance_crop",))
        check_settings(self.terms.weights)
        check_settings(self, ("diversity_until", "edits"))
        if self.domain_every < 1:
            raise UsageError("domain_every is at least 1", "To train without CLIP's guidance: --set domain=0.")
        scope = self.terms.domain_scope
        if self.terms.domain_form == "cosine" and scope != "drawn":
            raise UsageError(f"domain_form cosine knows no domain_scope {scope}", "Add --set domain_scope=drawn.")
        if self.terms.weights.triplet and self.networks.codes == "table":
            raise UsageError("triplet compares styles of a domain, but codes=table has one", "Add --set codes=mapping.")
        if self.networks.discriminator_input == "pair" and self.terms.augment != "none":
            raise UsageError("augment would change the two of a pair apart", "Add --set augment=none.")

    def network_options(self, image_size: int, domains: int) -> NetworkOptions:
        """Sizes of the networks for images of S pixels and N prompts; the slack domain is added here."""
        widths = self.networks
        return replace(
            widths,
            image_size=image_size,
            domains=domains + 1,
            max_channels=widths.max_channels or 512,
            mapping_width=widths.mapping_width or 512,
            classifies=bool(self.terms.weights.classification),
        )


class Stargan:
    """:class:`lanit.methods.method.Method`: four networks, two optimisers for them, and the prompts."""

    options: ClassVar[type[Options]] = StarganOptions
    groups: ClassVar[tuple[str, ...]] = (
        "networks", "average", "generative_optimiser", "discriminator_optimiser", "prompts", "prompt_optimiser",
    )  # fmt: skip

    def __init__(self, options: StarganOptions, setting: Setting) -> None:
        self._options, self._setting = options, setting
        weights = options.terms.weights
        if not setting.paired and (weights.pair or options.networks.discriminator_input == "pair"):
            raise LanitError(
                "pair and discriminator_input=pair learn from paired images, but this run takes images unpaired",
                "Add --set pairs=yes, or take --preset cyclegan, which needs no pairs.",
            )
        moments = None
        if weights.distance:
            images, labels = setting.sample(_DISTANCES)
            moments = losses.distance_moments(images, with_slack(labels))
        self._terms = replace(options.terms, bf16=setting.bf16, moments=moments)
        self._unguided = replace(self._terms, weights=replace(weights, domain=0.0))
        self.networks = Networks(options.network_options(setting.image_size, setting.domains)).to(setting.device)
        if setting.inner is not None:
            grow(self.networks, setting.inner)
        self._average = Average(self.networks.generative)
        self.averaged = self._average.module
        generative, discriminator = self.networks.generative, self.networks.discriminator
        self._optimisers = Optimisers(
            adam(_groups(generative, options), options.learning_rate),
            adam([{"params": list(discriminator.parameters())}], options.learning_rate),
        )
        self._fixed = setting.prompts
        learns = options.terms.prompt_update != "generator-only" and weights.domain
        self._learner = setting.learner if learns else None
        self._contexts = nn.ParameterDict()
        if self._learner is not None:
            self._learner.to(setting.device)
            self._learned = Average(nn.ParameterList([self._learner.context]))
            (average,) = self._learned.module.parameters()
            self._contexts = nn.ParameterDict({"context": self._learner.context, "average": average})
            self._optimisers.prompts = adam([{"params": [self._learner.context]}], options.prompt_learning_rate)

    @property
    def learns_prompts(self) -> bool:
        return self._learner is not None

    def step(self, batch: Batch, moment: Moment, draws: Draws) -> Parts:
        options, learning = self._options, moment.learning and self.learns_prompts
        until = round(options.diversity_until * moment.planned)
        plan = StepPlan(
            r1_weight(options.r1, moment.step, options.r1_every),
            diversity_weight(options.diversity, moment.step, until) if until else options.diversity,
            learning,
        )

        terms = self._terms if is_due(moment.step, options.domain_every) else self._unguided
        reads_prompts = bool(terms.weights.domain or terms.weights.looks)

        def guidance() -> Guidance:
            """Text embeddings of the prompts as they are now in phase 2; as written before it, as settled after."""
            prompts = self._fixed
            if learning and self._learner is not None and reads_prompts:
                prompts = prompts.moved(*self._learner.text_features())
            return Guidance(self._setting.encode, prompts)

        batch = batch if batch.paired else with_edits(batch, options.edits, draws)
        take = fused_step if options.schedule == "fused" else paper_step
        parts = take(self.networks, self._optimisers, batch, guidance, plan, terms, draws)
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


def _groups(networks: GenerativeNetworks, options: StarganOptions) -> list[dict[str, Any]]:
    """Parameters of G, E_S and E_M for one optimiser, those of E_M at a rate of their own where it has one."""
    if options.mapping_rate == 1:
        return [{"params": list(networks.parameters())}]
    codes = list(networks.mapping.parameters())
    own = {id(parameter) for parameter in codes}
    others = [parameter for parameter in networks.parameters() if id(parameter) not in own]
    return [{"params": others}, {"params": codes, "lr": options.mapping_rate * options.learning_rate}]
