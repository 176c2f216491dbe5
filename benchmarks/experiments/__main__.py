"""Experiments on what the method is worth, on the sample world and on photographs of animals.

    python -m benchmarks.experiments run --work DIR [--data DIR]
    python -m benchmarks.experiments report --work DIR

Every arm and seed leaves one JSON file in the work folder; the same command goes on where it was stopped. The report is
Markdown. docs/LOG.md has what came out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from benchmarks.experiments.arms import ARMS
from benchmarks.experiments.plan import Plan, keep_plan
from benchmarks.experiments.report import markdown
from benchmarks.experiments.runs import jobs, run_all
from benchmarks.experiments.worlds import World, animals_world, sample_world
from lanit.errors import LanitError
from pipeline.showing import console

WORLDS = ("sample", "animals")
ANIMALS_LEFT_OUT = {"margin-drawn", "cosine", "paper-time", "paper-images", "double-rate", "float32", "poor-fixed",
                    "poor-learned"}  # fmt: skip
"""Arms that run in the sample world alone unless named: they ask about the trainer, not about the images."""


def parser() -> argparse.ArgumentParser:
    """The command line; the sizes of :class:`Plan` are options of ``run``."""
    top = argparse.ArgumentParser(prog="python -m benchmarks.experiments", description=str(__doc__).splitlines()[0])
    commands = top.add_subparsers(dest="command", required=True)
    run, report = (commands.add_parser(name) for name in ("run", "report"))
    for command in (run, report):
        command.add_argument("--work", type=Path, default=Path("experiments"))
        command.add_argument("--seeds", type=_numbers, default=(0, 1, 2), help="such as 0,1,2")
    run.add_argument("--data", type=Path, help="folder of *-train.parquet and *-test.parquet of animals; without it "
                     "the sample world alone")  # fmt: skip
    run.add_argument("--worlds", type=_names(WORLDS), default=WORLDS)
    run.add_argument("--arms", type=_names([arm.name for arm in ARMS]), help="some of the arms, by name")
    for field in fields(Plan):
        if field.name != "work":
            run.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    return top


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _names(allowed: list[str] | tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = set(names) - set(allowed)
        if unknown:
            raise argparse.ArgumentTypeError(f"'{unknown.pop()}' is none of {', '.join(allowed)}")
        return names

    return parse


def run(given: argparse.Namespace) -> None:
    plan = Plan(given.work.resolve(), **{f.name: getattr(given, f.name) for f in fields(Plan) if f.name != "work"})
    keep_plan(plan)
    worlds: dict[str, World] = {}
    if "sample" in given.worlds:
        worlds["sample"] = sample_world(plan)
    if "animals" in given.worlds:
        if given.data is not None and given.data.is_dir():
            worlds["animals"] = animals_world(plan, given.data)
        else:
            console.note(f"no folder of animals at {given.data}: that part is skipped")
    arms = given.arms or [arm.name for arm in ARMS]
    planned = [job for job in jobs(list(worlds), arms, given.seeds)
               if given.arms or job[0] == "sample" or job[1].name not in ANIMALS_LEFT_OUT]  # fmt: skip
    run_all(worlds, planned, plan)


def main() -> None:
    given = parser().parse_args()
    try:
        if given.command == "run":
            run(given)
        else:
            print(markdown(given.work, len(given.seeds)))
    except LanitError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


if __name__ == "__main__":
    main()
