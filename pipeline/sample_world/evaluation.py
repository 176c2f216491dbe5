"""How well a model translates faces of the sample world, by the judge and the drawn truth."""

from __future__ import annotations

import numpy as np
import torch

from lanit.errors import LanitError
from lanit.inference import draw_latents, drawn_codes, edited, translate
from pipeline.clip.models import ClipModel
from pipeline.decoding.grids import to_float, to_uint8
from pipeline.models.translator import Translator
from pipeline.progress import Progress
from pipeline.sample_world.faces import ATTRIBUTES
from pipeline.sample_world.judge import Judge, Scores, score

EVALUATION_SEED = 404  # a world of its own: no training saw its faces
_BATCH = 64


def evaluate(
    translator: Translator, clip: ClipModel, judge: Judge, pictures: np.ndarray, truths: np.ndarray,
    progress: Progress | None = None,
) -> Scores:  # fmt: skip
    """Add every attribute to every face that lacks it, and let the judge look.

    pictures: uint8 (n×S×S×3) of the model's size; truths: bool (n×12). The faces' own labels are read by CLIP, as for
    a user's picture; the truth serves the scores alone.
    """
    unknown = set(translator.domains) - set(ATTRIBUTES)
    if unknown:
        raise LanitError(
            f"'{unknown.pop()}' is not of the sample world", "Judge a model of the sample world's domains."
        )
    seen, rows, requested = [], [], []
    for column, domain in enumerate(translator.domains):
        attribute = ATTRIBUTES.index(domain)
        lacking = np.flatnonzero(~truths[:, attribute])
        rows.append(lacking)
        requested.append(np.full(len(lacking), attribute))
        seen.append(judge.predict(add_domain(translator, clip, pictures[lacking], column)))
        if progress:
            progress(column + 1, len(translator.domains))
    return score(np.concatenate(seen), truths[np.concatenate(rows)], np.concatenate(requested))


@torch.no_grad()
def add_domain(translator: Translator, clip: ClipModel, pictures: np.ndarray, domain: int) -> np.ndarray:
    """What ``lanit translate --add`` makes of ``pictures``, uint8 (n×S×S×3): the same shape. domain: its column."""
    networks, made = translator.networks, []
    add = (torch.arange(len(translator.domains)) == domain).float().to(translator.device)
    codes = drawn_codes(networks, draw_latents(networks.latent_dim, 0, 1).to(translator.device))
    for batch in to_float(pictures).split(_BATCH):
        images = batch.to(translator.device)
        own = translator.labels(images, clip)
        target = edited(own, add, torch.zeros_like(add, dtype=torch.bool), translator.exclusive)
        made.append(translate(networks, images, target, codes)[0])
    return to_uint8(torch.cat(made))
