"""What it costs to say how stable labels are, and to choose among templates.

    python -m benchmarks.stability_cost [--rows 1000000] [--dim 512] [--rounds 5] [--folder DIR]

Writes the store and the CLIP of ``labels_at_scale`` (random unit vectors; random weights whose text tower is that of
ViT-B/32) and keeps two crops of 1 000 of its images beforehand, so that neither of a pair embeds any. Then in turn,
each in a process of its own: the store labelled without κ, with it, and with it where other templates are compared
too, as by default on labels that could be more stable. At last a choice among 30 templates for 16 phrases, on that
CLIP and on the sample CLIP. Seconds are those of the clock and of processors, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labels_at_scale import PROMPTS, TEMPLATES, result, timed, write_clip, write_store

_LONG = "a large photo of a face with {} here."  # 30 candidates: what deleting a run of words leaves, and two
_CHOICE = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.task:
        task, _, argument = asked.task.partition(":")
        print(json.dumps({"label": label, "choose": choose}[task](asked.folder, argument)))
        return
    folder = Path(tempfile.mkdtemp(prefix="lanit-cost-", dir=asked.folder))
    try:
        write_clip(folder / "clip", asked.dim)
        write_store(folder / "store", folder / "clip", asked.rows, asked.dim)
        compare(folder, asked.rounds)
    finally:
        shutil.rmtree(folder)


def compare(folder: Path, rounds: int) -> None:
    ways = ("without", "shown", "compared")
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            keep_views(folder / "store", stable=way != "compared")
            shutil.rmtree(folder / "store" / "labels", ignore_errors=True)
            found[way].append(run(f"label:{way}", folder))
            last = found[way][-1]
            print(f"{way}: {last['label']:.2f} s, {last['label processors']:.2f} s of processors", flush=True)
    for kind in ("label", "label processors"):
        for way in ways:
            ratios = [a[kind] / b[kind] for a, b in zip(found[way], found["without"], strict=True)]
            each = " ".join(f"{ratio:.3f}" for ratio in ratios)
            middle = statistics.median(one[kind] for one in found[way])
            print(f"{kind:18}{way:10}{middle:7.2f} s   ÷ without {statistics.median(ratios):.3f} ({each})")
    for clip in ("vit-b-32", "sample"):
        runs = [run(f"choose:{clip}", folder) for _ in range(rounds)]
        seconds, processors = (statistics.median(one[k] for one in runs) for k in ("choose", "choose processors"))
        print(f"choice among {runs[0]['templates']:.0f}, {clip}: {seconds:.2f} s, {processors:.2f} s of processors")
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")


def run(task: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.stability_cost", "--task", task, "--folder", str(folder)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def keep_views(root: Path, *, stable: bool) -> None:
    """Random crops of the images of the smallest ids; both the same where ``stable``, so that κ is 1."""
    from pipeline.stability.views import MOST_IMAGES, views_dtype, views_path
    from pipeline.store.caches import keep_array
    from pipeline.store.store import Store

    store, rng = Store.open(root), np.random.default_rng(1)
    ids = np.sort(store.images(["image_id"])["image_id"].to_numpy().astype("S16"))[:MOST_IMAGES]
    records = np.empty(len(ids), views_dtype(store.embedding_dim))
    records["image_id"], records["sha256"] = ids, ids
    crops = rng.standard_normal(records["crops"].shape, dtype=np.float32)
    if stable:
        crops[:, 1] = crops[:, 0]
    records["crops"] = crops / np.linalg.norm(crops, axis=2, keepdims=True)
    assert keep_array(views_path(store), records)


def prompts_of(templates: int) -> Any:
    from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set

    known = read_prompt_set(PROMPTS)
    return PromptSet(known.domains, known.templates[:templates], known.bases[:templates], known.name)


def label(folder: Path, way: str) -> dict[str, float]:
    from lanit.rules import Rule
    from pipeline.clip.models import load_clip
    from pipeline.inspection.label_report import label_and_report
    from pipeline.stability.views import Stabilise
    from pipeline.store.store import Store

    store, clip, figures = Store.open(folder / "store"), load_clip(str(folder / "clip")), dict[str, float]()
    stabilise = Stabilise(views=way != "without")
    with timed(figures, "label"):
        report = label_and_report(store, clip, prompts_of(TEMPLATES), Rule(), stabilise=stabilise)
    assert (report.statistics.stability is not None) == (way != "without")
    assert (report.templates is not None) == (way == "compared")
    return result(**figures)


def choose(folder: Path, which: str) -> dict[str, float]:
    from dataclasses import replace

    from lanit.rules import Rule
    from lanit.sentences import without_phrase
    from pipeline.clip.models import load_clip
    from pipeline.stability.choices import compare_templates
    from pipeline.stability.views import Views

    clip = load_clip("sample" if which == "sample" else str(folder / "clip"))
    rng, dim = np.random.default_rng(2), clip.embedding_dim
    crops = rng.standard_normal((2, 1000, dim), dtype=np.float32)
    views = Views(crops / np.linalg.norm(crops, axis=2, keepdims=True), "random")
    prompts = replace(prompts_of(1), templates=(_LONG,), bases=(without_phrase(_LONG),))
    figures = dict[str, float]()
    with timed(figures, "choose"):
        choice = compare_templates(views, clip, prompts, Rule())
    assert len(choice.candidates) >= _CHOICE
    return result(templates=len(choice.candidates), **figures)


if __name__ == "__main__":
    main()
