"""What watches a run beside its own lines: TensorBoard, Trackio or Weights & Biases, each an extra.

A log gets every line of ``metrics.jsonl`` as it is written, and the grids of translations. The lines stay what counts:
a log that is lost loses nothing of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from lanit.errors import LanitError
from pipeline.extras import install

LogName = Literal["tensorboard", "trackio", "wandb"]
_STAND = ("step", "images", "seconds", "kind")
_PROJECT = "lanit"


class Log(Protocol):
    """values: by name, ``losses/total``; picture: a PNG, where the step has a grid."""

    def add(self, step: int, values: Mapping[str, float], picture: Path | None) -> None: ...

    def close(self) -> None: ...


def open_log(name: LogName, folder: Path, options: Mapping[str, Any], step: int) -> Log:
    """The log of the run ``folder``, which goes on after ``step``. Raises LanitError where its package is missing."""
    try:
        return LOGS[name](folder, options, step)
    except ImportError as error:
        message = f"--log {name} needs the package {error.name or name}"
        raise LanitError(message, f"Install it: {install(name)}, or leave --log out.") from error


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line by name, its kind before each; those of a nested object by both names."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if name in _STAND:
            continue
        for key, inner in value.items() if isinstance(value, Mapping) else [("", value)]:
            if isinstance(inner, int | float):
                found["/".join(filter(None, (str(line["kind"]), name, key)))] = float(inner)
    return found


def is_sample(line: Mapping[str, Any]) -> bool:
    """Whether a grid of translations was drawn for the line."""
    return line["kind"] == "sample"


class _TensorBoard:
    """Event files in ``tensorboard/`` of the run: ``tensorboard --logdir runs``."""

    def __init__(self, folder: Path, options: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        if not step:
            table = "\n".join(f"| {name} | {value} |" for name, value in options.items())
            self._writer.add_text("options", f"| option | value |\n|---|---|\n{table}", 0)

    def add(self, step: int, values: Mapping[str, float], picture: Path | None) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        if picture is not None:
            import numpy as np
            from PIL import Image

            self._writer.add_image("sample", np.asarray(Image.open(picture).convert("RGB")), step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    """A run of the project ``lanit``: ``trackio show``."""

    def __init__(self, folder: Path, options: Mapping[str, Any], step: int) -> None:
        import trackio

        self._trackio = trackio
        self._run = trackio.init(_PROJECT, name=_name(folder), config=dict(options), resume="allow", embed=False)

    def add(self, step: int, values: Mapping[str, float], picture: Path | None) -> None:
        shown = {} if picture is None else {"sample": self._trackio.Image(str(picture))}
        self._run.log(dict(values) | shown, step=step)

    def close(self) -> None:
        self._run.finish()


class _Wandb:
    """A run of the project ``lanit``; ``WANDB_MODE=offline`` keeps it on this machine."""

    def __init__(self, folder: Path, options: Mapping[str, Any], step: int) -> None:
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=_PROJECT, name=_name(folder), id=_name(folder), config=dict(options), resume="allow",
            dir=str(folder),
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")

    def add(self, step: int, values: Mapping[str, float], picture: Path | None) -> None:
        shown = {} if picture is None else {"sample": self._wandb.Image(str(picture))}
        self._run.log(dict(values) | shown | {"step": step})

    def close(self) -> None:
        self._run.finish()


def _name(folder: Path) -> str:
    """What the run is called: the last two parts of its path, so that two runs called "first" differ."""
    return "-".join(folder.resolve().parts[-2:]).strip("/") or "run"


LOGS: Mapping[str, Callable[[Path, Mapping[str, Any], int], Log]] = {
    "tensorboard": _TensorBoard, "trackio": _Trackio, "wandb": _Wandb,
}  # fmt: skip
