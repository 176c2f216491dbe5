"""How firm labels are: the share that changes when images are mirrored or cropped as training does."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lanit.augment import flip_and_crop
from lanit.errors import LanitError, UsageError
from lanit.labels import EmbeddedPrompts, assign
from lanit.ranks import Draws
from lanit.rules import Rule
from pipeline.commands import store_option
from pipeline.decoding.limits import ImageError
from pipeline.inspection.label_statistics import Augmented, LabelStatistics
from pipeline.inspection.warnings import with_warnings
from pipeline.progress import Progress
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.store.store_images import StoreImages

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.store.label_revisions import RevisionFile
    from pipeline.store.store import Store

_BATCH = 32


@dataclass(frozen=True)
class Flips:
    """For each domain the share of the sampled images whose label changes."""

    sample: Augmented
    mirror: tuple[float, ...]
    crop: tuple[float, ...]

    def added_to(self, statistics: LabelStatistics) -> LabelStatistics:
        """``statistics`` with these figures, and with the warnings that they call for."""
        triples = zip(statistics.domains, self.mirror, self.crop, strict=True)
        domains = tuple(dataclasses.replace(d, mirror_flips=mirror, crop_flips=crop) for d, mirror, crop in triples)
        return with_warnings(dataclasses.replace(statistics, domains=domains, augmented=self.sample))


def count_flips(
    store: Store,
    revision: RevisionFile,
    clip: ClipModel,
    images: int,
    seed: int,
    progress: Progress | None = None,
) -> Flips:
    """Label a sample of ``images`` images, drawn by ``seed``, as they are, mirrored, and cropped; count what differs.

    Each image is labelled anew, by the words and the rule of ``revision``, so that only the change counts. The crop is
    training's (METHOD §5), of what CLIP sees. Raises LanitError where the revision's prompts were learned in training,
    where it has no rule, or where no sampled image can be read.
    """
    if revision.of_training or not revision.rule.by_similarity:
        raise LanitError(
            f"revision {revision.number} does not come from words, which --augment would try again",
            _another(store),
        )
    if images < 1:
        raise UsageError("--augment needs at least 1 image", "Try --augment 500.")
    store.check_current(revision)
    prompts = embed_prompts(clip, revision.prompt_set)
    rows = np.sort(np.random.default_rng(seed).permutation(revision.rows)[:images]).tolist()
    draws = Draws(torch.Generator().manual_seed(seed))
    label = _labeller(clip, revision.rule, prompts)
    changed = torch.zeros(2, len(revision.domains), dtype=torch.int64)
    read = done = 0
    for batch, tried in _decoded(StoreImages(store), rows, clip):
        done += tried
        if batch:
            floats = torch.stack(batch).float().div_(127.5).sub_(1)
            own = label(floats)
            for views, count in zip((floats.flip(3), flip_and_crop(floats, draws, 1, 0)), changed, strict=True):
                count += (label(views) != own).sum(dim=0)
        read += len(batch)
        if progress is not None:
            progress(done, len(rows))
    if not read:
        hint = f"Bring them back, or embed them where they are: lanit embed DIR{store_option(store.root)}"
        raise LanitError("none of the sampled images is there as it was embedded", hint)
    mirror, crop = (tuple(float(count) for count in counts / read) for counts in changed)
    return Flips(Augmented(read, len(rows) - read, seed), mirror, crop)


def _another(store: Store) -> str:
    """What to type instead: the newest revision that comes from words, or how to make one."""
    for number in reversed(store.revisions()):
        with contextlib.suppress(LanitError):
            found = store.revision_file(number)
            if not found.of_training and found.rule.by_similarity:
                return f"Add --revision {number}, which does."
    return f"Label by words first: lanit label --prompts FILE{store_option(store.root)}"


def _labeller(clip: ClipModel, rule: Rule, prompts: EmbeddedPrompts) -> Callable[[Tensor], Tensor]:
    """From images, float32 (B×3×s×s) in [-1, 1] at CLIP's size, to labels, bool (B×N)."""

    @torch.no_grad()
    def label(images: Tensor) -> Tensor:
        embeddings = clip.encode_preprocessed(clip.preprocessing.normalise(images.to(clip.device))).cpu()
        return assign(rule, embeddings, prompts)[0]

    return label


def _decoded(images: StoreImages, rows: Sequence[int], clip: ClipModel) -> Iterator[tuple[list[Tensor], int]]:
    """Batches of pixels, uint8 (3×s×s), and how many rows were tried for each; what cannot be read, or changed, is
    left out."""

    def read(row: int) -> Tensor | None:
        try:
            return images.decode_for_clip(row, clip.preprocessing).pixels
        except ImageError:
            return None

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            yield [pixels for pixels in pool.map(read, batch) if pixels is not None], len(batch)
