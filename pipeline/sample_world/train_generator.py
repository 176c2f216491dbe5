"""Train a generator for the package: ``python -m pipeline.sample_world.train_generator --work DIR``.

The same stages as any user's, on drawn faces of a world of its own: draw, embed with the sample CLIP, label by the
adaptive threshold, train at 32 px, and grow to 64 px. No truth is read. Interrupted, the same command continues; at the
end, or with ``--export`` at any time, the averages are written into the package at half precision. The one that is
there is older, of 32 px (docs/LOG.md, 2026-11-21).
"""

from __future__ import annotations

import argparse
from pathlib import Path

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
LONGER = {"ema": 0.999, "identity": 2.0}
"""What an hour's run may do beside its preset: average more steps, and see to it that all else stays."""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for faces, store and run")
    parser.add_argument("--small-steps", type=int, default=1500, help="at 32 px")
    parser.add_argument("--steps", type=int, default=4000, help="at 64 px")
    parser.add_argument("--faces", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", action="store_true", help="write the newest averages into the package and stop")
    given = parser.parse_args()
    if not given.export:
        _train(given.work, given.small_steps, given.steps, given.faces, given.seed)
    save_bundle(SAMPLE_MODEL, load_bundle(given.work / "run"), half=True)
    console.say(f"written: {SAMPLE_MODEL}")


def _train(work: Path, small_steps: int, steps: int, faces: int, seed: int) -> None:
    device = pick_device("auto")
    clip = load_clip("sample", device)
    if not (work / "faces" / "truth.csv").is_file():
        write_faces(work / "faces", faces, GENERATOR_SEED, 64)
    with console.progress("embedding") as advance:
        embed([work / "faces"], work / "store", clip, progress=advance)
    store = Store.open(work / "store")
    label(store, clip, read_prompt_set("sample-faces"), Rule())
    small = options_from("small-32", {"steps": small_steps, "seed": seed})
    large = options_from("small-64", {"steps": steps, "seed": seed, "grow": str(work / "run-32")} | LONGER)
    for run, options in (("run-32", small), ("run", large)):
        with console.progress(f"training at {options.size} px", "steps") as advance:
            report = train(store, work / run, options, clip, device=str(device), progress=advance)
        if report.interrupted:
            raise KeyboardInterrupt


if __name__ == "__main__":
    main()
