"""A training run in memory: networks, optimisers, averages, data and clock; saved and put back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
from pipeline.clip_models import ClipModel
from pipeline.files import read_json, write_bytes
from pipeline.labelling.learned_prompts import with_context
from pipeline.labelling.prompt_sets import PromptSet
from pipeline.store.image_cache import SizedImages
from pipeline.store.store import LabelRevision, Store
from pipeline.training.checkpoints import (
    Bundle,
    latest_checkpoint,
    load_optimiser,
    load_strictly,
    optimiser_tensors,
    read_tensors,
    save_bundle,
    save_checkpoint,
)
from pipeline.training.evaluation import Evaluator
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
    """

    folder: Path
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
        if self.learner is None or not self.clock.planned:
            return False
        self.clock.learning |= learns_prompts(self.clock.step, self.clock.planned, self.options.prompts_from)
        return self.clock.learning

    @property
    def relabels(self) -> bool:
        """Whether learned prompts decide the labels: not where people or clusters do."""
        return self.learner is not None and self.labels.rule["kind"] not in ("given", "clusters")

    def guidance(self) -> Guidance:
        """CLIP with the prompts as they are: cached text embeddings in phase 1, learned ones in phase 2."""
        domains, base = self.fixed_text
        if self.learner is not None and self.learning:
            domains, base = self.learner.text_features()
        return Guidance(self.clip.encode_images, self.clip.logit_scale, domains, base, self.offsets)

    @torch.no_grad()
    def averaged_text(self) -> tuple[Tensor, Tensor]:
        """ū and ū_base under the averaged prompts: what labels, samples and the bundle use."""
        if self.learner is None or self.prompt_average is None or not self.learning:
            return self.fixed_text
        (context,) = self.prompt_average.module.parameters()
        return self.learner.text_features(context)

    def prompts(self) -> PromptSet:
        """The prompts of the labels, with what the average has learned of them."""
        if self.prompt_average is None or not self.learning:
            return self.labels.prompt_set
        (context,) = self.prompt_average.module.parameters()
        return with_context(self.labels.prompt_set, context)

    def bundle(self) -> Bundle:
        domains, base = self.averaged_text()
        counts = dict(zip(self.labels.domains, map(int, self.labels.active.sum(axis=0)), strict=True))
        training = {
            "steps": self.clock.step, "images_seen": self.clock.step * self.options.batch_size,
            "seconds": round(self.clock.seconds), "device": str(self.device),
            "precision": "bf16" if self.bf16 else "float32",
            "label_revision": self.clock.revision, "images": len(self.images), "images_per_domain": counts,
            "labelled": int(self.labels.active.any(axis=1).sum()),
            "options": self.options.to_json(),
        }  # fmt: skip
        return Bundle(
            self.average.module, self.options.network_options(len(self.labels.domains)), self.prompts(),
            self.clip.fingerprint, self.store.clip_spec, self.store.clip_architecture,
            exclusive_pairs(torch.from_numpy(self.labels.active)), domains.detach(), base.detach(), training,
        )  # fmt: skip

    def save(self) -> None:
        """Write a checkpoint, then the bundle of the averages. Raises LanitError where a weight is not finite."""
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
        best = self.clock.best_step == self.clock.step and self.clock.step > 0
        kept = {self.clock.best_step} if self.clock.best_step else set()
        save_checkpoint(self.folder, self.clock.step, groups, asdict(self.clock), self.options.keep, kept)
        bundle = self.bundle()
        save_bundle(self.folder / "model", bundle)
        if best:
            save_bundle(self.folder / "best", bundle)

    def resume(self) -> bool:
        """Put back the newest checkpoint; False where the run has none."""
        checkpoint = latest_checkpoint(self.folder)
        if checkpoint is None:
            return False
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
        self.clock = Clock(**read_json(checkpoint / "state.json"))
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
        if self.processes.first:
            self._forget_later_metrics()
        return True

    def _forget_later_metrics(self) -> None:
        """Drop the lines of steps after the checkpoint: they are about to be done again."""
        path = self.folder / "metrics.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            done = self.clock.step if self.clock.step else -1  # step 0 writes its own line again
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= done]
            write_bytes(path, "".join(kept).encode())
