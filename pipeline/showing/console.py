"""What commands show: tables on stdout, progress and remarks on stderr, one JSON object where a program reads.

Every function looks the streams up when called, so that redirection and test runners see the same. Every text is one
line, without markup, and goes through :func:`visible`: whoever names a file or writes a phrase steers no terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from pipeline.progress import Progress
from pipeline.showing.terminal_text import brief, shortened, visible
from pipeline.showing.volume import is_quiet

_PIPE_WIDTH = 120  # columns where there is no terminal to ask; tables take only what they need
_PLAIN_SECONDS = 10.0  # between two lines of progress where there is no terminal
_CELL = 1000  # characters of a cell of a table; a path may be long, but not so long


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print a table on stdout; no columns: two of them, without a header.

    The first ``left`` columns are texts, the rest numbers, set flush right and never cut short.
    """
    console = _console()
    grid = Table(show_header=bool(columns), header_style="bold", pad_edge=False, show_edge=False,
                 box=box.SIMPLE_HEAD if _unicode(console) else box.ASCII)  # fmt: skip
    for position, name in enumerate(columns or ("", "")):
        if position < left:
            grid.add_column(_text(name), overflow="fold", min_width=min(len(name), 8))
        else:
            grid.add_column(_text(name), justify="right", no_wrap=True)
    for row in rows:
        grid.add_row(*(_text(shortened(cell, _CELL)) for cell in row))
    console.print(_text(title), style="bold")
    console.print(grid)
    console.print()


def counts(title: str, entries: Mapping[str, int]) -> None:
    """Print a summary of counts, one a line; by convention the first is the sum of the others."""
    table(title, (), [(name, f"{count:,}") for name, count in entries.items()])


def say(text: str) -> None:
    """Print a line of a result on stdout."""
    _console().print(_text(text), soft_wrap=True)


def note(text: str) -> None:
    """Print a remark on stderr: a resolved setting, what is being done; nothing under ``-q``."""
    if not is_quiet():
        _console(stderr=True).print(_text(text), soft_wrap=True)


def notes(texts: Iterable[str]) -> None:
    """Print remarks on stderr, a line each."""
    for text in texts:
        note(text)


def warn(text: str) -> None:
    """Print a warning on stderr, with what it quotes shortened."""
    _console(stderr=True).print(Text.assemble(("warning:", "bold yellow"), " ", visible(brief(text))), soft_wrap=True)


def served(address: str, *, as_json: bool) -> None:
    """Say on stdout where a page can be opened: at once, though stdout is a pipe of a program that waits for it."""
    if as_json:
        sys.stdout.write(json.dumps({"address": address}) + "\n")
    else:
        say(f"Open {address} in a browser; Ctrl-C ends it.")
    sys.stdout.flush()


def print_json(data: Mapping[str, object]) -> None:
    """Print one JSON object on stdout; a non-finite number in it is a programming error."""
    text = json.dumps(data, indent=2, allow_nan=False).replace("\x7f", "\\u007f")  # the one that JSON leaves as it is
    sys.stdout.write(text + "\n")


def bar(share: float, width: int = 10) -> str:
    """A share in [0, 1] as a bar of ``width`` characters, for a table on stdout."""
    filled = round(max(0.0, min(1.0, share)) * width)
    full, empty = ("█", "░") if _unicode(_console()) else ("#", ".")
    return full * filled + empty * (width - filled)


def sparkline(counts: Sequence[int], mark: int | None = None) -> str:
    """Counts as a row of bars, the highest as high as a line; ``mark``: where among them to draw a bound."""
    levels, bound = ("▁▂▃▄▅▆▇█", "│") if _unicode(_console()) else (".:-=+*#@", "|")
    most = max(counts, default=0)
    bars = [levels[-(-count * len(levels) // most) - 1] if count else " " for count in counts]
    if mark is not None:
        bars.insert(mark, bound)
    return "".join(bars)


def percent(share: float | None) -> str:
    """A share as a percentage: "12.3 %", or "-" where there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


@contextmanager
def silent(when: bool) -> Iterator[None]:
    """Print nothing inside where ``when`` holds: of several processes one speaks."""
    with contextlib.ExitStack() as stack:
        if when:
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


@contextmanager
def progress(label: str, unit: str = "images") -> Iterator[Progress]:
    """A bar on stderr with rate and time left; plain lines, ten seconds apart, where stderr is no terminal."""
    console = _console(stderr=True)
    if is_quiet():
        yield lambda done, total, detail="": None
        return
    if not console.is_terminal:
        yield _plain_progress(label, unit)
        return
    fields = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24),
              TextColumn("{task.fields[count]}", markup=False), TimeRemainingColumn())  # fmt: skip
    with Bars(*fields, console=console, transient=True) as shown:
        task = shown.add_task(visible(label), total=None, count="")
        started: list[tuple[float, int]] = []

        def advance(done: int, total: int, detail: str = "") -> None:
            if not started or done < started[0][1]:  # a second count, such as steps after images, starts anew
                started[:] = [(time.monotonic(), done)]
            count = f"{done:,}/{total:,} {_rate(*started[0], done, unit)} {detail}".rstrip()
            shown.update(task, completed=done, total=max(total, 1), count=visible(count))

        yield advance


def _plain_progress(label: str, unit: str) -> Progress:
    started: list[tuple[float, int]] = []
    last = [time.monotonic()]

    def advance(done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        if not started or done < started[0][1]:
            started[:] = [(now, done)]
        if now - last[0] >= _PLAIN_SECONDS:
            last[0] = now
            since, first = started[0]
            per_second = (done - first) / (now - since) if now > since else 0.0
            left = f", {_clock((total - done) / per_second)} left" if per_second > 0 else ""
            rest = f"{left}; {detail}" if detail else left
            note(f"{label}: {done:,} of {total:,} {unit}{_rate(since, first, done, unit, ', ')}{rest}")

    return advance


def _rate(since: float, first: int, done: int, unit: str, before: str = "") -> str:
    seconds = time.monotonic() - since
    return f"{before}{(done - first) / seconds:.1f} {unit}/s" if done > first and seconds > 0 else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _text(text: str) -> Text:
    return Text(visible(text))


def _console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(file=stream, width=wide, emoji=False)


def _unicode(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")
