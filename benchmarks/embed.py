"""Embedding against its limits and against what one would use instead, side by side in one run.

    python benchmarks/embed.py --photos photos.tar [--rounds 3] [--clip-retrieval OTHER_VENV/bin/python] [--processors]

Prints images/s (medians over rounds) of ViT-B/32 with random weights, in float32 and bf16, and of the small sample
CLIP, where decoding is the limit: the bare forward, `lanit embed` as a whole (listing, writing and the index included,
loading the model not), a plain PIL + DataLoader loop, the decoder alone, and clip-retrieval where a Python that has it
is named. On a CPU decoding and the model share the cores: the bound is what decoding and a forward on each core would
reach in turn. With --processors all is counted in seconds of processors, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import open_clip
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pipeline.clip.models import ClipModel, load_clip
from pipeline.computing.devices import pick_device
from pipeline.computing.timing import usable_processors
from pipeline.decoding.clip_input import decode_for_clip
from pipeline.embedding.embed import EmbedOptions, embed

ARCHITECTURE = "ViT-B-32"
PER_CORE = "forward, a batch on each core"


class Photographs(Dataset[torch.Tensor]):
    """What a short script does: PIL, and open_clip's own transform."""

    def __init__(self, folder: Path, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.files, self.transform = sorted(folder.rglob("*.*")), transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[row]).convert("RGB"))


def plain_loop(folder: Path, clip: ClipModel, batch: int, workers: int, out: Path) -> None:
    size = clip.preprocessing.size
    transform = open_clip.image_transform(
        size, is_train=False, mean=clip.preprocessing.mean, std=clip.preprocessing.std
    )
    loader = DataLoader(Photographs(folder, transform), batch_size=batch, num_workers=workers)
    with torch.inference_mode():
        rows = [clip.encode_preprocessed(images.to(clip.device)).cpu() for images in loader]
    torch.save(torch.cat(rows), out)


def bare_forward(images: torch.Tensor, count: int, clip: ClipModel) -> None:
    with torch.inference_mode():
        for _ in range(-(-count // len(images))):
            clip.encode_preprocessed(images)
    if clip.device.type == "cuda":
        torch.cuda.synchronize()


def forward_per_core(images: torch.Tensor, count: int, clip: ClipModel, workers: int) -> None:
    """Batches side by side, each on one core."""
    before = torch.get_num_threads()

    @torch.inference_mode()
    def one(_: int) -> None:
        clip.encode_preprocessed(images)

    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(one, range(-(-count // len(images)))))
    torch.set_num_threads(before)


def decoder_alone(folder: Path, clip: ClipModel, workers: int) -> None:
    files = sorted(folder.rglob("*.*"))
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda file: decode_for_clip(file.read_bytes(), clip.preprocessing).pixels, files):
            pass


def clip_retrieval(python: str, folder: Path, weights: Path, out: Path) -> float:
    """Images/s of its own inference, loading the model left out: it times and counts them itself."""
    program = (
        "import importlib, sys, time\n"
        "mapper = importlib.import_module('clip_retrieval.clip_inference.mapper')\n"
        "load = mapper.load_clip\n"
        "spent = []\n"
        "def timed(*args, **kwargs):\n"
        "    began = time.time(); model = load(*args, **kwargs); spent.append(time.time() - began); return model\n"
        "mapper.load_clip = timed\n"
        "main = importlib.import_module('clip_retrieval.clip_inference.main').main\n"
        "began = time.time()\n"
        "main(sys.argv[1], sys.argv[2], enable_text=False, batch_size=32, num_prepro_workers=int(sys.argv[4]),\n"
        "     clip_model='open_clip:' + sys.argv[3], use_jit=False)\n"
        "print('SECONDS', time.time() - began - sum(spent))\n"
    )
    command = [python, "-c", program, str(folder), str(out), f"{ARCHITECTURE}/{weights}", str(usable_processors())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = re.search(r"SECONDS ([\d.]+)", done.stdout)
    if seconds is None:
        raise SystemExit(f"clip-retrieval failed:\n{done.stdout[-500:]}\n{done.stderr[-1500:]}")
    return float(seconds[1])


def timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    work()
    return clock() - began


def rates(count: int, rounds: int, works: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Median images/s of each, all of them in turn in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seconds[name].append(work())
    return {name: count / statistics.median(values) for name, values in seconds.items()}


def measure(
    clip: ClipModel, folder: Path, scratch: Path, given: argparse.Namespace, weights: Path | None
) -> dict[str, float]:
    count, workers = len(list(folder.rglob("*.*"))), usable_processors()
    batch = given.batch_size
    images = torch.randn(batch, 3, clip.preprocessing.size, clip.preprocessing.size, device=clip.device)
    bare_forward(images, 2 * batch, clip)  # warm

    clock = time.process_time if given.processors else time.perf_counter
    rounded = -(-count // batch) * batch / count  # a forward is of whole batches

    def whole() -> float:
        shutil.rmtree(scratch / "store", ignore_errors=True)
        return timed(lambda: embed([folder], scratch / "store", clip, EmbedOptions(batch_size=batch)), clock)

    works: dict[str, Callable[[], float]] = {
        "bare forward": lambda: timed(lambda: bare_forward(images, count, clip), clock) / rounded,
        "lanit embed": whole,
        "lanit's decoder alone": lambda: timed(lambda: decoder_alone(folder, clip, workers), clock),
    }
    if clip.device.type == "cpu":
        works[PER_CORE] = lambda: timed(lambda: forward_per_core(images, count, clip, workers), clock) / rounded
    if not given.processors:  # it starts others
        works["plain PIL + DataLoader loop"] = lambda: timed(
            lambda: plain_loop(folder, clip, batch, workers, scratch / "plain.pt"), clock
        )
    if weights is not None and given.clip_retrieval:
        works["clip-retrieval"] = lambda: clip_retrieval(given.clip_retrieval, folder, weights, scratch / "retrieval")
    found = rates(count, given.rounds, works)
    if PER_CORE in found:
        found["bound: decoder, then that"] = 1 / (1 / found["lanit's decoder alone"] + 1 / found[PER_CORE])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a tar of photographs")
    parser.add_argument("--copies", type=int, default=4, help="of each photograph")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--clip-retrieval", metavar="PYTHON", help="an interpreter that has clip-retrieval installed")
    parser.add_argument("--processors", action="store_true", help="count seconds of processors, not of the clock")
    parser.add_argument("--only", choices=["fp32", "bf16", "small"])
    given = parser.parse_args()
    device = pick_device(given.device)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        shutil.unpack_archive(given.photos, scratch / "tar")
        (scratch / "photos").mkdir()
        for number in range(given.copies):
            for file in sorted((scratch / "tar").rglob("*.*")):
                if file.is_file():
                    (scratch / "photos" / f"{number}-{file.name}").hardlink_to(file)
        weights = scratch / "random.pt"
        torch.manual_seed(0)
        torch.save(open_clip.create_model(ARCHITECTURE).state_dict(), weights)
        results: dict[str, dict[str, float]] = {}
        if given.only in (None, "fp32"):
            clip = load_clip(str(weights), device, ARCHITECTURE)
            results["ViT-B/32 float32"] = measure(clip, scratch / "photos", scratch, given, weights)
        if given.only in (None, "bf16"):
            clip = load_clip(str(weights), device, ARCHITECTURE, "bf16")
            results["ViT-B/32 bf16"] = measure(clip, scratch / "photos", scratch, given, None)
        if given.only in (None, "small"):
            results["sample CLIP"] = measure(load_clip("sample", device), scratch / "photos", scratch, given, None)
    for title, figures in results.items():
        print(f"\n{title}, {device}, images/s{' of a processor' if given.processors else ''}")
        for name, rate in figures.items():
            print(f"  {name:30} {rate:8.1f}   lanit embed is {figures['lanit embed'] / rate:.2f} times this")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
