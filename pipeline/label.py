"""Stage ``label``: prompts to a label revision, from stored embeddings alone (METHOD §1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from lanit.labels import Rule, assign, similarity
from lanit.prompts import PromptLearner
from pipeline.inspect_labels import LabelStatistics, inspect_labels
from pipeline.text_towers import OpaqueText

if TYPE_CHECKING:
    from pipeline.clip_models import ClipModel
    from pipeline.prompt_sets import PromptSet
    from pipeline.store import Store

_ROWS = 65536  # embeddings multiplied at once: bounds the memory at any size of the store

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class LabelReport:
    """What ``lanit label`` did. created: false where the newest revision already says exactly this.

    images = labelled + unlabelled + failed; failed: images without an embedding, which carry no label.
    unknown_words: words of the prompts that this CLIP never saw, where it says so.
    """

    revision: int
    created: bool
    images: int
    labelled: int
    unlabelled: int
    failed: int
    prompt_set: str
    unknown_words: tuple[str, ...]
    statistics: LabelStatistics

    def to_json(self) -> dict[str, Any]:
        own = ("revision", "created", "images", "labelled", "unlabelled", "failed", "prompt_set")
        values = {name: getattr(self, name) for name in own}
        return values | {"unknown_words": list(self.unknown_words), "statistics": self.statistics.to_json()}


def label(
    store: Store, clip: ClipModel, prompts: PromptSet, rule: Rule, progress: Callable[[int, int], None] | None = None
) -> LabelReport:
    """Label every embedded image of ``store`` and write a new revision, unless the newest is already the same.

    progress: called with (rows done, rows in all). No image is opened: labels are a pure function of embeddings,
    prompts and rule (METHOD 4). Raises LanitError where ``clip`` is not the model that filled the store, or where a
    prompt is longer than its context; the store is then as it was.
    """
    store.check_fingerprint(clip.fingerprint)
    domains, base = text_embeddings(clip, prompts)
    active, margin, similarity_base = assign_store(store, domains, base, rule, progress)
    before = store.revisions()
    number = store.add_labels(
        active, margin, similarity_base, prompts, {"kind": rule.kind, "value": rule.value}, origin="label", parent=None
    )
    labelled = int(active.any(axis=1).sum())
    return LabelReport(
        revision=number,
        created=number not in before,
        images=store.rows,
        labelled=labelled,
        unlabelled=len(active) - labelled,
        failed=store.rows - len(active),
        prompt_set=prompts.name,
        unknown_words=tuple(clip.unknown_words([*prompts.domains, *prompts.templates])),
        statistics=inspect_labels(store.labels(number)),
    )


def text_embeddings(clip: ClipModel, prompts: PromptSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit-norm text embeddings of the domains, float32 (N×k), and of the base prompt, (k), on the CPU.

    A text tower that cannot learn prompts is asked for whole sentences, which is the same mean over templates.
    """
    with torch.no_grad():
        if isinstance(clip.text, OpaqueText):
            sentences = clip.encode_texts(prompts.sentences())
            means = torch.stack([group.mean(dim=0) for group in sentences.split(len(prompts.templates))])
            unit = F.normalize(means, dim=-1)
            domains, base = unit[:-1], unit[-1]
        else:
            learner = PromptLearner(clip.text, prompts.domains, prompts.templates, prompts.bases)
            domains, base = learner.to(clip.device).text_features()
    return domains.float().cpu(), base.float().cpu()


def assign_store(
    store: Store,
    domains: torch.Tensor,
    base: torch.Tensor,
    rule: Rule,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Bools, Floats, Floats]:
    """Labels (bool n×N), margins (float32 n×N) and f_base (float32 n) of every embedded image, in store order.

    domains: unit-norm float32 (N×k); base: unit-norm float32 (k).
    """
    count = store.ok
    active = np.empty((count, len(domains)), np.bool_)
    margin = np.empty((count, len(domains)), np.float32)
    similarity_base = np.empty(count, np.float32)
    start = 0
    for part in store.embedding_parts():
        for block in np.array_split(part, -(-len(part) // _ROWS) or 1):
            images = torch.from_numpy(np.array(block, np.float32))
            rows = slice(start, start + len(block))
            labels, margins = assign(rule, images, domains, base)
            active[rows], margin[rows] = labels.numpy(), margins.numpy()
            similarity_base[rows] = similarity(images, base[None])[:, 0].numpy()
            start += len(block)
            if progress is not None:
                progress(start, count)
    return active, margin, similarity_base
