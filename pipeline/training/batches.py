"""Batches of a run: images and labels of the rows that a step drew, fetched while the step before is computed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from lanit.augment import flip_and_crop
from lanit.objectives import Batch
from lanit.ranks import Draws
from pipeline.store.image_cache import SizedImages


class Fetcher:
    """Takes images one batch ahead, in a thread: reading from a disk or decoding goes on beside the step."""

    def __init__(self, images: SizedImages) -> None:
        self._images = images
        self._pool = ThreadPoolExecutor(1, "fetch")
        self._ahead: tuple[bytes, Future[np.ndarray]] | None = None

    def take(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (len(rows)×3×S×S), fetched ahead or now."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == rows.tobytes():
            return ahead[1].result()
        return self._images.take(rows)

    def prepare(self, rows: np.ndarray) -> None:
        self._ahead = rows.tobytes(), self._pool.submit(self._images.take, rows)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def make_batch(
    pixels: np.ndarray,
    active: np.ndarray,
    latent_dim: int,
    crop: float,
    device: torch.device,
    draws: Draws,
    *,
    paired: bool = False,
    human: np.ndarray | None = None,
    exclusive: torch.Tensor | None = None,
) -> Batch:
    """Sources, then references, augmented on the device, with two latents for each source.

    pixels: uint8 (2B×3×S×S). active: bool (2B×N). crop: probability of a random crop. paired: each reference is the
    partner of its source, and gets the same mirror and crop. human: bool (2B×N), labels that people set, or none.
    exclusive: bool (N×N), on the CPU, see :class:`lanit.objectives.Batch`.
    """
    count = len(pixels) // 2
    images = _move(pixels, device).float().div_(127.5).sub_(1)
    if paired:
        images = torch.cat(flip_and_crop(torch.cat(images.split(count), dim=1), draws, crop).split(3, dim=1))
    else:
        images = flip_and_crop(images, draws, crop)
    labels = _move(active, device)
    latents = draws.normal(2 * count, latent_dim)
    x, y = images.split(count)
    x_labels, y_labels = labels.split(count)
    y_human = None if human is None else _move(human[count:], device)
    z1, z2 = latents.split(count)
    apart = None if exclusive is None else _move(exclusive.numpy(), device)
    return Batch(x, x_labels, y, y_labels, z1, z2, paired, y_human, apart)


def _move(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """``array`` on ``device``; the host does not wait for a GPU."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
