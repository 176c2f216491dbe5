"""What one process of a Ray cluster can plan and keep: rows a second of the driver where it writes every part, and
where processes write them.

    python -m benchmarks.ray_driver [--rows 1000000] [--dim 512] [--rounds 3] [--folder DIR]

There is no cluster: tasks are done here, by a worker that gives every image a random embedding at once, and the time
of that, of handing tasks out (which Ray does in another process) and of pickling is taken off. What is left is the
driver's: listing, unpickling what comes back, counting, writing, the journal and the commit. Both stores must be the
same, byte for byte. Rows by seconds of processors, medians of rounds in turn; so fast does a cluster have to be before
the driver limits it.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import pickle
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labels_at_scale import write_clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lanit-driver-", dir=arguments.folder))
    found: dict[str, list[float]] = {"driver": [], "processes": []}
    digests = set()
    print(f"{arguments.rows:,} rows of {arguments.dim} numbers, load {os.getloadavg()[0]:.1f}", flush=True)
    try:
        write_clip(folder / "clip", arguments.dim)
        for _ in range(arguments.rounds):
            for who, seconds in found.items():
                took, digest = run(folder, arguments.rows, whole=who == "processes")
                seconds.append(took)
                digests.add(digest)
                print(f"{who} writing: {arguments.rows / took:,.0f} rows a second of a processor", flush=True)
    finally:
        shutil.rmtree(folder)
    assert len(digests) == 1, "the stores differ"
    middle = {who: statistics.median(seconds) for who, seconds in found.items()}
    print(f"processes writing ÷ driver writing: {middle['driver'] / middle['processes']:.2f} (at least 1.6)")


def run(folder: Path, rows: int, *, whole: bool) -> tuple[float, str]:
    """The driver's seconds of processors, and a digest of the store that it made."""
    from pipeline.clip.models import load_clip
    from pipeline.computing import ray_engine
    from pipeline.computing.ray_cluster import Workforce
    from pipeline.embedding import ray_embed
    from pipeline.embedding.embed import EmbedOptions, embed_opened

    clip, others = load_clip(str(folder / "clip")), [0.0]
    job: list[Any] = []

    def run_tasks(tasks: Callable[[], Iterator[Any]], make: Any, force: Any, remark: Any) -> Iterator[Any]:
        part_rows, waiting = make.args[1], tasks()
        while True:
            began = time.process_time()
            task = next(waiting, None)
            sent = b"" if task is None else pickle.dumps(done(task, clip.fingerprint.embedding_dim, job[0], part_rows))
            others[0] += time.process_time() - began
            if task is None:
                return
            yield pickle.loads(sent)

    def make(reader: Any, catalogue: Any, storage: Any) -> Any:
        job.append(ray_embed.embed_job(clip, EmbedOptions(), force, reader, storage))
        return ray_embed.ray_engine(clip, EmbedOptions(), force)(reader, catalogue, storage)

    force = Workforce(2, 1, gpu=False)
    no_ray = type("NoRay", (), {"put": staticmethod(lambda value: value)})
    stand_ins = [(ray_engine, "run_tasks", run_tasks), (ray_embed, "import_ray", lambda: no_ray),
                 (ray_embed, "_WHOLE_PARTS", 1 if whole else 1 << 40)]  # fmt: skip
    for module, name, value in stand_ins:
        setattr(module, name, value)
    began = time.process_time()
    embed_opened([names(rows)], folder / "store", clip, EmbedOptions(), None, make)
    seconds = time.process_time() - began - others[0]
    digest = hashlib.sha256((folder / "store" / "store.json").read_bytes()).hexdigest()
    shutil.rmtree(folder / "store")
    return seconds, digest


def names(rows: int) -> Any:
    """An input that lists so many images and is never read."""
    from pipeline.inputs.places import BaseInput, Place

    class Names(BaseInput):
        def places(self) -> Iterator[Place]:
            self._begin_listing()
            return (Place("/images", f"{n // 1000:06d}/{n:09d}.jpg", bytes=100_000, modified_ns=n) for n in range(rows))

        def exists(self) -> bool:
            return True

    return Names("/images")


@functools.cache
def _vectors(dim: int) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((4096, dim), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def done(task: list[Any], dim: int, job: Any, part_rows: int) -> Any:
    """What a process sends back of a task."""
    from pipeline.computing.ray_engine import DoneTask
    from pipeline.computing.timing import Timing
    from pipeline.embedding.ray_embed import packed

    vectors = _vectors(dim)
    for row in task:
        row.known, row.status, row.width, row.height, row.bytes = None, "ok", 640, 480, 100_000
        row.sha256 = hashlib.sha256(row.path.encode()).hexdigest()
        row.embedding = vectors[int(row.path[-13:-4]) % len(vectors)]
    return DoneTask(packed(task, job, part_rows), len(task), Timing(), [])


if __name__ == "__main__":
    main()
