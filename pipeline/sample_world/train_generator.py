"""Train a generator for the package: ``python -m pipeline.sample_world.train_generator --work DIR``.

The same stages as any user's, on drawn faces of a world of its own: draw, embed with the sample CLIP, label by the
adaptive threshold, train at 32 px, grow to 64 px, and go on there by other weights. No truth is read. Interrupted, the
same command continues; at the end, or with ``--export`` once the last run has begun, the averages are written into the
package at half precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lanit.labels import Rule
from pipeline.clip.models import load_clip
from pipeline.computing.devices import pick_device
from pipeline.embedding.embed import embed
from pipeline.labelling.label import label
from pipeline.models.bundle import SAMPLE_MODEL, Bundle, load_bundle, save_bundle
from pipeline.prompts.prompt_sets import read_prompt_set
from pipeline.sample_world.dataset import write_faces
from pipeline.showing import console
from pipeline.store.store import Store
from pipeline.training.train_options import options_from
from pipeline.training.training import train

GENERATOR_SEED = 303  # its world; CLIP learned from 101, the judge from 202
LONGER = {"ema": 0.999, "identity": 2.0, "classification": 1.0}
"""What a run that begins with a good one may do beside its preset: average more steps, see to it that all else stays,
and ask less for what is recognised already."""
REAL = LONGER | {"adversarial": 2.0}
"""Then what is asked for is to look as in real images; from the start this would keep it from being learned."""
STAGES: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("run-32", "small-32", 1500, {}),
    ("run-64", "small-64", 1500, LONGER),
    ("run-styles", "small-64", 1500, REAL | {"diversity": 30.0}),
    ("run-varied", "small-64", 1000, REAL | {"diversity": 10.0}),
    ("run", "small-64", 1000, REAL | {"diversity": 15.0, "ema": 0.998, "learning_rate": 3e-4}),
)
"""Runs, each of which begins with the one before: name, preset, steps, and what differs from the preset. The third
opens the styles, and would end by painting for difference's sake; the next keeps them, and the last, at a lower rate,
draws the finer lines (docs/LOG.md, 2026-11-30)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for faces, store and run")
    parser.add_argument("--steps", type=int, nargs=len(STAGES), default=[steps for _, _, steps, _ in STAGES])
    parser.add_argument("--faces", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", action="store_true", help="write the newest averages into the package and stop")
    given = parser.parse_args()
    if not given.export:
        _train(given.work, given.steps, given.faces, given.seed)
    save_bundle(SAMPLE_MODEL, learned_in_all_runs(given.work), half=True)
    console.say(f"written: {SAMPLE_MODEL}")


def learned_in_all_runs(work: Path) -> Bundle:
    """The model of the last run; steps, images and seconds are those of all, since each began with the one before."""
    bundles = [load_bundle(work / name) for name, *_ in STAGES]
    told = {key: sum(each.training[key] for each in bundles) for key in ("steps", "images_seen", "seconds")}
    return replace(bundles[-1], training=bundles[-1].training | told)


def _train(work: Path, steps: Sequence[int], faces: int, seed: int) -> None:
    device = pick_device("auto")
    clip = load_clip("sample", device)
    if not (work / "faces" / "truth.csv").is_file():
        write_faces(work / "faces", faces, GENERATOR_SEED, 64)
    with console.progress("embedding") as advance:
        embed([work / "faces"], work / "store", clip, progress=advance)
    store = Store.open(work / "store")
    label(store, clip, read_prompt_set("sample-faces"), Rule())
    before = ""
    for (run, preset, _, settings), count in zip(STAGES, steps, strict=True):
        options = options_from(preset, settings | {"steps": count, "seed": seed, "grow": before})
        before = str(work / run)
        with console.progress(f"training {run} at {options.size} px", "steps") as advance:
            report = train(store, work / run, options, clip, device=str(device), progress=advance)
        if report.interrupted:
            raise KeyboardInterrupt


if __name__ == "__main__":
    main()
