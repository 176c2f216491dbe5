"""A training run in memory: networks, optimisers, averages, data and clock; built, saved and put back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lanit.ema import Average
from lanit.errors import LanitError
from lanit.labels import exclusive_pairs
from lanit.networks import GenerativeNetworks
from lanit.prompts import PromptLearner
from lanit.schedules import learns_prompts
from lanit.steps import Guidance, Networks, Optimisers
from pipeline.clip_models import ClipModel, OpaqueText
from pipeline.files import read_json, write_bytes, write_json
from pipeline.labelling.label import text_embeddings
from pipeline.labelling.prompt_sets import PromptSet
from pipeline.store.image_cache import open_image_cache
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
from pipeline.training.sampling import LabelSampler
from pipeline.training.train_options import TrainOptions

_FREE_ON_RESUME = {"steps", "minutes", "log_every", "sample_every", "checkpoint_every", "keep"}


@dataclass
class Clock:
    """Where a run stands. step: finished; seconds: of training; planned: steps in all, 0 while not yet known;
    revision: of the labels in use; learning: whether phase 2 has begun, which a longer run does not undo."""

    step: int = 0
    seconds: float = 0.0
    planned: int = 0
    revision: int = 0
    learning: bool = False


@dataclass
class TrainingRun:
    """Everything a step needs.

    images: uint8 (n×3×S×S), mapped. fixed_text: ū (N×k) and ū_base (k) of the prompts as written.
    learner, prompt_average: none where prompts are not learned.
    """

    folder: Path
    store: Store
    options: TrainOptions
    clip: ClipModel
    device: torch.device
    bf16: bool
    nets: Networks
    average: Average[GenerativeNetworks]
    learner: PromptLearner | None
    prompt_average: Average[nn.ParameterList] | None
    optimisers: Optimisers
    images: np.ndarray
    labels: LabelRevision
    fixed_text: tuple[Tensor, Tensor]
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.use_labels(self.labels)

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

    def bundle(self) -> Bundle:
        domains, base = self.averaged_text()
        counts = dict(zip(self.labels.domains, map(int, self.labels.active.sum(axis=0)), strict=True))
        training = {
            "steps": self.clock.step, "images_seen": self.clock.step * self.options.batch_size,
            "seconds": round(self.clock.seconds), "device": str(self.device),
            "precision": "bf16" if self.bf16 else "float32",
            "label_revision": self.clock.revision, "images": len(self.images), "images_per_domain": counts,
            "options": self.options.to_json(),
        }  # fmt: skip
        return Bundle(
            self.average.module, self.options.network_options(len(self.labels.domains)), self.labels.prompt_set,
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
        save_checkpoint(self.folder, self.clock.step, groups, asdict(self.clock), self.options.keep)
        save_bundle(self.folder / "model", self.bundle())

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


def prepare_run(
    store: Store, folder: Path, options: TrainOptions, clip: ClipModel, revision: int | None, device: torch.device
) -> TrainingRun:  # fmt: skip
    """Build the run of ``folder`` and put back its newest checkpoint.

    Raises LanitError where the store has no labels that fit, or the folder holds a run with other options.
    """
    store.check_fingerprint(clip.fingerprint)
    clip.model.to(device)
    labels = labels_to_train(store, revision)
    store.check_current(labels)
    _check_config(folder, options, labels)
    torch.manual_seed(options.seed)
    nets = Networks(options.network_options(len(labels.domains))).to(device)
    prompts = labels.prompt_set
    learner = None
    if options.prompts_from < 1 and options.prompt_update != "generator-only" and not isinstance(clip.text, OpaqueText):
        learner = PromptLearner(clip.text, prompts.domains, prompts.templates, prompts.bases).to(device)
    domains, base = (tensor.to(device) for tensor in text_embeddings(clip, prompts))
    run = TrainingRun(
        folder=folder,
        store=store,
        options=options,
        clip=clip,
        device=device,
        bf16=_uses_bf16(options, device),
        nets=nets,
        average=Average(nets.generative),
        learner=learner,
        prompt_average=Average(nn.ParameterList([learner.context])) if learner else None,
        optimisers=_optimisers(nets, learner, options),
        images=open_image_cache(store, options.size),
        labels=labels,
        fixed_text=(domains, base),
    )
    if run.resume():
        _plan_anew(run)
    else:
        write_json(folder / "config.json", _config(options, labels))
    return run


def _plan_anew(run: TrainingRun) -> None:
    """A run continued with other minutes plans its steps from the speed it had."""
    path, clock = run.folder / "config.json", run.clock
    config = read_json(path)
    if run.options.minutes and run.options.minutes != config["options"]["minutes"] and clock.planned:
        clock.planned = max(clock.step, round(clock.step / clock.seconds * run.options.minutes * 60))
    if config["options"] != run.options.to_json():
        write_json(path, config | {"options": run.options.to_json()})


def labels_to_train(store: Store, revision: int | None) -> LabelRevision:
    """The named revision, or the newest that ``lanit label`` wrote: what a run relabelled as it learned is its own."""
    if revision is not None:
        return store.labels(revision)
    for number in reversed(store.revisions()):
        labels = store.revision_file(number)
        if not labels.origin.startswith("train:"):
            return labels.read()
    return store.labels()


def _uses_bf16(options: TrainOptions, device: torch.device) -> bool:
    if options.precision != "auto":
        return options.precision == "bf16"
    if device.type == "cuda":  # before Ampere bf16 is emulated, and slow
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def _optimisers(nets: Networks, learner: PromptLearner | None, options: TrainOptions) -> Optimisers:
    """Adam as METHOD §5 sets it."""

    def adam(parameters: list[nn.Parameter], rate: float) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, rate, betas=(0.0, 0.99), weight_decay=1e-4, fused=True)

    return Optimisers(
        adam(list(nets.generative.parameters()), options.learning_rate),
        adam(list(nets.discriminator.parameters()), options.learning_rate),
        adam([learner.context], options.prompt_learning_rate) if learner is not None else None,
    )


def _config(options: TrainOptions, labels: LabelRevision) -> dict[str, Any]:
    return {"options": options.to_json(), "label_revision": labels.number, "prompt_set": labels.prompt_set.to_json()}


def _check_config(folder: Path, options: TrainOptions, labels: LabelRevision) -> None:
    """Refuse to continue a run under other options, naming them."""
    path = folder / "config.json"
    if not path.is_file():
        return
    config, asked = read_json(path, "Train in another --out."), options.to_json()
    if not isinstance(config, dict) or "prompt_set" not in config:
        raise LanitError(f"{path} is not the file of a run", "Train in another --out.")
    if latest_checkpoint(folder) is None:
        return
    anew = "Repeat the run's own options to continue it, or train elsewhere with another --out."
    prompts = PromptSet.from_json(config["prompt_set"])
    if prompts.domains != labels.domains:
        raise LanitError(f"the run {folder} was trained on other domains ({', '.join(prompts.domains)})", anew)
    if prompts.digest() != labels.prompt_set.digest():
        raise LanitError(
            f"the run {folder} was started with other prompts than label revision {labels.number}",
            f"Add --revision {config['label_revision']} to continue it, or train elsewhere with another --out.",
        )
    for name, value in config["options"].items():
        if name not in _FREE_ON_RESUME and asked.get(name) != value:
            raise LanitError(f"the run {folder} was started with {name} {value}, not {asked.get(name)}", anew)
