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

import torch

from lanit.errors import LanitError
from lanit.objectives import Parts
from lanit.ranks import Draws
from lanit.schedules import step_seed
from pipeline.clip.models import ClipModel
from pipeline.models.run_folder import locked_run
from pipeline.progress import Progress
from pipeline.prompts.nearest_words import LearnedWord, learned_words
from pipeline.showing import console
from pipeline.store.store import Store
from pipeline.training.batches import Fetcher, make_batch
from pipeline.training.clock import Clock
from pipeline.training.evaluation import BETTER_BELOW
from pipeline.training.found_clusters import rehearse_clusters
from pipeline.training.learner import Learner, as_learned
from pipeline.training.logs import LogName, is_sample, numbers, open_log
from pipeline.training.loss_log import LossLog
from pipeline.training.processes import Pace, Processes, joined_processes
from pipeline.training.refreshing import begin_to_check, refresh_labels
from pipeline.training.run_setup import prepare_run
from pipeline.training.samples import draw_sample, judge_name
from pipeline.training.train_options import TrainOptions
from pipeline.training.training_data import TrainingData
from pipeline.training.training_run import TrainingRun

_WARM_STEPS = 5  # not timed: allocations and kernel selection
_TIMED_STEPS = 30  # when a run limited by minutes plans its number of steps


@dataclass(frozen=True)
class TrainReport:
    """What a call of :func:`train` did. steps, images, seconds: of the whole run; started_at: where it resumed.

    best: the best evaluation and its step, none where there was none. processes: how many trained.
    learned: what learned prompts are near to; empty where none were learned. stability: mean κ of its labels over two
    crops, none where prompts were not checked by it; settled: whether they are learned no more.
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
    stability: float | None
    settled: bool

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
    log: LogName | None = None,
) -> TrainReport:
    """Train, or continue the run in ``folder``; Ctrl-C and SIGTERM save a checkpoint first.

    progress: called with (steps done, steps planned). log: what is told of every line, beside the run's own. Raises
    LanitError where the folder is somebody else's or another command writes there, where the store has no labels that
    fit, where the folder holds a run with other options, where memory does not suffice, or where a loss is not finite,
    naming it.
    """
    with joined_processes(device) as processes, _claimed(folder, processes):
        run = prepare_run(store, folder, options, clip, revision, processes)
        clock = run.learner.clock
        started_at, since = clock.step, clock.seconds
        with (
            _stop_on_signal() as signals,
            _enough_memory(options),
            contextlib.closing(Fetcher(run.data.images)) as fetcher,
            _logged(run, log),
        ):
            _loop(run, fetcher, signals, progress)
            stopped = processes.any(bool(signals))
        done = clock.step - started_at
        learned: tuple[LearnedWord, ...] = ()
        if run.learner.learned:
            learned = learned_words(clip, as_learned(run.data.labels.prompt_set, run.learner.context()))
        return TrainReport(
            run=str(folder),
            steps=clock.step,
            started_at=started_at,
            images=clock.step * options.batch_size,
            seconds=round(clock.seconds, 2),
            seconds_per_step=round((clock.seconds - since) / max(done, 1), 4),
            label_revision=clock.revision,
            device=str(run.device),
            processes=processes.ranks.count,
            best_step=clock.best_step or None,
            best_by=options.best_by,
            best=clock.best if clock.best_step else None,
            interrupted=stopped,
            learned=learned,
            stability=clock.stability,
            settled=clock.settled,
        )


@contextlib.contextmanager
def _claimed(folder: Path, processes: Processes) -> Iterator[None]:
    """The first process holds the run's folder for all."""
    with contextlib.ExitStack() as held:
        with processes.first_alone():
            if processes.first:
                held.enter_context(locked_run(folder))
        yield


@contextlib.contextmanager
def _logged(run: TrainingRun, name: LogName | None) -> Iterator[None]:
    """Tell the log of every line while the run is at it; of several processes the first does."""
    if name is None or not run.processes.first:
        yield
        return
    files = run.files
    with contextlib.closing(open_log(name, files.folder, run.options.to_json(), run.learner.clock.step)) as log:
        files.watchers.append(
            lambda line: log.add(line["step"], numbers(line), files.sample(line["step"]) if is_sample(line) else None)
        )
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
    options, learner, clock, processes = run.options, run.learner, run.learner.clock, run.processes
    begun, since = time.monotonic(), clock.step
    if clock.step == 0:
        clock.planned = 0 if options.minutes else options.steps
        learner.begin_phase_2_when_due()
        _first_of_all(run)
    pace = Pace(since, time.monotonic() - begun)
    learner.begin_phase_2_when_due()
    losses = LossLog()
    saved = clock.step
    warm = clock.step, clock.seconds
    while not processes.any(_finished(options, clock) or bool(signals)):
        begun = time.monotonic()
        losses.add(_step(learner, run.data, fetcher, options, processes), clock.step + 1)
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
        learner.begin_phase_2_when_due()
        last = _finished_everywhere(options, clock, processes)
        evaluates = last or _due(clock.step, options.evaluate_every)
        saves = last or _due(clock.step, options.checkpoint_every)
        if evaluates or saves or _due(clock.step, options.log_every):
            _log(run, losses)  # of networks that are finite, before they are judged or saved
        if _refreshes(run, last):
            refresh_labels(run)
        if last or _due(clock.step, options.sample_every):
            run.files.add_line(clock, _sample(run))
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
    elif since == clock.step and _finished_everywhere(options, clock, processes) and not processes.any(bool(signals)):
        _complete(run)


def _refreshes(run: TrainingRun, last: bool) -> bool:
    """Whether labels are made anew: in phase 2 every so often; clusters also as it begins, and as the run ends."""
    due = _due(run.learner.clock.step, run.options.refresh_every)
    if run.finds_clusters:
        due = due or last or not run.learner.clock.revision
    return due and run.relabels and run.learner.learning


def _first_of_all(run: TrainingRun) -> None:
    """What could fail hours later fails now: a sample, an evaluation, a refresh if there will be one, a checkpoint."""
    if run.finds_clusters:
        rehearse_clusters(run)
    run.files.add_line(run.learner.clock, _sample(run))
    _evaluate(run)
    if run.relabels and not run.finds_clusters:
        with run.processes.first_alone():
            if run.processes.first:
                line = run.labels.rehearse(run.data.labels, run.learner.embedded())
                run.files.add_line(run.learner.clock, line | begin_to_check(run))
        run.learner.clock.stability = run.processes.shared(run.learner.clock.stability)
    _save(run)


def _complete(run: TrainingRun) -> None:
    """Of a run that was finished before, the sample and the evaluation of its last step, where a signal or a lost file
    left it without; its best checkpoint is committed before the line that says so."""
    known: set[str] = set()
    clock, files = run.learner.clock, run.files
    if run.processes.first:
        known = files.kinds_at(clock.step)
        if "sample" not in known or not files.sample(clock.step).is_file():
            line = _sample(run)
            if "sample" not in known:
                files.add_line(clock, line)
    known = run.processes.shared(known)
    if "evaluation" not in known:
        figures = _measure(run)
        if _is_best(clock, run.options.best_by, figures):
            _save(run)
        _write_evaluation(run, figures)


def _save(run: TrainingRun) -> None:
    with run.processes.first_alone():
        if run.processes.first:
            run.files.save(run.learner, lambda: run.model.now(run.learner, run.data))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _finished(options: TrainOptions, clock: Clock) -> bool:
    """Whether the steps, or the minutes, are done."""
    if options.minutes and clock.seconds >= options.minutes * 60:
        return True
    return bool(options.steps) and clock.step >= options.steps


def _finished_everywhere(options: TrainOptions, clock: Clock, processes: Processes) -> bool:
    """Whether the run is finished in any process: only clocks can differ, so that steps need no asking."""
    finished = _finished(options, clock)
    return processes.any(finished) if options.minutes else finished


def _step(learner: Learner, data: TrainingData, fetcher: Fetcher, options: TrainOptions, processes: Processes) -> Parts:
    step, ranks = learner.clock.step, processes.ranks
    draws = Draws(torch.Generator(processes.device).manual_seed(step_seed(options.seed, step)), ranks)
    rows, ahead = (data.rows_of_step(options.seed, each, options.batch_size, ranks) for each in (step, step + 1))
    pixels = fetcher.take(rows)
    fetcher.prepare(ahead)  # of no use where labels are refreshed in between: no harm
    labels, latent_dim, device = data.labels, learner.method.averaged.latent_dim, processes.device
    human = None if labels.human is None else labels.human[rows]
    batch = make_batch(
        pixels, labels.active[rows], latent_dim, options.crop, device, draws,
        paired=data.paired, human=human, exclusive=data.exclusive,
    )  # fmt: skip
    return learner.method.step(batch, learner.moment(), draws)


def _sample(run: TrainingRun) -> dict[str, Any]:
    """A grid of translations, by the first process; returns its line."""
    if not run.processes.first:
        return {}
    return draw_sample(run.files.sample(run.learner.clock.step), run.learner, run.data, run.clip)


def _evaluate(run: TrainingRun) -> bool:
    """Measure the averaged networks; whether this is the best evaluation so far, as ``best_by`` has it."""
    figures = _measure(run)
    _write_evaluation(run, figures)
    return _is_best(run.learner.clock, run.options.best_by, figures)


def _measure(run: TrainingRun) -> dict[str, float]:
    figures: dict[str, float] = {}
    if run.processes.first:
        figures = run.evaluator().measure(run.learner.method.averaged, run.clip, run.learner.seen)
    return run.processes.shared(figures)


def _write_evaluation(run: TrainingRun, figures: dict[str, float]) -> None:
    line = {"kind": "evaluation", "judge": judge_name(run.learner)} | {
        name: round(value, 6) for name, value in figures.items()
    }
    run.files.add_line(run.learner.clock, line)


def _is_best(clock: Clock, by: str, figures: dict[str, float]) -> bool:
    """Whether the figures are the best so far; then the clock says so."""
    if clock.step == 0 or not clock.revision or by not in figures:  # before there are clusters no generator learned
        return False
    better = figures[by] < clock.best if BETTER_BELOW[by] else figures[by] > clock.best
    if clock.best_step and not better:
        return False
    clock.best, clock.best_step = figures[by], clock.step
    return True


def _log(run: TrainingRun, losses: LossLog) -> None:
    """Write the mean losses since the last line."""
    rate = run.options.to_json().get("learning_rate")
    lower = "" if rate is None else f"Lower --learning-rate (now {rate:g}) or try "
    hint = f"{lower or 'Try '}--set precision=float32; the last checkpoint is kept."
    means = losses.means(run.processes.ranks, hint)
    losses.clear()
    line = {"kind": "losses"} | {name: round(value, 5) for name, value in means.items()}
    run.files.add_line(run.learner.clock, line)
