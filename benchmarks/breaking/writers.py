"""Two commands at once on one folder: one gets a line or waits, and what is there they would have made in turn."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import partial

from benchmarks.breaking.parallel import each
from benchmarks.breaking.processes import Outcome, run, start
from benchmarks.breaking.results import Tree, differences, leftovers, table, tree
from benchmarks.breaking.world import World
from benchmarks.breaking.writing import Meeting, meetings

DELAYS = (0.02, 0.35, 0.7)
"""Of the first command's time, after which the second starts."""


@dataclass(frozen=True)
class Turns:
    """What may come out of a meeting. both: after the two in turn, either way; first, second: after one alone.

    seconds: that the first takes.
    """

    both: tuple[Tree, ...]
    first: Tree
    second: Tree
    seconds: float


@dataclass(frozen=True)
class Result:
    """happened: how the two ended; wrong: empty where all is well."""

    meeting: int
    delay: float
    happened: str
    wrong: str


def turns(world: World, meeting: Meeting, number: int) -> Turns:
    """The commands of a meeting alone, and in turn."""
    both, alone, seconds = [], [], 0.0
    for way, lines in enumerate(((meeting.first, meeting.second), (meeting.second, meeting.first))):
        folder = world.trial(f"turns-{number}-{way}", meeting.parts)
        outcome = run(lines[0], folder)
        if outcome.code:
            raise RuntimeError(f"undisturbed, lanit {lines[0]} ended with {outcome.code}: {outcome.last_line}")
        seconds = seconds or outcome.seconds
        alone.append(tree(folder))
        run(lines[1], folder)
        both.append(tree(folder))
        shutil.rmtree(folder)
    return Turns(tuple(both), alone[0], alone[1], seconds)


def attempt(world: World, trial: tuple[int, Meeting]) -> list[Result]:
    """Let two commands meet, at each of the delays."""
    number, meeting = trial
    wanted, results = turns(world, meeting, number), []
    for delay in DELAYS:
        folder = world.trial(f"meeting-{number}-{delay}", meeting.parts)
        first = start(meeting.first, folder)
        time.sleep(delay * wanted.seconds)
        second = start(meeting.second, folder)
        outcomes = first.wait(), second.wait()
        wrong = _wrong(*outcomes, tree(folder), wanted)
        results.append(Result(number, delay, " and ".join(map(_ended, outcomes)), wrong))
        if not wrong:
            shutil.rmtree(folder)
    return results


def _ended(outcome: Outcome) -> str:
    return "crashed" if outcome.crashed else "refused" if outcome.refused else "done"


def _wrong(first: Outcome, second: Outcome, found: Tree, wanted: Turns) -> str:
    for outcome in (first, second):
        if outcome.crashed:
            return f"exit {outcome.code}: {outcome.last_line}"
    if first.refused and second.refused:
        return f"neither was let in: {first.last_line} / {second.last_line}"
    allowed = list(wanted.both)
    if second.refused:
        allowed.append(wanted.first)
    if first.refused:
        allowed.append(wanted.second)
    nearest = min((differences(found, each_) for each_ in allowed), key=len)
    return "; ".join([*nearest[:3], *(f"{name} (left over)" for name in leftovers(found)[:2])])


def run_part(world: World, pairs: int | None, jobs: int) -> bool:
    """Every meeting, or ``pairs`` of them; print what became of them; whether lanit kept its promise in all."""
    all_ = list(enumerate(meetings()))
    chosen = all_ if pairs is None else all_[:: max(len(all_) // pairs, 1)]
    results = [result for found in each(partial(attempt, world), chosen, jobs, "meetings") for result in found]
    rows: list[list[object]] = []
    named = dict(all_)
    for happened in sorted({result.happened for result in results}):
        alike = [result for result in results if result.happened == happened]
        rows.append([happened, len(alike), sum(not result.wrong for result in alike)])
    rows.append(["all", len(results), sum(not result.wrong for result in results)])
    print(f"\n## Two at once: {len(chosen)} pairs, {len(DELAYS)} delays each\n")
    print(table(["first and second", "meetings", "right"], rows))
    for result in results:
        if result.wrong:
            meeting = named[result.meeting]
            print(f"- `{_short(meeting.first)}`, after {100 * result.delay:.0f} % `{_short(meeting.second)}`: "
                  f"{result.happened}: {result.wrong}")  # fmt: skip
    return not any(result.wrong for result in results)


def _short(line: str) -> str:
    return line if len(line) < 90 else f"{line[:60]} … {line[-28:]}"
