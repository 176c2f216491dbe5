"""Peak memory of `lanit embed` over small synthetic JPEGs, as a ratio of two numbers of images.

    python benchmarks/embed_memory.py [--small 20000] [--large 200000]

Each size is embedded by a process of its own, with the sample CLIP, from a folder of that many files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def write_images(folder: Path, count: int) -> None:
    """JPEGs of 16 px, all different, a thousand to a folder."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"{number:07d}.jpg"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path, "JPEG")


def embed(folder: Path, store: Path) -> tuple[float, float]:
    """(peak resident MiB, seconds) of the command as a user would type it."""
    command = [sys.executable, "-c", "from cli import main; main()", "embed", str(folder), "--clip", "sample"]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--store", str(store)], stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1]
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"lanit embed failed with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=20_000)
    parser.add_argument("--large", type=int, default=200_000)
    given = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        for count in (given.small, given.large):
            folder = Path(name) / f"images-{count}"
            write_images(folder, count)
            peak, seconds = embed(folder, Path(name) / f"store-{count}")
            peaks.append(peak)
            print(
                f"{count:>9,} images: peak {peak:,.0f} MiB, {seconds:.0f} s, {count / seconds:.0f} images/s", flush=True
            )
    print(f"peak memory ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
