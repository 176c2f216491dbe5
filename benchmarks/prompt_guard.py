"""Does the agreement of two crops say when learned prompts are at their best, and what is a run that stops by it worth?

    python -m benchmarks.prompt_guard --work DIR --seeds 9 --arms fast --keep last

Trains on drawn faces with templates that mislead, and with a good one, while prompts are learned as the paper has it
(METHOD 13 to 15). Each refresh is scored by κ of two crops and by macro F1 against the truth. ``--keep last`` is the
paper's, ``--keep stable`` guarded; a guarded run ends as soon as its prompts are settled, after which its labels change
no more. The folder is kept, so that the same command goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from benchmarks.stable_templates import of_template, stored, truth_of
from lanit.labels import Rule
from pipeline.clip.models import load_clip
from pipeline.labelling.label import label
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
from pipeline.sample_world.dataset import write_faces
from pipeline.stability.agreements import label_views
from pipeline.stability.crops import make_views
from pipeline.training.learner import FALLS
from pipeline.training.train_options import options_from
from pipeline.training.training import train

GRAY, BANGS, GOOD = (
    "a face with gray hair and {}.",
    "a face with bangs and eyeglasses and {}.",
    "a face with {}.",
)


@dataclass(frozen=True)
class Arm:
    """template: of the labels. rate: of the prompts. begins: share of the steps from which they learn."""

    template: str
    rate: float
    begins: float


ARMS = {
    "gray": Arm(GRAY, 2e-4, 0.5),
    "gray-fast": Arm(GRAY, 1e-3, 0.5),
    "bangs-early": Arm(BANGS, 1e-3, 0.3),
    "good": Arm(GOOD, 2e-4, 0.5),
    "good-fast": Arm(GOOD, 1e-3, 0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--keep", choices=("stable", "last"), default="stable")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--faces", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=8)
    asked = parser.parse_args()
    clip, phrases = load_clip("sample"), read_prompt_set("sample-faces")
    for seed in asked.seeds:
        for name in asked.arms:
            path = asked.work / f"{name}-{seed}-{asked.keep}.json"
            if not path.is_file():
                found = run(asked, name, seed, clip, phrases)
                path.write_text(json.dumps(found))
            show(name, seed, json.loads(path.read_text()))
    summary(asked)


def run(asked: argparse.Namespace, name: str, seed: int, clip: Any, phrases: PromptSet) -> dict[str, Any]:
    arm = ARMS[name]
    folder = asked.work / f"faces-{seed}"
    write_faces(folder / "faces", asked.faces, seed, 64)
    store, truth = stored(folder, clip), truth_of(folder, phrases)
    views = make_views(store, clip)
    prompts = of_template(phrases, arm.template)
    revision = label(store, clip, prompts, Rule()).revision
    settings = {
        "steps": asked.steps, "seed": seed, "channels": 16, "max_channels": 32, "batch_size": asked.batch_size,
        "prompts_from": arm.begins, "prompt_learning_rate": arm.rate, "refresh_every": 10, "keep_prompts": asked.keep,
        "sample_every": 0, "checkpoint_every": 0, "evaluate_every": 0, "evaluate_images": 8, "keep": 1,
    }  # fmt: skip
    begun, out = time.monotonic(), folder / f"run-{name}-{asked.keep}"
    shutil.rmtree(out, ignore_errors=True)

    def ends_once_settled(done: int, planned: int) -> None:
        if asked.keep == "stable" and [line["kept"] for line in refreshes_of(out)[-FALLS:]] == [False] * FALLS:
            raise Settled

    with contextlib.suppress(Settled):
        options = options_from("small-32", settings)
        train(store, out, options, clip, revision=revision, device="cpu", progress=ends_once_settled)
    refreshes = refreshes_of(out)
    numbers = {0: revision} | {line["step"]: line["label_revision"] for line in refreshes}
    found: list[dict[str, Any]] = []
    for step, number in numbers.items():
        labels = store.labels(number)
        embedded = embed_prompts(clip, labels.prompt_set)
        scores = [each.score for each in label_views(views, embedded, Rule()).agreements()]
        each = f1_score(truth, labels.active, average=None, zero_division=0)
        found.append({"step": step, "kappa": float(np.mean(scores)), "f1": float(np.mean(each)), "kappas": scores,
                      "f1s": each.tolist()})  # fmt: skip
    final = store.labels(numbers[max(numbers)]).active
    return {
        "refreshes": found, "start": found[0]["f1"], "seconds": round(time.monotonic() - begun),
        "end": float(f1_score(truth, final, average="macro", zero_division=0)),
    }  # fmt: skip


class Settled(Exception):
    """Nothing that the run would still do changes its labels."""


def refreshes_of(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "refresh"]


def show(name: str, seed: int, found: dict[str, Any]) -> None:
    print(f"\n{name}, seed {seed}: F1 {found['start']:.3f} → {found['end']:.3f} ({found['seconds']} s)")
    for line in found["refreshes"]:
        print(f"  step {line['step']:4} κ {line['kappa']:.4f} F1 {line['f1']:.4f}", flush=True)


def summary(asked: argparse.Namespace) -> None:
    """F1 at the end minus at the start, of each arm over the seeds."""
    print(f"\n| arm | seeds | F1 at the start | change: least | mean | most |\n|{'---|' * 6}")
    for name in asked.arms:
        results = [json.loads((asked.work / f"{name}-{s}-{asked.keep}.json").read_text()) for s in asked.seeds]
        changes = [each["end"] - each["start"] for each in results]
        start = np.mean([each["start"] for each in results])
        print(f"| {name} | {len(changes)} | {start:.3f} | {min(changes):+.4f} | {np.mean(changes):+.4f} | "
              f"{max(changes):+.4f} |")  # fmt: skip


if __name__ == "__main__":
    main()
