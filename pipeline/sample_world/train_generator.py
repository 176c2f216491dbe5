"""Train a generator for the package: ``python -m pipeline.sample_world.train_generator --work DIR``.

The same stages as any user's, on drawn faces of a world of its own: draw, embed with the sample CLIP, label by the
adaptive threshold, train at 32 px, grow to 64 px, and finish there. No truth is read. Interrupted, the same command
continues; at the end, or with ``--export`` at any time, the averages are written into the package at half precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lanit.labels import Rule
from pipeline.clip.models import load_clip
from pipeline.computing.devices import pick_device
from pipeline.embedding.embed import embed
from pipeline.labelling.label import label
from pipeline.models.bundle import SAMPLE_MODEL, load_bundle, save_bundle
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
FINISH = LONGER | {"adversarial": 2.0, "diversity": 30.0}
"""Then what is asked for is to look as in real images, and to differ between styles; from the start these would keep
it from being learned (docs/LOG.md, 2026-11-30)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for faces, store and run")
    parser.add_argument("--small-steps", type=int, default=1500, help="at 32 px")
    parser.add_argument("--steps", type=int, default=1500, help="at 64 px")
    parser.add_argument("--finish-steps", type=int, default=3500, help="at 64 px, by the weights of the end")
    parser.add_argument("--faces", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", action="store_true", help="write the newest averages into the package and stop")
    given = parser.parse_args()
    if not given.export:
        _train(given.work, (given.small_steps, given.steps, given.finish_steps), given.faces, given.seed)
    save_bundle(SAMPLE_MODEL, load_bundle(given.work / "run"), half=True)
    console.say(f"written: {SAMPLE_MODEL}")


def _train(work: Path, steps: tuple[int, int, int], faces: int, seed: int) -> None:
    device = pick_device("auto")
    clip = load_clip("sample", device)
    if not (work / "faces" / "truth.csv").is_file():
        write_faces(work / "faces", faces, GENERATOR_SEED, 64)
    with console.progress("embedding") as advance:
        embed([work / "faces"], work / "store", clip, progress=advance)
    store = Store.open(work / "store")
    label(store, clip, read_prompt_set("sample-faces"), Rule())
    stages: list[tuple[str, str, dict[str, Any]]] = [
        ("run-32", "small-32", {}),
        ("run-64", "small-64", LONGER | {"grow": str(work / "run-32")}),
        ("run", "small-64", FINISH | {"grow": str(work / "run-64")}),
    ]
    for (run, preset, settings), count in zip(stages, steps, strict=True):
        options = options_from(preset, settings | {"steps": count, "seed": seed})
        with console.progress(f"training {run} at {options.size} px", "steps") as advance:
            report = train(store, work / run, options, clip, device=str(device), progress=advance)
        if report.interrupted:
            raise KeyboardInterrupt


if __name__ == "__main__":
    main()
