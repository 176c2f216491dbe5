"""Experiments on what the method is worth, on drawn faces and on photographs.

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

from benchmarks.experiments.arms import ARMS, Arm
from benchmarks.experiments.plan import Plan, keep_plan
from benchmarks.experiments.report import markdown
from benchmarks.experiments.runs import jobs, run_all
from benchmarks.experiments.worlds import WORLDS, World, sample_world
from lanit.errors import LanitError
from pipeline.showing import console

LEFT_OUT = {
    "margin-drawn", "cosine", "paper-time", "paper-images", "double-rate", "float32", "poor-fixed", "poor-learned",
    "poor-unguided", "poor-lazy", "poor-fill-5", "poor-fill-20", "lazy", "no-domain-fill-5", "no-domain-fill-20",
}  # fmt: skip
"""Arms that run in the sample world alone unless named: they ask about the trainer, not about the images."""
_NAMES = ("sample", *WORLDS)


def parser() -> argparse.ArgumentParser:
    """The command line; the sizes of :class:`Plan` are options of ``run``."""
    top = argparse.ArgumentParser(prog="python -m benchmarks.experiments", description=str(__doc__).splitlines()[0])
    commands = top.add_subparsers(dest="command", required=True)
    run, report = (commands.add_parser(name) for name in ("run", "report"))
    for command in (run, report):
        command.add_argument("--work", type=Path, default=Path("experiments"))
        command.add_argument("--seeds", type=_numbers, default=(0, 1, 2), help="such as 0,1,2")
    run.add_argument("--data", type=Path, help="folder of the tables of animals and of CelebA; without it the sample "
                     "world alone")  # fmt: skip
    run.add_argument("--worlds", type=_names(_NAMES), default=_NAMES)
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
    worlds = {"sample": sample_world(plan)} if "sample" in given.worlds else {}
    for name in (each for each in WORLDS if each in given.worlds):
        if given.data is not None and given.data.is_dir():
            worlds[name] = WORLDS[name](plan, given.data)
        else:
            console.note(f"no folder of photographs at {given.data}: {name} is skipped")
    arms = given.arms or [arm.name for arm in ARMS]
    planned = [
        (name, arm, seed)
        for name, arm, seed in jobs(list(worlds), arms, given.seeds)
        if (given.arms or name == "sample" or arm.name not in LEFT_OUT) and can_run(worlds[name], arm)
    ]
    run_all(worlds, planned, plan)


def can_run(world: World, arm: Arm) -> bool:
    """Whether the world has words enough."""
    return arm.of_clusters or arm.domains <= len(world.domains)


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
