"""Batches of a run: which rows a step draws, and their images, fetched while the step before is computed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from lanit.augment import flip_and_crop
from lanit.objectives import Batch
from lanit.ranks import Draws
from lanit.schedules import step_seed
from pipeline.store.image_cache import SizedImages
from pipeline.training.training_run import TrainingRun


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


def rows_of_step(run: TrainingRun, step: int) -> np.ndarray:
    """This process's rows of the sources, then of the references: a pure function of seed, step and labels."""
    ranks = run.processes.ranks
    rng = np.random.default_rng(step_seed(run.options.seed, step))
    drawn = run.sampler.draw(rng, 2 * run.options.batch_size)
    return np.ascontiguousarray(drawn[ranks.rank :: ranks.count])


def make_batch(run: TrainingRun, fetcher: Fetcher, draws: Draws) -> Batch:
    """Sources and references, drawn independently, augmented on the device."""
    rows = rows_of_step(run, run.clock.step)
    pixels = fetcher.take(rows)
    fetcher.prepare(rows_of_step(run, run.clock.step + 1))  # of no use where labels are refreshed in between: no harm
    count = len(rows) // 2
    images = _move(pixels, run.device).float().div_(127.5).sub_(1)
    images = flip_and_crop(images, draws, run.options.crop)
    active = _move(run.labels.active[rows], run.device)
    latents = draws.normal(2 * count, run.nets.mapping.latent_dim)
    x, y = images.split(count)
    x_labels, y_labels = active.split(count)
    return Batch(x, x_labels, y, y_labels, *latents.split(count))


def _move(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """``array`` on ``device``; the host does not wait for a GPU."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
