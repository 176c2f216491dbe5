"""What a run writes: lines of metrics, sample grids, checkpoints, and the models that follow from those."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lanit.errors import LanitError
from pipeline.models.bundle import Bundle, save_bundle
from pipeline.models.metric_lines import add_line, begins_with, forget_later_lines, read_lines, record_of
from pipeline.models.run_folder import BEST, METRICS, MODEL, SAMPLES, checkpoint_folder
from pipeline.training.checkpoints import forget_checkpoints, read_state, save_checkpoint
from pipeline.training.clock import Clock, clock_of
from pipeline.training.learner import Learner
from pipeline.training.run_model import holds

Watcher = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class RunFiles:
    """The folder of a run. digest: of the configuration that the run began with, by which its checkpoints know it; none
    of an older lanit's. keep: how many checkpoints stay besides the best. writes: whether this process does.
    watchers: told of each line."""

    folder: Path
    digest: str | None
    keep: int
    batch_size: int
    writes: bool
    watchers: list[Watcher] = field(default_factory=list)

    def add_line(self, clock: Clock, values: dict[str, Any]) -> None:
        """A line of metrics, with step, images and seconds before its own values."""
        if self.writes:
            stand = {"step": clock.step, "images": clock.step * self.batch_size, "seconds": round(clock.seconds, 2)}
            add_line(self.folder / METRICS, stand | values)
            for watch in self.watchers:
                watch(stand | values)

    def kinds_at(self, step: int) -> set[str]:
        """Which kinds of lines there are of a step."""
        lines, _ = read_lines(self.folder / METRICS)
        return {line["kind"] for line in lines if line["step"] == step}

    def forget_lines_after(self, clock: Clock, record: dict[str, Any] | None, warn: Callable[[str], None]) -> None:
        """Drop the lines of steps that are done again. record: of the lines when the checkpoint was written, where it
        has one; warn: told where they are others by now."""
        if not self.writes:
            return
        path = self.folder / METRICS
        if record is not None and not begins_with(path, record):
            warn(f"{path} lacks lines that this run wrote, or has others: what its curves show is not this run alone")
        forget_later_lines(path, clock.step if clock.step else -1)  # step 0 writes its lines again

    def sample(self, step: int) -> Path:
        return self.folder / SAMPLES / f"{step:08d}.png"

    def best_checkpoint(self, clock: Clock) -> tuple[Path, Clock]:
        """Of the best evaluation. Raises LanitError where that is gone or damaged."""
        checkpoint = checkpoint_folder(self.folder, clock.best_step)
        state = read_state(checkpoint, self.digest)
        return checkpoint, clock_of(state)

    def save(self, learner: Learner, model: Callable[[], Bundle]) -> None:
        """Write a checkpoint, then what follows from it: a run killed in between makes that again as it goes on.

        model: as it stands. Raises LanitError where a weight is not finite.
        """
        clock = learner.clock
        state = asdict(clock) | ({"run": self.digest} if self.digest else {})
        state["metrics"] = record_of(self.folder / METRICS)
        save_checkpoint(self.folder, clock.step, learner.state(), state, self.keep, _kept(clock))
        bundle = model()
        save_bundle(self.folder / MODEL, bundle)
        if clock.best_step and clock.best_step == clock.step:
            save_bundle(self.folder / BEST, bundle)

    def write_what_follows(
        self, clock: Clock, model: Bundle, best: Callable[[], Bundle], warn: Callable[[str], None]
    ) -> None:
        """Write what :meth:`save` does after the checkpoint that the run goes on from, where that is not there, whole.

        best: the best model, made again; warn: told where it cannot be.
        """
        forget_checkpoints(self.folder, clock.step, self.keep, _kept(clock))
        if not holds(self.folder / MODEL, model):
            save_bundle(self.folder / MODEL, model)
        if not clock.best_step:
            return
        try:
            chosen = model if clock.best_step == clock.step else best()
        except LanitError as error:
            warn(f"{self.folder / BEST} cannot be compared with its checkpoint: {error.message}")
            return
        if not holds(self.folder / BEST, chosen):
            save_bundle(self.folder / BEST, chosen)


def _kept(clock: Clock) -> set[int]:
    return {clock.best_step} if clock.best_step else set()
