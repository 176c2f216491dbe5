"""Does agreement of two crops choose templates and offsets well on photographs? Scored by their true labels.

    python -m benchmarks.photographs --work DIR --data DIR [--seed 0] [--worlds faces animals] [--qualities short …]

data: the folder of the CelebA and the animal tables. Small CLIPs of three qualities are trained on captions of one half
of the photographs, for this purpose; the other half is labelled. Templates, phrases, seeds and margins are those of
``worlds.py``. What the agreement of two crops of 1 000 photographs says is scored by macro F1 on all others, for each
of four such samples. The folder is kept, so that the same command goes on; ``--train`` stops after the CLIPs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.photographs import worlds
from benchmarks.photographs.figures import Case, measure, show

QUALITIES = ("short", "medium", "long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worlds", nargs="*", choices=(worlds.FACES, worlds.ANIMALS),
                        default=[worlds.FACES, worlds.ANIMALS])  # fmt: skip
    parser.add_argument("--qualities", nargs="*", choices=QUALITIES, default=list(QUALITIES))
    parser.add_argument("--train", action="store_true")
    asked = parser.parse_args()
    made = {worlds.FACES: worlds.faces, worlds.ANIMALS: worlds.animals}
    cases: list[Case] = []
    for name in asked.worlds:
        world = made[name](asked.data)
        for quality in asked.qualities:
            stored = worlds.stored(world, asked.work, quality, asked.seed)
            if not asked.train:
                cases += measure(world, quality, stored)
    if cases:
        show(cases)


if __name__ == "__main__":
    main()
