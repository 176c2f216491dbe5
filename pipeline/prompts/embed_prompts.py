"""From prompts to what CLIP sees of them: a phrase at a time, so that a vector is the same whatever stands beside it.

How sentences are batched shows in the last bits of what comes out. Vectors are kept and used again in other company,
and the labels may not tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lanit.labels import EmbeddedPrompts
from pipeline.clip.kept_texts import text_key
from pipeline.showing.volume import LOGGER

if TYPE_CHECKING:
    import torch

    from pipeline.clip.models import ClipModel
    from pipeline.prompts.prompt_sets import PromptSet


def prompt_vectors(clip: ClipModel, prompts: PromptSet) -> EmbeddedPrompts:
    """The embedded prompts of a set, NumPy arrays of float32; vectors that ``clip`` keeps load nothing.

    What the prompts have learned is used. A text tower that cannot learn prompts is asked for whole sentences, which is
    the same mean over templates.
    """
    learned = None if prompts.learned is None else prompts.learned.digest()
    keys = {phrase: text_key("phrase", phrase, prompts.templates, learned) for phrase in prompts.domains}
    of_base = text_key("base", prompts.templates, prompts.bases, learned)
    known = dict(clip.kept_texts.read()) if clip.kept_texts else {}
    missing = [phrase for phrase, key in keys.items() if key not in known]
    LOGGER.info("phrases: %d known, %d to be read by CLIP", len(keys) - len(missing), len(missing))
    if missing or of_base not in known:
        *vectors, base = clip.run(_encoded, prompts.about(missing))
        made = {keys[phrase]: vector for phrase, vector in zip(missing, vectors, strict=True)} | {of_base: base}
        known |= made
        _keep(clip, made)
    domains = np.stack([known[keys[phrase]] for phrase in prompts.domains])
    offsets, weights = (np.array(values, np.float32) for values in (prompts.offsets, prompts.weights))
    return EmbeddedPrompts(domains, known[of_base], offsets, weights, clip.logit_scale)


def embed_prompts(clip: ClipModel, prompts: PromptSet) -> EmbeddedPrompts:
    """The same as tensors on the CPU."""
    return prompt_vectors(clip, prompts).tensors()


def embed_together(clip: ClipModel, prompts: PromptSet) -> EmbeddedPrompts:
    """The same for many phrases that are kept elsewhere, if at all: all of them at once, which is faster."""
    vectors = clip.run(_encoded, prompts, together=True)
    offsets, weights = (np.array(values, np.float32) for values in (prompts.offsets, prompts.weights))
    return EmbeddedPrompts(vectors[:-1], vectors[-1], offsets, weights, clip.logit_scale)


def sentence_vector(clip: ClipModel, text: str) -> np.ndarray:
    """Unit-norm embedding of a text as it is, float32 (k); one that ``clip`` keeps loads nothing."""
    key = text_key("sentence", text)
    known = clip.kept_texts.read() if clip.kept_texts else {}
    if key in known:
        return known[key]
    vector = clip.run(_sentence, text)
    _keep(clip, {key: vector})
    return vector


def load_texts(clip: ClipModel) -> None:
    """Have the text tower of ``clip`` ready, wherever it is."""
    clip.run(_sentence, "a photo")  # it is loaded when it first reads


def _keep(clip: ClipModel, made: dict[str, np.ndarray]) -> None:
    if clip.kept_texts is None:
        return
    device, logit_scale, context_length = clip.run(_facts)
    if device == "cpu":  # a GPU's last bits are others
        clip.kept_texts.keep(made, logit_scale, context_length)


def _facts(clip: ClipModel) -> tuple[str, float, int]:
    return clip.device.type, clip.logit_scale, clip.context_length


def _sentence(clip: ClipModel, text: str) -> np.ndarray:
    import torch
    from torch.nn import functional as F

    with torch.inference_mode():
        vector: np.ndarray = F.normalize(clip.encode_texts([text]), dim=-1)[0].cpu().numpy()
    return vector


def _encoded(clip: ClipModel, prompts: PromptSet, *, together: bool = False) -> np.ndarray:
    """ū of each phrase and ū_base below, float32 ((N+1)×k)."""
    import torch
    from torch.nn import functional as F

    from pipeline.clip.text_towers import OpaqueText
    from pipeline.prompts.learned_prompts import prompt_learner

    with torch.no_grad():
        if isinstance(clip.text, OpaqueText) and prompts.learned is None:
            count = len(prompts.templates)
            sentences = prompts.sentences()
            groups = [sentences[start : start + count] for start in range(0, len(sentences), count)]
            unit = torch.stack([F.normalize(clip.encode_texts(group).mean(dim=0), dim=-1) for group in groups])
        else:
            learner = prompt_learner(clip.text, prompts).to(clip.device)
            domains, base = learner.text_features(alone=not together)
            unit = torch.cat([domains, base[None]])
    found: np.ndarray = unit.float().cpu().numpy()
    return found


def with_texts(prompts: PromptSet, domains: torch.Tensor, base: torch.Tensor, scale: float = 1.0) -> EmbeddedPrompts:
    """The prompts of a set whose texts are embedded already, ū (N×k) and ū_base (k). scale: α, for the losses."""
    import torch

    offsets, weights = (torch.tensor(values, device=base.device) for values in (prompts.offsets, prompts.weights))
    return EmbeddedPrompts(domains, base, offsets, weights, scale)
