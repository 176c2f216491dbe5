"""The model that a run writes: its averaged networks and prompts as they stand, and as they stood at its best."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lanit.errors import LanitError
from lanit.guides import guide_of
from lanit.labels import EmbeddedPrompts
from lanit.networks import GenerativeNetworks, NetworkOptions
from pipeline.clip.fingerprint import Fingerprint
from pipeline.models.bundle import Bundle, check_prompts, load_bundle
from pipeline.models.tensor_folders import load_strictly, read_tensors
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import LabelRevision
from pipeline.training.clock import Clock
from pipeline.training.learner import Learner, as_learned, kept_context
from pipeline.training.training_data import TrainingData, exclusive_of

_FILES = ("grow", "example")
"""Settings that name files or folders: a model, which is given away, tells their last names alone."""


@dataclass(frozen=True)
class RunModel:
    """What stays the same of a run's model. images, batch_size: trained on. device, precision, options: for people.
    written: the prompts that the run began with. pairs: what is noted of them, where images are paired. embed: by its
    CLIP, names that clusters came to have."""

    sizes: NetworkOptions
    fingerprint: Fingerprint
    clip_spec: str
    clip_architecture: str | None
    images: int
    batch_size: int
    device: str
    precision: str
    options: dict[str, Any]
    written: PromptSet
    embed: Callable[[PromptSet], EmbeddedPrompts]
    pairs: dict[str, Any] | None = None

    def now(self, learner: Learner, data: TrainingData) -> Bundle:
        """The model as it stands."""
        context, networks = learner.context(), learner.method.averaged
        return self._bundle(learner, networks, context, learner.clock, data.labels, data.exclusive)

    def of_checkpoint(self, learner: Learner, checkpoint: Path, clock: Clock, labels: LabelRevision) -> Bundle:
        """The model of a checkpoint, whose clock and labels these are. Raises LanitError where that is damaged."""
        networks = copy.deepcopy(learner.method.averaged)
        load_strictly(networks, read_tensors(checkpoint / "average.safetensors"), checkpoint)
        device, context = next(networks.parameters()).device, None
        if clock.stability is not None:
            context = kept_context(labels.prompt_set, self.written, device)
        elif learner.method.learns_prompts and clock.learning:
            context = read_tensors(checkpoint / "prompts.safetensors")["average"].to(device)
        return self._bundle(learner, networks, context, clock, labels, exclusive_of(labels))

    def _bundle(
        self,
        learner: Learner,
        networks: GenerativeNetworks,
        context: Tensor | None,
        clock: Clock,
        labels: LabelRevision,
        exclusive: Tensor,
    ) -> Bundle:
        counts = dict(zip(labels.domains, map(int, labels.active.sum(axis=0)), strict=True))
        options = {name: Path(value).name if name in _FILES else value for name, value in self.options.items()}
        training = {
            "steps": clock.step, "images_seen": clock.step * self.batch_size, "seconds": round(clock.seconds),
            "device": self.device, "precision": self.precision,
            "label_revision": clock.revision, "images": self.images, "images_per_domain": counts,
            "labelled": int(labels.active.any(axis=1).sum()), "options": options,
        }  # fmt: skip
        training |= {} if self.pairs is None else {"pairs": self.pairs}
        found = guide_of(networks) is not None
        prompts = self.embed(labels.prompt_set) if found else learner.method.prompts(context)
        return Bundle(
            networks=networks,
            options=self.sizes,
            prompt_set=as_learned(labels.prompt_set, context),
            fingerprint=self.fingerprint,
            clip_spec=self.clip_spec,
            clip_architecture=self.clip_architecture,
            exclusive=exclusive,
            prompts=prompts.to(torch.device("cpu")),
            training=training,
        )


def holds(folder: Path, bundle: Bundle) -> bool:
    """Whether the model in ``folder`` is whole, and this one."""
    try:
        found = load_bundle(folder)
        check_prompts(folder, found)
    except LanitError:
        return False
    weights, others = found.networks.state_dict(), bundle.networks.state_dict()
    return (
        found.prompt_set == bundle.prompt_set
        and found.training == bundle.training
        and weights.keys() == others.keys()
        and all(torch.equal(value, others[name].cpu()) for name, value in weights.items())
    )
