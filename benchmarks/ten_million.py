"""Ten million rows through label, inspect, index, search and the sampler's start, on one machine.

    python -m benchmarks.ten_million [--rows 10000000] [--dim 64] [--against 1000000] [--folder DIR]
                                     [--parts words,label,inspect,flat,search,ivf,search,sampler]

Writes a store of random unit vectors (of 64 numbers, so that ten million with both indexes take 9 GB of disk; times of
reading and comparing grow with the numbers, memory hardly does), as `lanit embed` lays it out, and a CLIP with random
weights whose text tower is that of ViT-B/32. Then, each part in a process of its own: 16 prompts × 9 templates labelled
for the first time, when CLIP reads the words; labelled again, when they are known, and the report, timed apart; the
report alone; a flat and an inverted index; a search by an image in the index that was built last, cold and warm; the
labels read for a run and the sampler made, with its first batch. Seconds by the clock and of processors, and the peak
of the process. All parts run first on as many rows as --against says; memory of `label` and `inspect` on all rows is
asked to be at most 1.2 times that. What it wrote is removed at the end.
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

from benchmarks.labels_at_scale import inspect, label, result, timed, write_clip, write_store

Figures = dict[str, float]
PARTS = "words,label,inspect,flat,search,ivf,search,sampler"
COMPARED = ("label", "inspect")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--against", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--parts", default=PARTS)
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
            before = measured(folder, arguments.against, arguments.dim, parts)
        after = measured(folder, arguments.rows, arguments.dim, parts)
        for part in before:
            ratio = after[part]["mib"] / before[part]["mib"]
            asked = " (at most 1.2)" if part in COMPARED else ""
            print(f"memory of {part}, {arguments.rows:,} ÷ {arguments.against:,} rows: {ratio:.2f}{asked}")
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


def words(folder: Path) -> Figures:
    """Labelled for the first time; the words are kept, the labels are not."""
    figures = label(folder)
    shutil.rmtree(folder / "store" / "labels")
    return figures


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


TASKS = {
    "words": words,
    "label": label,
    "inspect": inspect,
    "flat": flat,
    "ivf": ivf,
    "search": search,
    "sampler": sampler,
}


if __name__ == "__main__":
    main()
