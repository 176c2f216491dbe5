"""Every writing command is killed at random moments, then typed again: the result must be the undisturbed one."""

from __future__ import annotations

import random
import shutil
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.breaking.parallel import each
from benchmarks.breaking.processes import Outcome, run, start
from benchmarks.breaking.results import Tree, differences, leftovers, said, table, tree
from benchmarks.breaking.world import World
from benchmarks.breaking.writing import WRITING, Writing


@dataclass(frozen=True)
class Undisturbed:
    """A command's run that nothing happened to: the files before and after it, what it printed. steady: a second run
    was equal."""

    before: Tree
    after: Tree
    printed: str
    seconds: float
    events: int
    steady: bool


@dataclass(frozen=True)
class Kill:
    """number: of the trial; case: number in WRITING; by_event: just before a change of the disk, else by the clock."""

    number: int
    case: int
    by_event: bool


@dataclass(frozen=True)
class Result:
    """killed: before it ended; midway: with files neither as before nor as after; wrong: what differs after the same
    command again; left: files half made that stayed."""

    kill: Kill
    moment: str
    killed: bool
    midway: bool
    wrong: str
    left: tuple[str, ...]


def undisturbed(world: World, case: int) -> Undisturbed:
    """Run a command twice, in two folders of their own."""
    writing = WRITING[case]
    runs = []
    for time_ in range(2):
        folder = world.trial(f"undisturbed-{case}-{time_}", writing.parts)
        before = tree(folder)
        outcome = run(writing.line, folder)
        if outcome.code:
            raise RuntimeError(f"undisturbed, lanit {writing.line} ended with {outcome.code}: {outcome.last_line}")
        runs.append((before, tree(folder), printed(writing, outcome, folder), outcome))
    before, after, text, outcome = runs[1]
    steady = text == runs[0][2] and not differences(after, runs[0][1])
    return Undisturbed(before, after, text, outcome.seconds, outcome.events, steady)


def printed(writing: Writing, outcome: Outcome, folder: Path) -> str:
    """What counts of what a command said: its JSON, where it was asked for."""
    return said(outcome.stdout, folder) if "--json" in writing.line else ""


def attempt(world: World, seed: int, references: list[Undisturbed], kill: Kill) -> Result:
    """Kill the command, type it again, compare."""
    writing, wanted = WRITING[kill.case], references[kill.case]
    chance = random.Random(f"{seed}/{kill.number}")
    folder = world.trial(f"kill-{kill.number}", writing.parts)
    if kill.by_event:
        event = chance.randint(1, wanted.events)
        moment = f"change {event} of {wanted.events}"
        outcome = start(writing.line, folder, die_at=event).wait()
    else:
        after = chance.uniform(0, wanted.seconds)
        moment = f"{after:.2f} of {wanted.seconds:.2f} s"
        running = start(writing.line, folder)
        time.sleep(after)
        running.kill()
        outcome = running.wait()
    caught = tree(folder)
    again = run(writing.line, folder)
    found = tree(folder)
    different = differences(found, wanted.after)
    if not again.code and printed(writing, again, folder) != wanted.printed:
        different.append("it prints other results")
    wrong = unlike(again, different, writing.repeats)
    left = tuple(leftovers(found))
    if not wrong and not left:
        shutil.rmtree(folder)
    midway = caught not in (wanted.before, wanted.after)
    return Result(kill, moment, outcome.code == -signal.SIGKILL, midway, wrong, left)


def unlike(again: Outcome, different: list[str], repeats: bool) -> str:
    """What is wrong after the same command again, in words; empty where nothing is."""
    if again.crashed or (again.refused and (different or repeats)):
        return f"exit {again.code}: {again.last_line}"
    return "; ".join(different[:3])


def run_part(world: World, seed: int, kills: int, jobs: int) -> bool:
    """Do ``kills``, print what became of them; whether lanit kept its promise in all."""
    references = list(each(partial(undisturbed, world), range(len(WRITING)), jobs, "undisturbed"))
    order = [
        Kill(number, number % len(WRITING), bool((number + number // len(WRITING)) % 2)) for number in range(kills)
    ]
    results = list(each(partial(attempt, world, seed, references), order, jobs, "kills"))
    rows: list[list[object]] = []
    for case, writing in enumerate(WRITING):
        of_case = [result for result in results if result.kill.case == case]
        rows.append([writing.title, *_counts(of_case), "" if references[case].steady else "not reproducible"])
    rows.append(["all", *_counts(results), ""])
    print(f"\n## Kills: {kills}, seed {seed}; then the same command again\n")
    print(table(["command", "kills", "in its work", "files midway", "equal", "left over", ""], rows))
    for result in results:
        if result.wrong or result.left:
            title = WRITING[result.kill.case].title
            print(f"- kill {result.kill.number} of {title} at {result.moment}: {result.wrong or 'equal'}"
                  f"{'; left ' + ', '.join(result.left[:3]) if result.left else ''}")  # fmt: skip
    return all(reference.steady for reference in references) and not any(r.wrong or r.left for r in results)


def _counts(results: list[Result]) -> list[object]:
    equal = sum(not result.wrong for result in results)
    return [len(results), sum(r.killed for r in results), sum(r.midway for r in results), equal,
            sum(bool(r.left) for r in results)]  # fmt: skip
