"""From prompts to what CLIP sees of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from lanit.labels import EmbeddedPrompts
from pipeline.clip.text_towers import OpaqueText
from pipeline.prompts.learned_prompts import prompt_learner

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.prompts.prompt_sets import PromptSet


def embed_prompts(clip: ClipModel, prompts: PromptSet) -> EmbeddedPrompts:
    """The embedded prompts of a set, float32 on the CPU.

    What the prompts have learned is used. A text tower that cannot learn prompts is asked for whole sentences, which is
    the same mean over templates.
    """
    with torch.no_grad():
        if isinstance(clip.text, OpaqueText) and prompts.learned is None:
            sentences = clip.encode_texts(prompts.sentences())
            means = torch.stack([group.mean(dim=0) for group in sentences.split(len(prompts.templates))])
            unit = F.normalize(means, dim=-1)
            domains, base = unit[:-1], unit[-1]
        else:
            domains, base = prompt_learner(clip.text, prompts).to(clip.device).text_features()
    return with_texts(prompts, domains.float().cpu(), base.float().cpu(), clip.logit_scale)


def with_texts(prompts: PromptSet, domains: torch.Tensor, base: torch.Tensor, scale: float = 1.0) -> EmbeddedPrompts:
    """The prompts of a set whose texts are embedded already, ū (N×k) and ū_base (k). scale: α, for the losses."""
    offsets, weights = (torch.tensor(values, device=base.device) for values in (prompts.offsets, prompts.weights))
    return EmbeddedPrompts(domains, base, offsets, weights, scale)
