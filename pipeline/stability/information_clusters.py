"""Clusters by mutual information: those of which one crop of an image tells most about those of another.

A linear head on stored embeddings, p = softmax(s · (v̄ − μ)·W + b), which begins at the centres of k-means and makes
I(P) of two crops as large as it can (Ji et al., 2019): TUNIT's guiding network on CLIP's features, without a generator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from lanit.linear_head import LinearHead
from lanit.mutual_information import cluster_information

if TYPE_CHECKING:
    import numpy as np

    from pipeline.progress import Progress
    from pipeline.stability.views import Views

_STEPS = 300
_RATE = 0.01  # of Adam, for unit-norm weights
_SHARPNESS = 4.0  # logits of the centres, in units of their spread over the images
_DECAY = 1e-3  # of weights towards the centres of k-means


def information_head(views: Views, centres: np.ndarray, progress: Progress | None = None) -> LinearHead:
    """The head that gives each image its cluster. Equal arguments give an equal one.

    centres: of k-means, unit-norm float32 (K×k). progress: called with (steps done, in all).
    """
    crops = torch.from_numpy(views.crops)
    mean = crops.mean(dim=(0, 1))
    first, second = crops - mean
    start = torch.from_numpy(centres) - mean
    scale = _SHARPNESS / (first @ start.T).std()
    weights, bias = start.clone().requires_grad_(True), torch.zeros(len(centres), requires_grad=True)
    search = torch.optim.Adam([weights, bias], lr=_RATE * float(start.norm(dim=1).mean()))
    for step in range(_STEPS):
        one, other = (F.softmax(scale * (crop @ weights.T + bias), dim=1) for crop in (first, second))
        loss = _DECAY * (weights - start).square().sum() - cluster_information(one, other)
        search.zero_grad()
        loss.backward()
        search.step()
        if progress is not None:
            progress(step + 1, _STEPS, "steps of learning")
    found = weights.detach()
    return LinearHead(found, bias.detach() - found @ mean, one_hot=True).arrays()
