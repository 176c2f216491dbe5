"""Does a picture look like those that a model knows? By the content that its generator reads in pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SHRINKAGE = 1e-3  # of the mean variance, added to every variance: fewer pictures than channels must do


class Familiarity:
    """The spread of known pictures, and how far from its middle one of them lies at most.

    Distances are Mahalanobis', of the mean over all places of each channel of the content. Three quarters of the known
    pictures give mean and covariance; the farthest of the others gives the limit. So of pictures of the same kind,
    one in ``len(others) + 1`` is taken for another kind. CLIP cannot tell: a small one sees faces everywhere.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], known: Tensor) -> None:
        """encode: content (B×C×h×w) of images. known: (n×3×S×S) in [-1, 1], at least 8, in random order."""
        self._encode = encode
        features = self._features(known)
        fitted, others = features.split([len(known) - len(known) // 4, len(known) // 4])
        self._mean = fitted.mean(dim=0)
        covariance = torch.cov(fitted.T)
        covariance += _SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)
        self._precision = torch.linalg.inv(covariance)
        self.limit = float(self._distances(others).max())

    def distances(self, images: Tensor) -> Tensor:
        """Float64 (B) of images (B×3×S×S) in [-1, 1]; above :attr:`limit` they look like none of the known."""
        return self._distances(self._features(images))

    @torch.inference_mode()
    def _features(self, images: Tensor) -> Tensor:
        return torch.cat([self._encode(part).mean(dim=(2, 3)).double() for part in images.split(16)])

    def _distances(self, features: Tensor) -> Tensor:
        away = features - self._mean
        return ((away @ self._precision) * away).sum(dim=1).clamp(min=0).sqrt()
