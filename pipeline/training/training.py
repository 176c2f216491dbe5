"""``lanit train``: from a labelled store to a translation model, in a run folder that the same command continues.

A run folder holds ``config.json`` (resolved options), ``metrics.jsonl`` (one object a line), ``samples/``,
``checkpoints/`` (to continue from), ``model/`` (the bundle to use) and ``best/`` (that of the best evaluation). A
checkpoint is the commit of a step: what follows from it is made again by the same command, wherever it was killed.
Under torchrun every process comes here; see :mod:`pipeline.training.processes`.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from lanit.errors import LanitError
from lanit.inference import add_each_domain, translate_edited
from lanit.labels import adaptive, exclusive_pairs, margin
from lanit.objectives import Parts
from lanit.ranks import Draws
from lanit.schedules import diversity_weight, ema_decay, r1_weight, step_seed
from lanit.steps import StepPlan, fused_step, paper_step
from pipeline.clip.models import ClipModel
from pipeline.decoding.grids import labelled_grid, to_uint8, write_png
from pipeline.models.metric_lines import add_line, read_lines
from pipeline.models.run_folder import METRICS, SAMPLES, locked_run
from pipeline.progress import Progress
from pipeline.prompts.nearest_words import LearnedWord, learned_words
from pipeline.showing import console
from pipeline.store.store import Store
from pipeline.training.batches import Fetcher, make_batch
from pipeline.training.evaluation import BETTER_BELOW
from pipeline.training.loss_log import LossLog
from pipeline.training.processes import Pace, Processes, joined_processes
from pipeline.training.refresh import refresh, rehearse
from pipeline.training.run_setup import prepare_run
from pipeline.training.train_options import TrainOptions
from pipeline.training.training_run import TrainingRun

_WARM_STEPS = 5  # not timed: allocations and kernel selection
_TIMED_STEPS = 30  # when a run limited by minutes plans its number of steps
_SHOWN = 8  # faces in a sample grid
_SAMPLE_SEED = 2**31


@dataclass(frozen=True)
class TrainReport:
    """What a call of :func:`train` did. steps, images, seconds: of the whole run; started_at: where it resumed.

    best: the best evaluation and its step, none where there was none. processes: how many trained.
    learned: what learned prompts are near to; empty where none were learned.
    """

    run: str
    steps: int
    started_at: int
    images: int
    seconds: float
    seconds_per_step: float
    label_revision: int
    device: str
    processes: int
    best_step: int | None
    best_by: str
    best: float | None
    interrupted: bool
    learned: tuple[LearnedWord, ...]

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

    progress: called with (steps done, steps planned). Raises LanitError where the folder is somebody else's or another
    command writes there, where the store has no labels that fit, where the folder holds a run with other options, where
    memory does not suffice, or where a loss is not finite, naming it.
    """
    with joined_processes(device) as processes, _claimed(folder, processes):
        run = prepare_run(store, folder, options, clip, revision, processes)
        started_at, since = run.clock.step, run.clock.seconds
        with (
            _stop_on_signal() as signals,
            _enough_memory(options),
            contextlib.closing(Fetcher(run.images)) as fetcher,
        ):
            _loop(run, fetcher, signals, progress)
            stopped = processes.any(bool(signals))
        clock = run.clock
        done = clock.step - started_at
        return TrainReport(
            str(folder), clock.step, started_at, clock.step * options.batch_size, round(clock.seconds, 2),
            round((clock.seconds - since) / max(done, 1), 4), clock.revision, str(run.device), processes.ranks.count,
            clock.best_step or None, options.best_by, clock.best if clock.best_step else None, stopped,
            learned_words(clip, run.prompts()) if run.learning else (),
        )  # fmt: skip


@contextlib.contextmanager
def _claimed(folder: Path, processes: Processes) -> Iterator[None]:
    """The first process holds the run's folder for all."""
    with contextlib.ExitStack() as held:
        with processes.first_alone():
            if processes.first:
                held.enter_context(locked_run(folder))
        yield


@contextlib.contextmanager
def _enough_memory(options: TrainOptions) -> Iterator[None]:
    """Out of memory becomes a line that says which setting to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise LanitError(
            f"out of memory with {options.batch_size} images of {options.size} px in a step",
            f"Try --batch-size {max(2, options.batch_size // 2)} in another --out, a smaller --size, "
            "or --set max_channels=256; the last checkpoint is kept.",
        ) from error


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


def _loop(run: TrainingRun, fetcher: Fetcher, signals: list[int], progress: Progress | None) -> None:
    """Steps until the run is finished or a signal stops it. All that is due at a step comes before its checkpoint."""
    options, clock, processes = run.options, run.clock, run.processes
    begun, since = time.monotonic(), clock.step
    if clock.step == 0:
        clock.planned = 0 if options.minutes else options.steps
        run.begin_phase_2_when_due()
        _first_of_all(run)
    pace = Pace(since, time.monotonic() - begun)
    run.begin_phase_2_when_due()
    losses = LossLog()
    saved = clock.step
    warm = clock.step, clock.seconds
    while not processes.any(_finished(run) or bool(signals)):
        begun = time.monotonic()
        losses.add(_step(run, fetcher), clock.step + 1)
        if options.minutes and run.device.type == "cuda":
            torch.cuda.synchronize(run.device)  # a promise in minutes needs the true time of a step
        clock.step += 1
        clock.seconds += time.monotonic() - begun
        if clock.step == _WARM_STEPS:
            warm = clock.step, clock.seconds
        if clock.step == _TIMED_STEPS and options.minutes:
            each = (clock.seconds - warm[1]) / max(clock.step - warm[0], 1)
            affordable = clock.step + max(1, round((options.minutes * 60 - clock.seconds) / each))
            clock.planned = processes.shared(min(affordable, options.steps or affordable))
        run.begin_phase_2_when_due()
        last = _finished_everywhere(run)
        evaluates = last or _due(clock.step, options.evaluate_every)
        saves = last or _due(clock.step, options.checkpoint_every)
        if evaluates or saves or _due(clock.step, options.log_every):
            _log(run, losses)  # of networks that are finite, before they are judged or saved
        if run.relabels and run.learning and _due(clock.step, options.refresh_every):
            _write_metrics(run, refresh(run))
        if last or _due(clock.step, options.sample_every):
            _sample(run)
        if (evaluates and _evaluate(run)) or saves:
            _save(run)
            saved = clock.step
        pace.step_ended(clock.step, run.device, console.warn)
        if progress and clock.planned:
            progress(clock.step, max(clock.planned, clock.step))
    if losses:
        _log(run, losses)
    if saved != clock.step:
        _save(run)
    elif since == clock.step and _finished_everywhere(run) and not processes.any(bool(signals)):
        _complete(run)


def _first_of_all(run: TrainingRun) -> None:
    """What could fail hours later fails now: a sample, an evaluation, a refresh if there will be one, a checkpoint."""
    _sample(run)
    _evaluate(run)
    if run.relabels:
        with run.processes.first_alone():
            if run.processes.first:
                _write_metrics(run, rehearse(run))
    _save(run)


def _complete(run: TrainingRun) -> None:
    """Of a run that was finished before, the sample and the evaluation of its last step, where a signal or a lost file
    left it without; its best checkpoint is committed before the line that says so."""
    known: set[str] = set()
    if run.processes.first:
        lines, _ = read_lines(run.folder / METRICS)
        known = {line["kind"] for line in lines if line["step"] == run.clock.step}
        if "sample" not in known or not _sample_path(run).is_file():
            line = _draw_sample(run)
            if "sample" not in known:
                _write_metrics(run, line)
    known = run.processes.shared(known)
    if "evaluation" not in known:
        figures = _measure(run)
        if _is_best(run, figures):
            _save(run)
        _write_evaluation(run, figures)


def _save(run: TrainingRun) -> None:
    with run.processes.first_alone():
        if run.processes.first:
            run.save()


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _finished(run: TrainingRun) -> bool:
    """Whether the steps, or the minutes, are done."""
    if run.options.minutes and run.clock.seconds >= run.options.minutes * 60:
        return True
    return bool(run.options.steps) and run.clock.step >= run.options.steps


def _step(run: TrainingRun, fetcher: Fetcher) -> Parts:
    options, step, planned = run.options, run.clock.step, run.clock.planned
    draws = Draws(torch.Generator(run.device).manual_seed(step_seed(options.seed, step)), run.processes.ranks)
    until = round(options.diversity_until * planned)
    plan = StepPlan(
        r1_weight(options.r1, step, options.r1_every),
        diversity_weight(options.diversity, step, until) if planned else options.diversity,
        run.learning,
    )
    take = fused_step if options.schedule == "fused" else paper_step
    batch = make_batch(run, fetcher, draws)
    parts = take(run.nets, run.optimisers, batch, run.guidance, plan, options.step_options(run.bf16), draws)
    decay = ema_decay(options.ema, step)
    run.average.update(run.nets.generative, decay)
    if run.learner is not None and run.prompt_average is not None:
        run.prompt_average.update(torch.nn.ParameterList([run.learner.context]), decay)
    return parts


def _finished_everywhere(run: TrainingRun) -> bool:
    """Whether the run is finished in any process: only clocks can differ, so that steps need no asking."""
    return run.processes.any(_finished(run)) if run.options.minutes else _finished(run)


def _evaluate(run: TrainingRun) -> bool:
    """Measure the averaged networks; whether this is the best evaluation so far, as ``best_by`` has it."""
    figures = _measure(run)
    _write_evaluation(run, figures)
    return _is_best(run, figures)


def _measure(run: TrainingRun) -> dict[str, float]:
    figures: dict[str, float] = {}
    if run.processes.first:
        figures = run.evaluator.measure(run.average.module, run.clip, run.averaged_text(), run.offsets)
    return run.processes.shared(figures)


def _write_evaluation(run: TrainingRun, figures: dict[str, float]) -> None:
    _write_metrics(run, {"kind": "evaluation", "judge": "clip"} | {k: round(v, 6) for k, v in figures.items()})


def _is_best(run: TrainingRun, figures: dict[str, float]) -> bool:
    clock, by = run.clock, run.options.best_by
    if clock.step == 0 or by not in figures:
        return False
    better = figures[by] < clock.best if BETTER_BELOW[by] else figures[by] > clock.best
    if clock.best_step and not better:
        return False
    clock.best, clock.best_step = figures[by], clock.step
    return True


def _sample(run: TrainingRun) -> None:
    """A grid of translations, and its line."""
    _write_metrics(run, _draw_sample(run))


@torch.no_grad()
def _draw_sample(run: TrainingRun) -> dict[str, Any]:
    """Translate a few fixed images to every domain with the averaged networks, in the first process: writes the grid,
    and returns CLIP's own view of it, the metric line."""
    if not run.processes.first:
        return {}
    rows = np.linspace(0, len(run.images) - 1, _SHOWN).round().astype(int)
    images = torch.from_numpy(run.images.take(rows)).to(run.device).float() / 127.5 - 1
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
    write_png(_sample_path(run), labelled_grid(grid, ["source", *run.labels.domains]))
    shares = {
        "recognised": torch.stack(recognised).float().mean().item(),
        "kept": torch.cat(kept).float().mean().item(),
    }
    return {"kind": "sample", "judge": "clip"} | {name: round(value, 4) for name, value in shares.items()}


def _sample_path(run: TrainingRun) -> Path:
    return run.folder / SAMPLES / f"{run.clock.step:08d}.png"


def _hint(options: TrainOptions) -> str:
    return (
        f"Lower --learning-rate (now {options.learning_rate:g}) or try --set precision=float32; "
        "the last checkpoint is kept."
    )


def _log(run: TrainingRun, losses: LossLog) -> None:
    """Write the mean losses since the last line."""
    means = losses.means(run.processes.ranks, _hint(run.options))
    losses.clear()
    _write_metrics(run, {"kind": "losses"} | {name: round(value, 5) for name, value in means.items()})


def _write_metrics(run: TrainingRun, values: dict[str, Any]) -> None:
    if not run.processes.first:
        return
    clock = run.clock
    line = {
        "step": clock.step,
        "images": clock.step * run.options.batch_size,
        "seconds": round(clock.seconds, 2),
    } | values
    add_line(run.folder / METRICS, line)
