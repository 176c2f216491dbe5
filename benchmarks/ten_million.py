"""Ten million rows through label, inspect, index, search and the sampler's start, on one machine.

    python -m benchmarks.ten_million [--rows 10000000] [--dim 64] [--against 1000000] [--folder DIR]
                                     [--parts label,inspect,flat,search,ivf,search,sampler]

Writes a store of random unit vectors (of 64 numbers, so that ten million with both indexes take 9 GB of disk; times of
reading and comparing grow with the numbers, memory hardly does), as `lanit embed` lays it out, and a CLIP with random
weights whose text tower is that of ViT-B/32. Then, each part in a process of its own: 16 prompts × 9 templates labelled
with the report; the report on the revision; a flat and an inverted index; a search by an image in the index that was
built last, cold and warm; the labels read for a run and the sampler made, with its first batch. Seconds by the clock
and of processors, and the peak of the process. `label` and `inspect` run first on as many rows as --against says; their
memory on all rows is asked to be at most 1.2 times that. What it wrote is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.labels_at_scale import PROMPTS, TEMPLATES, result, timed, write_clip, write_store

Figures = dict[str, float]
COMPARED = ("label", "inspect")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--against", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--parts", default="label,inspect,flat,search,ivf,search,sampler")
    parser.add_argument("--task", choices=sorted(TASKS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(TASKS[arguments.task](arguments.folder)))
        return
    folder = Path(tempfile.mkdtemp(prefix="lanit-rows-", dir=arguments.folder))
    parts = arguments.parts.split(",")
    print(f"{arguments.dim} numbers each, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    try:
        write_clip(folder / "clip", arguments.dim)
        before = {}
        if arguments.against:
            before = measured(folder, arguments.against, arguments.dim, [part for part in parts if part in COMPARED])
        after = measured(folder, arguments.rows, arguments.dim, parts)
        for part in before:
            ratio = after[part]["mib"] / before[part]["mib"]
            print(f"memory of {part}, {arguments.rows:,} ÷ {arguments.against:,} rows: {ratio:.2f} (at most 1.2)")
    finally:
        shutil.rmtree(folder)


def measured(folder: Path, rows: int, dim: int, parts: list[str]) -> dict[str, Figures]:
    """The last figures of each part, on a store that is gone afterwards."""
    write_store(folder / "store", folder / "clip", rows, dim)
    print(f"{rows:,} rows, {size(folder / 'store') / 1e9:.2f} GB", flush=True)
    found: dict[str, Figures] = {}
    for part in parts:
        command = [sys.executable, "-m", "benchmarks.ten_million", "--task", part, "--folder", str(folder)]
        found[part] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        seconds = ", ".join(f"{name} {value:.2f} s" for name, value in found[part].items() if name != "mib")
        print(f"{part:8} {seconds}; peak {found[part]['mib']:,.0f} MiB", flush=True)
    shutil.rmtree(folder / "store")
    return found


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------- tasks, each in its own process


def label(folder: Path) -> Figures:
    from lanit.rules import Rule
    from pipeline.clip.models import load_clip
    from pipeline.inspection.label_report import label_and_report
    from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
    from pipeline.store.store import Store

    store, clip, built_in = Store.open(folder / "store"), load_clip(str(folder / "clip")), read_prompt_set(PROMPTS)
    prompts = PromptSet(built_in.domains, built_in.templates[:TEMPLATES], built_in.bases[:TEMPLATES], built_in.name)
    figures: Figures = {}
    with timed(figures, "label"):
        label_and_report(store, clip, prompts, Rule())
    return result(**figures)


def inspect(folder: Path) -> Figures:
    from pipeline.inspection.inspect_labels import inspect_labels
    from pipeline.store.store import Store

    figures: Figures = {}
    with timed(figures, "inspect"):
        inspect_labels(Store.open(folder / "store").revision_file())
    return result(**figures)


def flat(folder: Path) -> Figures:
    return _indexed(folder, "flat")


def ivf(folder: Path) -> Figures:
    return _indexed(folder, "ivf")


def _indexed(folder: Path, kind: str) -> Figures:
    from pipeline.store.index import rebuild_index
    from pipeline.store.store import Store

    figures: Figures = {}
    with timed(figures, kind):
        rebuild_index(Store.open(folder / "store"), kind)  # type: ignore[arg-type]
    return result(**figures)


def search(folder: Path) -> Figures:
    from pipeline.searching.search import nearest_rows
    from pipeline.store.index import open_index
    from pipeline.store.store import Store

    figures: Figures = {}
    with timed(figures, "opened"):
        store = Store.open(folder / "store")
        index = open_index(store)
    query = store.embeddings_of(np.array([store.ok // 2]))[0]
    for name in ("first", "again"):
        with timed(figures, name):
            assert nearest_rows(store, index, query, 20, None)[1][0] == store.ok // 2
    return result(**figures)


def sampler(folder: Path) -> Figures:
    from pipeline.store.store import Store
    from pipeline.training.sampling import LabelSampler

    figures: Figures = {}
    with timed(figures, "labels"):
        labels = Store.open(folder / "store").labels_to_train().read()
    with timed(figures, "sampler"):
        LabelSampler(labels.active, "domain", "domain").draw(np.random.default_rng(0), 16)
    return result(**figures)


TASKS = {"label": label, "inspect": inspect, "flat": flat, "ivf": ivf, "search": search, "sampler": sampler}


if __name__ == "__main__":
    main()
