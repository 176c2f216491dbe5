"""Tries to break lanit: damaged files, kills, full disks, two writers at once, hints typed as they stand.

    python -m benchmarks.breaking [corruptions kills full writers hints] [--quick] [--seed 0]

Each part prints a Markdown table with its counts; the exit status is 1 where a promise was broken. Nothing but a
temporary folder is written to. Linux: commands are forked from one process that has imported everything.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.breaking import corruptions, full_disk, hints, kills, writers
from benchmarks.breaking.hub import local_hub
from benchmarks.breaking.processes import warm
from benchmarks.breaking.world import World, build, shrink_parts
from benchmarks.breaking.writing import WRITING

PARTS: dict[str, Callable[[World, argparse.Namespace], bool]] = {
    "corruptions": lambda world, given: corruptions.run_part(world, given.seed, given.corruptions, given.jobs),
    "kills": lambda world, given: kills.run_part(world, given.seed, given.kills, given.jobs),
    "full": lambda world, given: full_disk.run_part(world, 1 if given.quick else 5, given.jobs),
    "writers": lambda world, given: writers.run_part(world, 10 if given.quick else None, given.jobs),
    "hints": lambda world, given: hints.run_part(world, 30 if given.quick else None, given.jobs),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a sample of each, in about two minutes")
    parser.add_argument("--corruptions", type=int, help="how many at least  [default: 420, or 60]")
    parser.add_argument("--kills", type=int, help="how many  [default: 216, or 27]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="trials at once")
    parser.add_argument("--work", type=Path, help="folder for the world, which stays, and trials that went wrong")
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}; choose from {', '.join(PARTS)}")
    given.corruptions = given.corruptions or (60 if given.quick else 420)
    given.kills = given.kills or (len(WRITING) if given.quick else 8 * len(WRITING))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        work = (given.work or Path(name)).resolve()
        with local_hub(work / "hub-cache"):
            warm()
            shrink_parts()
            world = build(work / "world")
            print(f"world made, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
            kept = [PARTS[part](world, given) for part in given.parts or PARTS]
    print(f"\n{time.perf_counter() - began:.0f} s, seed {given.seed}")
    raise SystemExit(not all(kept))


if __name__ == "__main__":
    main()
