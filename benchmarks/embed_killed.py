"""`lanit embed` killed with SIGKILL at random moments, each time continued to the end, and its store compared.

    python benchmarks/embed_killed.py [--times 50] [--seed 0]

The store of an uninterrupted run is the reference; every file of the continued one must have the same bytes. Moments
are drawn over the whole run, the building of the index included. Children are forked once everything is imported, so
that no moment is spent on that.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss  # noqa: F401  (imported late otherwise, in the child)
import torch

from pipeline.clip.models import ClipModel, load_clip
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.sample_world.dataset import write_faces

IMAGES = 600
OPTIONS = EmbedOptions(batch_size=16, part_rows=64)


def contents(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def forked(work: Callable[[], object]) -> int:
    """Start a child that does ``work``; its process number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def run_to_the_end(folder: Path, store: Path, clip: ClipModel) -> float:
    began = time.perf_counter()
    child = forked(partial(embed, [folder], store, clip, OPTIONS))
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"a run that nobody killed failed: {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)  # a forked child cannot use the threads of its parent
    moments = random.Random(given.seed)
    clip = load_clip("sample")
    equal, committed, unfinished = 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_faces(root / "faces", IMAGES, 0, 64)
        (root / "faces" / "broken.png").write_bytes(b"not an image")
        seconds = run_to_the_end(root / "faces", root / "reference", clip)
        reference = contents(root / "reference")
        for number in range(given.times):
            store = root / "store"
            shutil.rmtree(store, ignore_errors=True)
            child = forked(partial(embed, [root / "faces"], store, clip, OPTIONS))
            after = moments.uniform(0, 1.05 * seconds)
            time.sleep(after)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            left = contents(store) if store.exists() else {}
            committed += "store.json" in left
            unfinished += "images/unfinished.jsonl" in left
            run_to_the_end(root / "faces", store, clip)
            same = contents(store) == reference
            equal += same
            print(f"{number + 1:3}: killed after {after:5.2f} s of {seconds:.2f}, {len(left):2} files left, "
                  f"{'the same bytes' if same else 'OTHER BYTES'}", flush=True)  # fmt: skip
    print(f"{equal} of {given.times} byte-identical; killed with an unfinished journal {unfinished}, "
          f"after the commit {committed}, before either {given.times - unfinished - committed}")  # fmt: skip
    raise SystemExit(equal != given.times)


if __name__ == "__main__":
    main()
