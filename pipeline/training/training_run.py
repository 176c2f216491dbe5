"""A training run in memory: networks, optimisers, averages, data and clock; saved and put back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lanit.ema import Average
from lanit.errors import LanitError
from lanit.labels import exclusive_pairs
from lanit.networks import GenerativeNetworks
from lanit.objectives import Guidance, Networks
from lanit.prompts import PromptLearner
from lanit.schedules import learns_prompts
from lanit.steps import Optimisers
from pipeline.clip.models import ClipModel
from pipeline.models.bundle import Bundle, check_prompts, load_bundle, save_bundle
from pipeline.models.metric_lines import forget_later_lines
from pipeline.models.run_folder import BEST, METRICS, MODEL, checkpoint_folder
from pipeline.models.tensor_folders import load_strictly, read_tensors
from pipeline.prompts.learned_prompts import with_context
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.image_cache import SizedImages
from pipeline.store.store import LabelRevision, Store
from pipeline.training.checkpoints import forget_checkpoints, read_state, save_checkpoint
from pipeline.training.evaluation import Evaluator
from pipeline.training.optimiser_state import load_optimiser, optimiser_tensors
from pipeline.training.processes import Processes
from pipeline.training.sampling import LabelSampler
from pipeline.training.train_options import TrainOptions


@dataclass
class Clock:
    """Where a run stands. step: finished; seconds: of training; planned: steps in all, 0 while not yet known;
    revision: of the labels in use; learning: whether phase 2 has begun, which a longer run does not undo.
    best, best_step: the best evaluation so far and its step, 0 while there is none."""

    step: int = 0
    seconds: float = 0.0
    planned: int = 0
    revision: int = 0
    learning: bool = False
    best: float = 0.0
    best_step: int = 0


@dataclass
class TrainingRun:
    """Everything a step needs.

    images: at training size. fixed_text: ū (N×k) and ū_base (k) of the prompts as written.
    learner, prompt_average: none where prompts are not learned. Every process holds all of it; the first one writes.
    digest: of the configuration that the run began with, by which its checkpoints know it; none of an older lanit's.
    """

    folder: Path
    digest: str | None
    store: Store
    options: TrainOptions
    clip: ClipModel
    processes: Processes
    bf16: bool
    nets: Networks
    average: Average[GenerativeNetworks]
    learner: PromptLearner | None
    prompt_average: Average[nn.ParameterList] | None
    optimisers: Optimisers
    images: SizedImages
    labels: LabelRevision
    fixed_text: tuple[Tensor, Tensor]
    evaluator: Evaluator
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.use_labels(self.labels)

    @property
    def device(self) -> torch.device:
        return self.processes.device

    def use_labels(self, labels: LabelRevision) -> None:
        """Train on ``labels`` from the next batch on."""
        self.labels = labels
        self.clock.revision = labels.number
        self.sampler = LabelSampler(labels.active, self.options.slack, self.options.balance)
        offsets = labels.prompt_set.offsets
        self.offsets = torch.tensor(offsets, device=self.device) if any(offsets) else None

    @property
    def learning(self) -> bool:
        """Whether the prompts are being learned now (METHOD 13)."""
        return self.learner is not None and self.clock.learning

    def begin_phase_2_when_due(self) -> None:
        """From its share of the planned steps on, a run learns its prompts."""
        clock = self.clock
        if self.learner is not None and clock.planned:
            clock.learning |= learns_prompts(clock.step, clock.planned, self.options.prompts_from)

    @property
    def relabels(self) -> bool:
        """Whether learned prompts decide the labels: not where people or clusters do."""
        return self.learner is not None and self.labels.rule.by_similarity

    def guidance(self) -> Guidance:
        """CLIP with the prompts as they are: cached text embeddings in phase 1, learned ones in phase 2."""
        domains, base = self.fixed_text
        if self.learner is not None and self.clock.learning:
            domains, base = self.learner.text_features()
        return Guidance(self.clip.encode_images, self.clip.logit_scale, domains, base, self.offsets)

    def averaged_context(self) -> Tensor | None:
        """What the average has learned of the prompts, (M×L×w); none in phase 1."""
        if self.prompt_average is None or not self.learning:
            return None
        (context,) = self.prompt_average.module.parameters()
        return context

    @torch.no_grad()
    def averaged_text(self) -> tuple[Tensor, Tensor]:
        """ū and ū_base under the averaged prompts: what labels, samples and the bundle use."""
        return self._text_of(self.averaged_context())

    def _text_of(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.fixed_text if self.learner is None or context is None else self.learner.text_features(context)

    def prompts(self) -> PromptSet:
        """The prompts of the labels, with what the average has learned of them."""
        return _with(self.labels.prompt_set, self.averaged_context())

    def bundle(self) -> Bundle:
        """The model as it stands."""
        return self._bundle(self.average.module, self.averaged_context(), self.clock, self.labels)

    def _best_bundle(self) -> Bundle:
        """The model of the best evaluation, from its checkpoint. Raises LanitError where that is gone or damaged."""
        checkpoint = checkpoint_folder(self.folder, self.clock.best_step)
        clock = Clock(**read_state(checkpoint, self.digest))
        networks = copy.deepcopy(self.average.module)
        load_strictly(networks, read_tensors(checkpoint / "average.safetensors"), checkpoint)
        context = None
        if self.learner is not None and clock.learning:
            context = read_tensors(checkpoint / "prompts.safetensors")["average"].to(self.device)
        return self._bundle(networks, context, clock, self.store.labels(clock.revision))

    @torch.no_grad()
    def _bundle(
        self, networks: GenerativeNetworks, context: Tensor | None, clock: Clock, labels: LabelRevision
    ) -> Bundle:
        domains, base = self._text_of(context)
        counts = dict(zip(labels.domains, map(int, labels.active.sum(axis=0)), strict=True))
        training = {
            "steps": clock.step, "images_seen": clock.step * self.options.batch_size,
            "seconds": round(clock.seconds), "device": str(self.device),
            "precision": "bf16" if self.bf16 else "float32",
            "label_revision": clock.revision, "images": len(self.images), "images_per_domain": counts,
            "labelled": int(labels.active.any(axis=1).sum()),
            "options": self.options.to_json(),
        }  # fmt: skip
        return Bundle(
            networks, self.options.network_options(len(labels.domains)), _with(labels.prompt_set, context),
            self.clip.fingerprint, self.store.clip_spec, self.store.clip_architecture,
            exclusive_pairs(torch.from_numpy(labels.active)), domains.detach(), base.detach(), training,
        )  # fmt: skip

    def save(self) -> None:
        """Write a checkpoint, then what follows from it: a run killed in between makes that again as it goes on.

        Raises LanitError where a weight is not finite.
        """
        if not torch.stack(torch._foreach_norm(list(self.nets.parameters()))).isfinite().all():
            raise LanitError(
                f"the networks hold values that are not finite at step {self.clock.step}",
                "Lower --learning-rate or try --set precision=float32; the last checkpoint is kept.",
            )
        groups = {
            "networks": self.nets.state_dict(),
            "average": self.average.module.state_dict(),
            "generative_optimiser": optimiser_tensors(self.optimisers.generative),
            "discriminator_optimiser": optimiser_tensors(self.optimisers.discriminator),
        }
        if self.learner is not None and self.prompt_average is not None and self.optimisers.prompts is not None:
            (context,) = self.prompt_average.module.parameters()
            groups["prompts"] = {"context": self.learner.context, "average": context}
            groups["prompt_optimiser"] = optimiser_tensors(self.optimisers.prompts)
        state = asdict(self.clock) | ({"run": self.digest} if self.digest else {})
        save_checkpoint(self.folder, self.clock.step, groups, state, self.options.keep, self._kept())
        bundle = self.bundle()
        save_bundle(self.folder / MODEL, bundle)
        if self.clock.best_step and self.clock.best_step == self.clock.step:
            save_bundle(self.folder / BEST, bundle)

    def _kept(self) -> set[int]:
        return {self.clock.best_step} if self.clock.best_step else set()

    def write_what_follows(self, warn: Callable[[str], None]) -> None:
        """Write what :meth:`save` does after the checkpoint that the run goes on from, where that is not there, whole.

        warn: told where the best model cannot be made again.
        """
        forget_checkpoints(self.folder, self.clock.step, self.options.keep, self._kept())
        bundle = self.bundle()
        if not _holds(self.folder / MODEL, bundle):
            save_bundle(self.folder / MODEL, bundle)
        if not self.clock.best_step:
            return
        try:
            best = bundle if self.clock.best_step == self.clock.step else self._best_bundle()
        except LanitError as error:
            warn(f"{self.folder / BEST} cannot be compared with its checkpoint: {error.message}")
            return
        if not _holds(self.folder / BEST, best):
            save_bundle(self.folder / BEST, best)

    def resume(self, checkpoint: Path, state: dict[str, Any]) -> None:
        """Put back a checkpoint, whose files are as they were written."""
        load_strictly(self.nets, read_tensors(checkpoint / "networks.safetensors"), checkpoint)
        load_strictly(self.average.module, read_tensors(checkpoint / "average.safetensors"), checkpoint)
        load_optimiser(
            self.optimisers.generative, read_tensors(checkpoint / "generative_optimiser.safetensors"), checkpoint
        )
        load_optimiser(
            self.optimisers.discriminator, read_tensors(checkpoint / "discriminator_optimiser.safetensors"), checkpoint
        )
        if self.learner is not None and self.prompt_average is not None and self.optimisers.prompts is not None:
            prompts = read_tensors(checkpoint / "prompts.safetensors")
            (context,) = self.prompt_average.module.parameters()
            with torch.no_grad():
                self.learner.context.copy_(prompts["context"])
                context.copy_(prompts["average"])
            load_optimiser(
                self.optimisers.prompts, read_tensors(checkpoint / "prompt_optimiser.safetensors"), checkpoint
            )
        self.clock = Clock(**state)
        if self.options.steps and not self.options.minutes:
            self.clock.planned = self.options.steps
        labels = self.store.labels(self.clock.revision)
        if not self.store.is_current(labels):
            raise LanitError(
                f"the run {self.folder} learns from label revision {labels.number}, "
                f"which labels other images than the store {self.store.root} now holds",
                "Train on the images of now in another --out.",
            )
        self.use_labels(labels)
        if self.processes.first:  # step 0 writes its lines again
            forget_later_lines(self.folder / METRICS, self.clock.step if self.clock.step else -1)


def _with(prompts: PromptSet, context: Tensor | None) -> PromptSet:
    return prompts if context is None else with_context(prompts, context)


def _holds(folder: Path, bundle: Bundle) -> bool:
    """Whether the model in ``folder`` is whole, and this one."""
    try:
        found = load_bundle(folder)
        check_prompts(folder, found)
    except LanitError:
        return False
    weights, others = found.networks.state_dict(), bundle.networks.state_dict()
    return (
        found.prompt_set == bundle.prompt_set
        and all(found.training.get(name) == bundle.training[name] for name in ("steps", "label_revision"))
        and weights.keys() == others.keys()
        and all(torch.equal(value, others[name].cpu()) for name, value in weights.items())
    )
