"""Engines for CLIP's image tower on this CPU, side by side: images/s, and how near their embeddings are to today's.

    python -m benchmarks.engines [--batches 1,16,64] [--threads 1,2] [--rounds 5] [--architecture ViT-B-32]
                                 [--engines today,freeze,inductor,onnxruntime,openvino,openvino-throughput,bf16]

An open_clip tower with random weights (seed 0; speed does not depend on them) and images that are smooth noise. `today`
is what `lanit embed` does: torch as it is, channels last. `freeze` is torch.jit's trace, frozen and optimised for
inference; `inductor` is torch.compile with frozen weights, which needs a C++ compiler; onnxruntime and OpenVINO run
what torch.onnx exported, in float32. `bf16` is `--precision bf16`, which is not float32-equal and stands beside. An
engine that is not installed is said so and left out.

In each round every engine runs once, in turn; medians over rounds are of images/s by the clock and by seconds of
processors, which other programs disturb less. Cosines are the least over all images to today's embeddings; random
towers give all images nearly the same one, so it is given without the mean of the images as well. Making an engine is
timed apart: exporting, compiling, and the first batch.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch.nn import functional as F

from pipeline.clip.models import ClipModel, load_clip

Engine = Callable[[torch.Tensor], Any]
"""Preprocessed images, float32 (B×3×s×s), to embeddings, float (B×k), normalised or not."""

EQUAL = 1e-5  # 1 - cosine, at most
OPSET = 18


class Work:
    """What engines are made of. folder: for files."""

    def __init__(self, folder: Path, architecture: str) -> None:
        self.folder, self.architecture = folder, architecture
        torch.manual_seed(0)
        torch.save(open_clip.create_model(architecture).state_dict(), folder / "random.pt")
        self.clip = self.loaded("fp32")
        self.tower = self.clip.towers.images().visual
        size = self.clip.preprocessing.size
        coarse = torch.randn(64, 3, 7, 7, generator=torch.Generator().manual_seed(1))
        self.images = F.interpolate(coarse, size=(size, size), mode="bicubic")

    def loaded(self, precision: Any) -> ClipModel:
        return load_clip(str(self.folder / "random.pt"), "cpu", self.architecture, precision)

    def onnx(self) -> Path:
        path = self.folder / "tower.onnx"
        if not path.exists():
            shapes = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(
                self.tower, (self.images[:2],), path, dynamo=True, dynamic_shapes=shapes, input_names=["images"],
                output_names=["embeddings"], opset_version=OPSET, verbose=False,
            )  # fmt: skip
        return path


def today(work: Work, batch: int, threads: int) -> Engine:
    return work.clip.encode_preprocessed


def bf16(work: Work, batch: int, threads: int) -> Engine:
    return work.loaded("bf16").encode_preprocessed


def freeze(work: Work, batch: int, threads: int) -> Engine:
    traced = torch.jit.trace(work.tower, work.images[:batch])
    return torch.jit.optimize_for_inference(torch.jit.freeze(traced))


def inductor(work: Work, batch: int, threads: int) -> Engine:
    import torch._inductor.config

    torch._dynamo.reset()
    torch._inductor.config.freezing = True  # weights packed for the processor
    return torch.compile(work.tower, dynamic=False)


def onnxruntime(work: Work, batch: int, threads: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would disturb the next engine
    session = onnxruntime.InferenceSession(work.onnx(), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})[0]


def openvino(work: Work, batch: int, threads: int, hint: str = "LATENCY") -> Engine:
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(work.onnx(), "CPU", options)
    return lambda images: model(images.numpy())[0]


def openvino_throughput(work: Work, batch: int, threads: int) -> Engine:
    """As many requests at once as OpenVINO thinks best, each of a share of the batch."""
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(work.onnx(), "CPU", options))

    def run(images: torch.Tensor) -> np.ndarray:
        shares = np.array_split(images.numpy(), min(len(queue), len(images)))
        found: list[np.ndarray] = [np.empty(0)] * len(shares)
        queue.set_callback(lambda request, n: found.__setitem__(n, request.get_output_tensor().data.copy()))
        for n, share in enumerate(shares):
            queue.start_async({0: share}, n)
        queue.wait_all()
        return np.concatenate(found)

    return run


ENGINES: dict[str, tuple[Callable[[Work, int, int], Engine], str]] = {
    "today": (today, ""),
    "freeze": (freeze, ""),
    "inductor": (inductor, "g++"),
    "onnxruntime": (onnxruntime, "onnxruntime onnxscript"),
    "openvino": (openvino, "openvino onnxscript"),
    "openvino-throughput": (openvino_throughput, "openvino onnxscript"),
    "bf16": (bf16, ""),
}
"""How each is made, and what it needs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="1,16,64")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--architecture", default="ViT-B-32")
    parser.add_argument("--engines", default=",".join(ENGINES))
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # torch.jit and the exporter speak of their own future
    names = [name for name in given.engines.split(",") if installed(name)]
    if names[:1] != ["today"]:
        raise SystemExit("today is what the others are compared with: name it first")
    print(f"{given.architecture}, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}", flush=True)
    with tempfile.TemporaryDirectory(prefix="lanit-engines-") as folder:
        work = Work(Path(folder), given.architecture)
        for threads in map(int, given.threads.split(",")):
            torch.set_num_threads(threads)
            for batch in map(int, given.batches.split(",")):
                compare(work, names, batch, threads, given.rounds)


def installed(name: str) -> bool:
    missing = [each for each in ENGINES[name][1].split() if not (shutil.which(each) or importlib.util.find_spec(each))]
    if missing:
        print(f"{name}: left out, {' and '.join(missing)} not installed")
    return not missing


@torch.inference_mode()
def compare(work: Work, names: list[str], batch: int, threads: int, rounds: int) -> None:
    print(f"\nbatch {batch}, {threads} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    images, made = work.images[:batch], dict[str, Engine]()
    first, found = dict[str, float](), dict[str, torch.Tensor]()
    for name in names:
        with torch.inference_mode(name == "today"):  # the exporter and the compiler want to see plain tensors
            begun = time.process_time()
            made[name] = ENGINES[name][0](work, batch, threads)
            found[name] = torch.as_tensor(made[name](images)).detach().double()
            first[name] = time.process_time() - begun
    clock: dict[str, list[float]] = {name: [] for name in names}
    processors: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            begun, spent = time.perf_counter(), time.process_time()
            made[name](images)
            clock[name].append(batch / (time.perf_counter() - begun))
            processors[name].append(batch / (time.process_time() - spent))
    for name in names:
        by_clock, spent = statistics.median(clock[name]), statistics.median(processors[name])
        ratios = [theirs / ours for theirs, ours in zip(processors[name], processors["today"], strict=True)]
        away, centred = distances(found[name], found["today"])
        print(
            f"  {name:20} {by_clock:6.1f} images/s, {spent:6.1f} a second of processors, "
            f"{statistics.median(ratios):5.2f} times today ({min(ratios):.2f} to {max(ratios):.2f}); "
            f"1 - cosine {away:.0e}, {centred:.0e} without the mean{'' if away <= EQUAL else ': NOT EQUAL'}; "
            f"{first[name]:5.1f} s to make",
            flush=True,
        )


def distances(found: torch.Tensor, today: torch.Tensor) -> tuple[float, float]:
    """1 - the least cosine, as they are and without the mean of ``today``, which one image alone is."""
    unit, like = F.normalize(found, dim=-1), F.normalize(today, dim=-1)
    away = 1 - float((unit * like).sum(dim=-1).min())
    if len(like) == 1:
        return max(away, 0.0), float("nan")
    mean = like.mean(dim=0)
    centred = 1 - float(F.cosine_similarity(unit - mean, like - mean).min())
    return max(away, 0.0), max(centred, 0.0)


if __name__ == "__main__":
    main()
