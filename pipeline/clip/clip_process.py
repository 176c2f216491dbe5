"""A CLIP in a process of its own, which is there while it is used: torch and the weights take more memory than all that
a server of pages holds, and importing them would stop its answers."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from lanit.errors import LanitError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from pipeline.clip.models import ClipModel

IDLE_SECONDS = 600.0
"""Without a question, after which the process ends."""

_NICENESS = 5  # loading is seconds of work that a person at a page should not feel

P = ParamSpec("P")
T = TypeVar("T")


class ClipProcess:
    """Started by the first question, and again by the first one after its end. Safe in threads, which take turns.

    load: the CLIP, called there: a function of a module, or a ``partial`` of one.
    """

    def __init__(self, load: Callable[[], ClipModel], idle: float = IDLE_SECONDS) -> None:
        self._load, self._idle, self._lock = load, idle, threading.Lock()
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process is not None and self._process.is_alive() else None

    def ask(self, work: Callable[Concatenate[ClipModel, P], T], *arguments: P.args, **options: P.kwargs) -> T:
        """``work(clip, …)``, done there: a function of a module; what it takes and returns is sent by pickle.

        Raises what it and loading raise, and LanitError where the process is ended from outside.
        """
        with self._lock:
            for fresh in (self._pipe is None, True):
                try:
                    pipe = self._opened()
                    pipe.send((work, arguments, options))
                    done, answer = pipe.recv()
                    break
                except (EOFError, OSError) as error:  # it had nothing to do for long, or was ended
                    self._forget()
                    if fresh:
                        message = "the process that CLIP reads words in was ended from outside"
                        raise LanitError(message, "It starts again when asked again; it needs about 1.5 GB.") from error
        if not done:
            raise answer
        return answer

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._forget()

    def _opened(self) -> Connection[Any, Any]:
        if self._pipe is None:
            context = get_context("spawn")
            self._pipe, there = context.Pipe()
            self._process = context.Process(
                target=_answer, args=(there, self._load, self._idle), name="clip", daemon=True
            )
            self._process.start()
            there.close()  # so that the end of the process is the end of the pipe
        return self._pipe

    def _forget(self) -> None:
        if self._pipe is not None and self._process is not None:
            self._pipe.close()
            self._process.terminate()
            self._process.join()
        self._pipe = self._process = None


def _answer(pipe: Connection[Any, Any], load: Callable[[], ClipModel], idle: float) -> None:
    """Until nothing is asked for ``idle`` seconds, or whoever asks is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal: the server decides
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    clip = None
    with contextlib.suppress(EOFError, OSError):
        while pipe.poll(idle):
            work, arguments, options = pipe.recv()
            try:
                clip = clip or load()
                answer = True, clip.run(work, *arguments, **options)
            except LanitError as error:
                answer = False, error
            except Exception as error:  # of any kind, some of which cannot be sent
                answer = False, RuntimeError("".join(traceback.format_exception(error)))
            pipe.send(answer)
