"""Commands of lanit in forked children: nothing is imported in them, so a kill hits the work.

The process that calls :func:`warm` and :func:`start` runs nothing itself: a fork would not carry the threads of BLAS.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import pkgutil
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 600.0
"""Seconds of waiting after which a command counts as hung."""
_LOOK = 0.05
"""Seconds between two looks at a command, at most."""

_LIBRARIES = (
    "torch._dynamo", "torchvision.transforms", "open_clip", "faiss", "pandas", "pyarrow.parquet", "pyarrow.csv",
    "pyarrow.dataset", "pyarrow.compute", "safetensors.torch", "PIL.Image", "PIL.PngImagePlugin", "jinja2", "sqlite3",
    "rich.progress", "huggingface_hub.hf_api", "fsspec.implementations.local",
)  # fmt: skip


_DISK_EVENTS = frozenset(
    {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod"}
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended. code: of exit, minus the signal where one ended it, none where it hung.
    seconds: of the clock. events: changes of the disk that Python made, see :func:`start`."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    events: int

    @property
    def crashed(self) -> bool:
        """Whether it ended in anything but success or an error that lanit words."""
        loud = "Traceback (most recent call last)" in self.stderr or "Aborted" in self.stderr
        return loud or self.code is None or self.code < 0 or (self.code != 0 and len(self.errors) != 1)

    @property
    def refused(self) -> bool:
        """Whether it ended in one line that says why."""
        return not self.crashed and self.code != 0

    @property
    def errors(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("error: ")]

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("warning: ")]

    @property
    def last_line(self) -> str:
        lines = self.stderr.strip().splitlines()
        return lines[-1] if lines else ""


class Running:
    """A command that was started, see :func:`start`."""

    def __init__(self, line: str, cwd: Path, die_at: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._streams = [os.memfd_create("output") for _ in range(2)]
        self._events = mmap.mmap(-1, 8)
        self._began = time.perf_counter()
        self._ended: Outcome | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _become(line, cwd, self._streams, self._events, die_at)

    def kill(self) -> None:
        """SIGKILL to it and to what it started."""
        for send in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                send(self.pid, signal.SIGKILL)

    @property
    def alive(self) -> bool:
        return self._poll(os.WNOHANG) is None

    def wait(self, seconds: float = PATIENCE) -> Outcome:
        """Wait for its end; after ``seconds`` it is killed and counts as hung.

        A pause counts as what it was meant to take: a machine that stood still has not waited.
        """
        waited, pause = 0.0, 0.002
        while (outcome := self._poll(os.WNOHANG)) is None:
            if waited > seconds:
                self.kill()
                ended = self._poll(0)
                assert ended is not None
                return Outcome(None, ended.stdout, ended.stderr, ended.seconds, ended.events)
            time.sleep(pause)
            waited += pause
            pause = min(pause * 1.2, _LOOK)
        return outcome

    def _poll(self, how: int) -> Outcome | None:
        if self._ended is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                seconds = time.perf_counter() - self._began
                out, err = (_text(stream) for stream in self._streams)
                events = int.from_bytes(self._events[:8], "little")
                self._ended = Outcome(os.waitstatus_to_exitcode(status), out, err, seconds, events)
        return self._ended


def warm() -> None:
    """Import all that commands import, once, and keep BLAS from starting threads."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    import torch

    torch.set_num_threads(1)
    for name in _LIBRARIES:
        importlib.import_module(name)
    import cli  # noqa: F401
    import pipeline

    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        if module.name.startswith("pipeline.play"):  # it imports gradio, and no command here serves a page
            continue
        with contextlib.suppress(ImportError):  # of an extra that is not installed
            importlib.import_module(module.name)


def start(line: str, cwd: Path, die_at: int = 0) -> Running:
    """Start ``lanit LINE`` in the folder ``cwd``.

    die_at: SIGKILL just before its n-th change of the disk (files opened to write, renamed, removed, folders); 0 never.
    What libraries in C change does not count.
    """
    return Running(line, cwd, die_at)


def run(line: str, cwd: Path) -> Outcome:
    """``lanit LINE`` in the folder ``cwd``, to its end."""
    return start(line, cwd).wait()


def must(line: str, cwd: Path) -> Outcome:
    """As :func:`run`, of what sets a trial up: RuntimeError where it fails."""
    outcome = run(line, cwd)
    if outcome.code != 0:
        raise RuntimeError(f"undisturbed, lanit {line} ended with {outcome.code}: {outcome.stderr[-1000:]}")
    return outcome


def _text(stream: int) -> str:
    os.lseek(stream, 0, os.SEEK_SET)
    with os.fdopen(stream, "rb") as file:
        return file.read().decode(errors="replace")


def _become(line: str, cwd: Path, streams: Sequence[int], events: mmap.mmap, die_at: int) -> None:
    """In the child: be the command, then end."""
    code = 1
    try:
        os.setsid()
        os.chdir(cwd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(streams[0], 1)
        os.dup2(streams[1], 2)
        sys.argv = ["lanit", *shlex.split(line)]
        _count_events(events, die_at)
        from cli import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _count_events(counter: mmap.mmap, die_at: int) -> None:
    seen = 0

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in _DISK_EVENTS:
            seen += 1
            counter[:8] = seen.to_bytes(8, "little")
            if seen == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
