"""Judges that were not trained with the generator: another CLIP, or the sample world's classifier (METHOD §6)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lanit.errors import LanitError
from pipeline.clip.models import load_clip
from pipeline.evaluation.features import ClipFeatures
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet

SAMPLE_JUDGE = "sample-world"
_OTHER_JUDGE = "Judge by another CLIP, such as --judge ViT-B-16/laion2b_s34b_b88k"


class Judge(Protocol):
    """name: for people, and what its verdicts depend on. known: bool (N), the domains that it can see."""

    name: str
    known: Tensor

    def __call__(self, images: np.ndarray) -> Tensor:
        """Recognised domains, bool (n×N), of images, uint8 (n×S×S×3)."""


class ClipJudge:
    """The adaptive threshold (METHOD 1) of another CLIP and the same phrases."""

    def __init__(self, spec: str, prompts: PromptSet, device: torch.device) -> None:
        try:
            clip = load_clip(spec, device)
        except LanitError as error:
            raise type(error)(error.message, error.hint.replace("--clip ", "--judge ")) from error
        plain = PromptSet(prompts.domains, prompts.templates, prompts.bases, prompts.name)
        self.fingerprint = clip.fingerprint
        self.name = f"{clip.spec}: {clip.fingerprint.describe()}"
        self.known = torch.ones(len(prompts.domains), dtype=torch.bool)
        self._features = ClipFeatures(clip)
        self._prompts = embed_prompts(clip, plain)

    def __call__(self, images: np.ndarray) -> Tensor:
        return self._prompts.labels(self._features(images))


class SampleJudge:
    """The classifier that was trained on the drawn truth of the sample world."""

    def __init__(self, domains: tuple[str, ...]) -> None:
        from pipeline.sample_world.faces import ATTRIBUTES
        from pipeline.sample_world.judge import load_judge

        self.name = "the classifier of the sample world"
        self.known = torch.tensor([domain in ATTRIBUTES for domain in domains])
        if not self.known.any():
            raise LanitError("no domain of this model is of the sample world", _OTHER_JUDGE)
        self._judge = load_judge()
        self._columns = [ATTRIBUTES.index(domain) if domain in ATTRIBUTES else 0 for domain in domains]

    def __call__(self, images: np.ndarray) -> Tensor:
        return torch.from_numpy(self._judge.predict(images)[:, self._columns])


def judge_of(spec: str | None, prompts: PromptSet, device: torch.device, guide_sha256: str) -> Judge | None:
    """The judge of ``--judge``, if any. guide_sha256: weights of the CLIP that taught the generator, which is none."""
    if spec is None:
        return None
    if spec == SAMPLE_JUDGE:
        return SampleJudge(prompts.domains)
    judge = ClipJudge(spec, prompts, device)
    if judge.fingerprint.weights_sha256 == guide_sha256:
        raise LanitError(
            f"--judge {spec} is the CLIP that the model learned from",
            f"{_OTHER_JUDGE}, or by --judge {SAMPLE_JUDGE} if these are faces of the sample world",
        )
    return judge
