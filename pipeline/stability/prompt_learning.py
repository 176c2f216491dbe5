"""Prompts that learn from two crops of stored images alone: what labels of one crop tell of those of the other.

What is learned are the token embeddings of the templates' words before {} and the offsets, as training learns the
former; no image is opened and nothing is drawn. Half of the images teach, the other half judges: only where labels of
its crops agree better by ``LEAST_GAIN``, and no two phrases have come to say the same, the result is taken. That margin
is what tells learning that helped from learning that hurt; see docs/LOG.md for where it was tried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lanit.agreement import LEAST_GAIN, mean_score
from lanit.errors import LanitError, UsageError
from lanit.mutual_information import label_loss
from lanit.rules import Rule
from pipeline.clip.text_towers import OpaqueText
from pipeline.files import write_bytes
from pipeline.progress import Progress
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.learned_prompts import FILE_NAME, learned_prompts_bytes, prompt_learner, with_context
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.stability.agreements import label_views, newly_alike
from pipeline.stability.views import Views

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.store.store import Store

_STEPS = 200
_CONTEXT_RATE = 3.0  # of Adam, in units of the spread of the CLIP's token embeddings
_OFFSET_RATE = 0.2  # of Adam, in units of CLIP's logit


@dataclass(frozen=True)
class PromptLearning:
    """given, learned: prompts as they were, and what came of them. before, after: κ of the judging images by these and
    by those. images: that taught, and that judged. alike: pairs of phrases that came to label the same images.
    accepted: whether what was learned is taken."""

    given: PromptSet
    learned: PromptSet
    before: float
    after: float
    images: tuple[int, int]
    alike: tuple[tuple[str, str], ...]
    accepted: bool

    @property
    def prompts(self) -> PromptSet:
        """Those to use from here on."""
        return self.learned if self.accepted else self.given

    def to_json(self) -> dict[str, Any]:
        return {
            "before": self.before, "after": self.after, "images": list(self.images),
            "alike": [list(pair) for pair in self.alike], "accepted": self.accepted,
        }  # fmt: skip


def learn_prompts(
    views: Views, clip: ClipModel, prompts: PromptSet, rule: Rule, progress: Progress | None = None
) -> PromptLearning:
    """Learn prompts from half of the images, and judge by the other half. Equal arguments give equal prompts.

    progress: called with (steps done, in all). Raises UsageError for a rule other than the adaptive one, and LanitError
    where the text tower of ``clip`` takes whole sentences alone, or a template has no word before its phrase.
    """
    if rule.kind != "adaptive":
        message = f"prompts are learned under the adaptive rule, not under {rule.describe()}"
        raise UsageError(message, "Leave one of the two out.")
    if isinstance(clip.text, OpaqueText):
        message = f"the text tower of this CLIP reads whole sentences alone ({clip.text.reason})"
        raise LanitError(message, "Leave out --learn-prompts, or take another CLIP: lanit models")
    teaching, judging = (Views(np.ascontiguousarray(views.crops[:, part::2]), views.name) for part in (0, 1))
    learned = _learned(teaching, clip, prompts, progress)
    before, after = (label_views(judging, embed_prompts(clip, each), rule) for each in (prompts, learned))
    alike = newly_alike(prompts.domains, before, after)
    scores = [mean_score(labels.agreements()) for labels in (before, after)]
    accepted = scores[1] >= scores[0] + LEAST_GAIN and not alike
    images = (len(teaching), len(judging))
    return PromptLearning(prompts, learned, scores[0], scores[1], images, alike, accepted)


def keep_learned_prompts(store: Store, prompts: PromptSet) -> None:
    """As a file in the store, which ``lanit label --prompts STORE`` takes back; a revision by these prompts holds them,
    too. Raises LanitError where the disk refuses."""
    assert prompts.learned is not None
    context = torch.from_numpy(prompts.learned.array().copy())
    data = learned_prompts_bytes(replace(prompts, learned=None), context, store.fingerprint)
    write_bytes(store.root / FILE_NAME, data)


def _learned(views: Views, clip: ClipModel, prompts: PromptSet, progress: Progress | None) -> PromptSet:
    learner = prompt_learner(clip.text, prompts).to(clip.device)
    if not learner.context.numel():
        message = "no template has a word before its phrase, so there is nothing to learn"
        raise LanitError(message, "Give a template such as 'a face with {}.', or leave out --learn-prompts.")
    scale = clip.logit_scale
    bars = (scale * torch.tensor(prompts.offsets, device=clip.device)).requires_grad_(True)
    rate = _CONTEXT_RATE * float(clip.text.token_table().std())
    search = torch.optim.Adam([{"params": [learner.context], "lr": rate}, {"params": [bars], "lr": _OFFSET_RATE}])
    crops = [torch.from_numpy(crop).to(clip.device) for crop in views.crops]
    for step in range(_STEPS):
        domains, base = learner.text_features()
        first, second = (torch.sigmoid(scale * (crop @ (domains - base).T) - bars) for crop in crops)
        loss = label_loss(first, second)
        search.zero_grad()
        loss.backward()
        search.step()
        if progress is not None:
            progress(step + 1, _STEPS, "steps of learning")
    offsets = tuple(float(f"{value:.6g}") for value in (bars.detach() / scale).tolist())
    return replace(with_context(prompts, learner.context), offsets=offsets)
