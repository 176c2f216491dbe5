"""Every writing command on a disk that is too small for it, then with room: one line, then the undisturbed result."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.breaking.kills import printed, unlike
from benchmarks.breaking.parallel import each
from benchmarks.breaking.processes import run, start
from benchmarks.breaking.results import Tree, differences, leftovers, table, tree
from benchmarks.breaking.world import World, fill
from benchmarks.breaking.writing import WRITING

SHARES = (0.0, 0.2, 0.45, 0.7, 0.95)
"""Of what a command needs beyond what is there: the sizes that are tried."""
_ROOMY = "512m"


@dataclass(frozen=True)
class Need:
    """An undisturbed run. used: bytes before it; peak: the most in it; after, printed: what it left and said."""

    used: int
    peak: int
    after: Tree
    printed: str


@dataclass(frozen=True)
class Result:
    """first: how it ended on the small disk: ``one line``, ``fits`` or what else; wrong: what differs after the same
    command with room; left: files half made that stayed."""

    case: int
    share: float
    first: str
    wrong: str
    left: tuple[str, ...]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A tmpfs of ``size`` in ``folder``. Raises CalledProcessError where it cannot be mounted."""
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "lanit", str(folder)], check=True, capture_output=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def resize(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def can_mount(root: Path) -> bool:
    """Whether this user may mount a tmpfs here."""
    if shutil.which("mount") is None:
        return False
    try:
        with small_disk(root / "mountable", "64k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def need(world: World, case: int) -> Need:
    """Run a command on a large disk, watching how full it gets."""
    writing, folder = WRITING[case], world.root / f"need-{case}"
    with small_disk(folder, _ROOMY):
        fill(folder, world.root / "a", writing.parts)
        used = peak = _used(folder)
        running = start(writing.line, folder)
        while running.alive:
            peak = max(peak, _used(folder))
            time.sleep(0.001)
        outcome = running.wait()
        if outcome.code:
            raise RuntimeError(f"undisturbed, lanit {writing.line} ended with {outcome.code}: {outcome.last_line}")
        return Need(used, max(peak, _used(folder)), tree(folder), printed(writing, outcome, folder))


def _used(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def attempt(world: World, needs: list[Need], trial: tuple[int, float]) -> Result:
    """Run a command on the small disk, then with room, and compare."""
    case, share = trial
    writing, wanted = WRITING[case], needs[case]
    folder = world.root / f"full-{case}-{share}"
    size = wanted.used + share * (wanted.peak - wanted.used)
    with small_disk(folder, _ROOMY):
        fill(folder, world.root / "a", writing.parts)
        resize(folder, f"{max(int(size) // 4096, 1) * 4}k")
        outcome = run(writing.line, folder)
        if outcome.crashed:
            first = f"exit {outcome.code}: {outcome.last_line}"
        else:
            first = "one line" if outcome.refused else "fits"
        resize(folder, _ROOMY)
        again = run(writing.line, folder)
        found = tree(folder)
        different = differences(found, wanted.after)
        if not again.code and printed(writing, again, folder) != wanted.printed:
            different.append("it prints other results")
    wrong = unlike(again, different, writing.repeats)
    return Result(case, share, first, wrong, tuple(leftovers(found)))


def run_part(world: World, sizes: int, jobs: int) -> bool:
    """Every command at ``sizes`` of the shares, print what became of it; whether lanit kept its promise in all."""
    if not can_mount(world.root):
        print("\n## Full disk: not tried, mounting a tmpfs needs root\n")
        return True
    needs = list(each(partial(need, world), range(len(WRITING)), jobs, "needs"))
    trials = [(case, share) for case in range(len(WRITING)) for share in SHARES[(len(SHARES) - sizes) // 2 :][:sizes]]
    results = list(each(partial(attempt, world, needs), trials, jobs, "full disks"))
    rows: list[list[object]] = []
    for case, writing in enumerate(WRITING):
        grown = (needs[case].peak - needs[case].used) / 1e3
        rows.append([writing.title, f"{grown:.0f}", *_counts([result for result in results if result.case == case])])
    rows.append(["all", "", *_counts(results)])
    print(f"\n## Full disk: {len(results)} runs, then room and the same command again\n")
    print(table(["command", "needs kB", "runs", "one line", "fits", "other", "then equal", "left over"], rows))
    wrong = [result for result in results if _is_wrong(result)]
    for result in wrong:
        print(f"- {WRITING[result.case].title} with {100 * result.share:.0f} % of what it needs: {result.first}; then "
              f"{result.wrong or 'equal'}{'; left ' + ', '.join(result.left[:3]) if result.left else ''}")  # fmt: skip
    return not wrong


def _is_wrong(result: Result) -> bool:
    return result.first not in ("one line", "fits") or bool(result.wrong or result.left)


def _counts(results: list[Result]) -> list[object]:
    firsts = [result.first for result in results]
    one_line, fits = firsts.count("one line"), firsts.count("fits")
    equal = sum(not result.wrong for result in results)
    return [len(results), one_line, fits, len(results) - one_line - fits, equal, sum(bool(r.left) for r in results)]
