"""``lanit train``: from a labelled store to a translation model, in a run folder that the same command continues.

A run folder holds ``config.json`` (resolved options), ``metrics.jsonl`` (one object a line), ``samples/``,
``checkpoints/`` (to continue from) and ``model/`` (the bundle to use).
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from lanit.augment import flip_and_crop
from lanit.errors import LanitError
from lanit.inference import add_each_domain, translate_edited
from lanit.labels import adaptive, exclusive_pairs, margin
from lanit.schedules import diversity_weight, ema_decay, r1_weight, step_seed
from lanit.steps import Batch, Parts, StepPlan, fused_step, paper_step
from pipeline.clip_models import ClipModel
from pipeline.devices import pick_device
from pipeline.labelling.label import relabel
from pipeline.store.store import Store
from pipeline.training.train_options import TrainOptions
from pipeline.training.training_run import TrainingRun, prepare_run
from pipeline.translating.grids import labelled_grid, to_uint8, write_png

_WARM_STEPS = 5  # not timed: allocations and kernel selection
_TIMED_STEPS = 30  # when a run limited by minutes plans its number of steps
_SHOWN = 8  # faces in a sample grid
_SAMPLE_SEED = 2**31
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TrainReport:
    """What a call of :func:`train` did. steps, images, seconds: of the whole run; started_at: where it resumed."""

    run: str
    steps: int
    started_at: int
    images: int
    seconds: float
    seconds_per_step: float
    label_revision: int
    device: str
    interrupted: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def train(
    store: Store,
    folder: Path,
    options: TrainOptions,
    clip: ClipModel,
    *,
    revision: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> TrainReport:
    """Train, or continue the run in ``folder``; Ctrl-C and SIGTERM save a checkpoint first.

    progress: called with (steps done, steps planned). Raises LanitError where the store has no labels that fit, where
    the folder holds a run with other options, or where a loss is not finite, naming it.
    """
    run = prepare_run(store, folder, options, clip, revision, pick_device(device))
    started_at, since = run.clock.step, run.clock.seconds
    with _stop_on_signal() as signals:
        _loop(run, signals, progress)
    done = run.clock.step - started_at
    return TrainReport(
        str(folder), run.clock.step, started_at, run.clock.step * options.batch_size, round(run.clock.seconds, 2),
        round((run.clock.seconds - since) / max(done, 1), 4), run.clock.revision, str(run.device), bool(signals),
    )  # fmt: skip


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """A list that is no longer empty after Ctrl-C or SIGTERM; works in the main thread, elsewhere stays empty."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    before = {}
    with contextlib.suppress(ValueError):  # not the main thread
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _loop(run: TrainingRun, signals: list[int], progress: Progress | None) -> None:
    options, clock = run.options, run.clock
    if clock.step == 0:
        clock.planned = 0 if options.minutes else options.steps
        _sample(run)  # what could fail hours later fails now
        run.save()
    losses = _Losses()
    sampled = saved = clock.step
    warm = clock.step, clock.seconds
    while not _finished(run) and not signals:
        begun = time.monotonic()
        losses.add(_step(run))
        if options.minutes and run.device.type == "cuda":
            torch.cuda.synchronize(run.device)  # a promise in minutes needs the true time of a step
        clock.step += 1
        clock.seconds += time.monotonic() - begun
        if clock.step == _WARM_STEPS:
            warm = clock.step, clock.seconds
        if clock.step == _TIMED_STEPS and options.minutes:
            each = (clock.seconds - warm[1]) / max(clock.step - warm[0], 1)
            affordable = clock.step + max(1, round((options.minutes * 60 - clock.seconds) / each))
            clock.planned = min(affordable, options.steps or affordable)
        if _due(clock.step, options.log_every):
            _log(run, losses)
        if run.learning and _due(clock.step, options.refresh_every):
            _refresh(run)
        if _due(clock.step, options.sample_every):
            _sample(run)
            sampled = clock.step
        if _due(clock.step, options.checkpoint_every):
            losses.check(run)
            run.save()
            saved = clock.step
        if progress and clock.planned:
            progress(clock.step, max(clock.planned, clock.step))
    if losses.totals:
        _log(run, losses)
    if sampled != clock.step:
        _sample(run)
    if saved != clock.step:
        run.save()


class _Losses:
    """Sums of losses since the last metric line, on the device: reading them is the only wait for it."""

    def __init__(self) -> None:
        self.totals: Parts = {}
        self.counts: dict[str, int] = {}

    def add(self, parts: Parts) -> None:
        for name, value in parts.items():
            self.totals[name] = self.totals[name] + value if name in self.totals else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def check(self, run: TrainingRun) -> dict[str, float]:
        """The means so far; raises LanitError for the first that is not finite, naming it."""
        means = {name: value.item() / self.counts[name] for name, value in self.totals.items()}
        for name, value in means.items():
            if not np.isfinite(value):
                raise LanitError(
                    f"the loss '{name}' is {value} at step {run.clock.step}",
                    f"Lower --learning-rate (now {run.options.learning_rate:g}) or try --set precision=float32; "
                    "the last checkpoint is kept.",
                )
        return means


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _finished(run: TrainingRun) -> bool:
    """Whether the steps, or the minutes, are done."""
    if run.options.minutes and run.clock.seconds >= run.options.minutes * 60:
        return True
    return bool(run.options.steps) and run.clock.step >= run.options.steps


def _step(run: TrainingRun) -> Parts:
    options, step, planned = run.options, run.clock.step, run.clock.planned
    seed = step_seed(options.seed, step)
    randomness = torch.Generator(run.device).manual_seed(seed)
    until = round(options.diversity_until * planned)
    plan = StepPlan(
        r1_weight(options.r1, step, options.r1_every),
        diversity_weight(options.diversity, step, until) if planned else options.diversity,
        run.learning,
    )
    take = fused_step if options.schedule == "fused" else paper_step
    batch = _batch(run, seed, randomness)
    parts = take(run.nets, run.optimisers, batch, run.guidance, plan, options.step_options(run.bf16), randomness)
    decay = ema_decay(options.ema, step)
    run.average.update(run.nets.generative, decay)
    if run.learner is not None and run.prompt_average is not None:
        run.prompt_average.update(torch.nn.ParameterList([run.learner.context]), decay)
    return parts


def _batch(run: TrainingRun, seed: int, randomness: torch.Generator) -> Batch:
    """Sources and references, drawn independently."""
    count, options = run.options.batch_size, run.options
    rows = run.sampler.draw(np.random.default_rng(seed), 2 * count)
    images = _move(run.images[rows], run.device).float().div_(127.5).sub_(1)
    images = flip_and_crop(images, randomness, options.crop)
    active = _move(run.labels.active[rows], run.device)
    latents = torch.randn(2, count, run.nets.mapping.latent_dim, generator=randomness, device=run.device)
    return Batch(images[:count], active[:count], images[count:], active[count:], latents[0], latents[1])


def _move(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """``array`` on ``device``; the host does not wait for a GPU."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _refresh(run: TrainingRun) -> None:
    """Relabel the stored set by the prompts as learned so far, and train on that from now on (METHOD 15)."""
    before = run.labels
    domains, base = (tensor.float().cpu() for tensor in run.averaged_text())
    number = relabel(run.store, before, (domains, base), f"train:{run.folder.name} step {run.clock.step}")
    run.use_labels(run.store.labels(number))
    flips = dict(zip(before.domains, map(int, (run.labels.active != before.active).sum(axis=0)), strict=True))
    _write_metrics(run, {"kind": "refresh", "label_revision": number, "flips": flips})


@torch.no_grad()
def _sample(run: TrainingRun) -> None:
    """Translate a few fixed images to every domain with the averaged networks: a grid, and CLIP's own view of it."""
    rows = np.linspace(0, len(run.images) - 1, _SHOWN).round().astype(int)
    images = torch.from_numpy(run.images[rows]).to(run.device).float() / 127.5 - 1
    active = torch.from_numpy(run.labels.active[rows]).to(run.device)
    exclusive = exclusive_pairs(torch.from_numpy(run.labels.active)).to(run.device)
    randomness = torch.Generator(run.device).manual_seed(_SAMPLE_SEED)
    domains = active.shape[1]
    latents = torch.randn(domains, run.nets.mapping.latent_dim, generator=randomness, device=run.device)
    text, base = run.averaged_text()
    grid, recognised, kept = [], [], []
    for image, own in zip(images, active, strict=True):
        targets = add_each_domain(own, exclusive)
        made = translate_edited(
            run.average.module, image.expand(domains, -1, -1, -1), own.expand(domains, -1), targets, latents
        )
        seen = adaptive(margin(run.clip.encode_images(made), text, base), run.offsets)
        recognised.append(seen.diagonal())
        kept.append((seen == targets)[~torch.eye(domains, dtype=torch.bool, device=run.device)])
        grid.append(to_uint8(torch.cat([image[None], made])))
    write_png(
        run.folder / "samples" / f"{run.clock.step:08d}.png", labelled_grid(grid, ["source", *run.labels.domains])
    )
    shares = {
        "recognised": torch.stack(recognised).float().mean().item(),
        "kept": torch.cat(kept).float().mean().item(),
    }
    _write_metrics(run, {"kind": "sample", "judge": "clip"} | {name: round(value, 4) for name, value in shares.items()})


def _log(run: TrainingRun, losses: _Losses) -> None:
    """Write the mean losses since the last line."""
    means = losses.check(run)
    losses.totals, losses.counts = {}, {}
    _write_metrics(run, {"kind": "losses"} | {name: round(value, 5) for name, value in means.items()})


def _write_metrics(run: TrainingRun, values: dict[str, Any]) -> None:
    clock = run.clock
    line = {
        "step": clock.step,
        "images": clock.step * run.options.batch_size,
        "seconds": round(clock.seconds, 2),
    } | values
    path = run.folder / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
