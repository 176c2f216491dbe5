"""From the prompts to their text embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from pipeline.clip.text_towers import OpaqueText
from pipeline.prompts.learned_prompts import prompt_learner

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.prompts.prompt_sets import PromptSet


def text_embeddings(clip: ClipModel, prompts: PromptSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit-norm text embeddings of the domains, float32 (N×k), and of the base prompt, (k), on the CPU.

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
    return domains.float().cpu(), base.float().cpu()
