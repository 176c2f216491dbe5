"""Labelling and inspecting a large store: time against one read of its embeddings, memory against a tenth of its rows.

    python benchmarks/labels_at_scale.py [--rows 1000000] [--dim 512] [--rounds 3] [--folder DIR]

Writes a store of random unit vectors (2 GB at the defaults) with the sizes and encodings of `lanit embed`, and a CLIP
with random weights whose text tower is that of ViT-B/32. Then, each in a process of its own: 16 prompts × 9 templates
labelled for the first time, when CLIP reads the words; the embedding column read once; the same labelled again, from
the phrases to the revision on disk, when the words are known; the report on it; and the report on a revision of ten
times the rows. No crops are embedded: there are no images. Times are medians over rounds, memory is the peak of the
process. What it wrote is removed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PROMPTS = "celeba-hq-16"
PHRASES, TEMPLATES = 16, 9
BLOCK = 65536


def main() -> None:
    arguments = parse()
    if arguments.task:
        print(json.dumps(TASKS[arguments.task](arguments.folder)))
        return
    folder = Path(tempfile.mkdtemp(prefix="lanit-scale-", dir=arguments.folder))
    try:
        write_clip(folder / "clip", arguments.dim)
        write_store(folder / "store", folder / "clip", arguments.rows, arguments.dim)
        compare(folder, arguments)
    finally:
        shutil.rmtree(folder)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--task", choices=sorted(TASKS), help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    """Run every task and print the figures."""
    words = f"{PHRASES} prompts × {TEMPLATES} templates"
    print(f"{arguments.rows:,} × {arguments.dim}, {words}, {os.cpu_count()} processors")
    runs: dict[str, list[dict[str, float]]] = {"first": [run("label", folder)]}
    for _ in range(arguments.rounds):
        for task in ("read", "label", "inspect"):
            if task == "label":
                shutil.rmtree(folder / "store" / "labels", ignore_errors=True)
            runs.setdefault(task, []).append(run(task, folder))
    line("label for the first time", runs["first"], "label")
    line("embedding column read once", runs["read"], "read")
    line("label known words", runs["label"], "label", "at most 376 MiB")
    for kind in ("", " processors"):
        ratio = middle(runs["label"], f"label{kind}") / middle(runs["read"], f"read{kind}")
        print(f"label ÷ read{kind or ' by the clock':30}{ratio:6.2f}{'' if kind else '      at most 1.1'}")
    line("inspect-labels", runs["inspect"], "inspect", "at most 3 s and 1536 MiB")
    write_labels(folder / "store", 10 * arguments.rows)
    large = [run("inspect", folder) for _ in range(arguments.rounds)]
    line("inspect ten times the rows", large, "inspect")
    ratio = middle(large, "mib") / middle(runs["inspect"], "mib")
    print(f"its memory ÷ that before                {ratio:6.2f}      at most 1.2")


def line(name: str, runs: list[dict[str, float]], figure: str, limit: str = "") -> None:
    clock, processors, mib = (middle(runs, each) for each in (figure, f"{figure} processors", "mib"))
    print(f"{name:28}{clock:7.2f} s   {processors:7.2f} s of processors   peak {mib:5.0f} MiB   {limit}".rstrip())


def run(task: str, folder: Path) -> dict[str, float]:
    """What a process of its own says of ``task``."""
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def middle(runs: list[dict[str, float]], name: str) -> float:
    return statistics.median(each[name] for each in runs)


# ---------------------------------------------------------------- tasks, each in its own process


def result(**values: float) -> dict[str, float]:
    """``values`` and the peak of this process, which getrusage mixes up with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return values | {"mib": int(status.partition("VmHWM:")[2].split()[0]) / 1024}


@contextlib.contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    """Seconds by the clock as ``name``, and of processors as ``name processors``, which other programs disturb less."""
    clock, processors = time.perf_counter(), time.process_time()
    yield
    into[name] = time.perf_counter() - clock
    into[f"{name} processors"] = time.process_time() - processors


def read(folder: Path) -> dict[str, float]:
    from pipeline.store.store import Store

    store, figures = Store.open(folder / "store"), dict[str, float]()
    with timed(figures, "read"):
        total = sum(float(part[0, 0]) for part in store.embedding_parts())
    return result(total=total, **figures)


def label(folder: Path) -> dict[str, float]:
    from lanit.rules import Rule
    from pipeline.inspection.inspect_labels import inspect_labels
    from pipeline.inspection.label_report import label_and_report
    from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
    from pipeline.stability.views import Stabilise
    from pipeline.store.store import Store
    from pipeline.store.store_clip import clip_of

    store, built_in = Store.open(folder / "store"), read_prompt_set(PROMPTS)
    prompts = PromptSet(built_in.domains, built_in.templates[:TEMPLATES], built_in.bases[:TEMPLATES], built_in.name)
    figures: dict[str, float] = {}
    with timed(figures, "label and report"):
        clip = clip_of(store, None, None)
        report = label_and_report(store, clip, prompts, Rule(), stabilise=Stabilise(views=False))
    with timed(figures, "report"):
        inspect_labels(store.revision_file(report.revision))
    for kind in ("", " processors"):
        figures[f"label{kind}"] = figures[f"label and report{kind}"] - figures[f"report{kind}"]
    return result(**figures)


def inspect(folder: Path) -> dict[str, float]:
    from pipeline.inspection.inspect_labels import inspect_labels
    from pipeline.inspection.table import show_statistics
    from pipeline.store.store import Store

    figures: dict[str, float] = {}
    with timed(figures, "inspect"), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        show_statistics(inspect_labels(Store.open(folder / "store").revision_file()))
    return result(**figures)


TASKS = {"read": read, "label": label, "inspect": inspect}


# ---------------------------------------------------------------- what they work on


def write_clip(folder: Path, dim: int) -> None:
    """Random weights: the text tower of ViT-B/32 and hardly an image tower, in open_clip's layout."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config: dict[str, Any] = {
        "embed_dim": dim,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
    }
    state = {name: tensor.contiguous() for name, tensor in open_clip.CLIP(**config).state_dict().items()}
    folder.mkdir(parents=True)
    save_file(state, folder / "open_clip_model.safetensors")
    document = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))


def write_store(root: Path, clip_folder: Path, rows: int, dim: int) -> None:
    from pipeline.clip.models import load_clip
    from pipeline.embedding.parts import rows_of_a_part
    from pipeline.files import write_json
    from pipeline.store.schemas import SCHEMA_VERSION, Manifest, Part, SourceEntry, images_schema, with_metadata

    clip = load_clip(str(clip_folder))
    fingerprint = clip.fingerprint
    schema = with_metadata(
        images_schema(dim), {"schema_version": SCHEMA_VERSION, "kind": "images", "fingerprint": fingerprint.to_json()}
    )
    packed = {name: "zstd" for name in schema.names if name != "embedding"} | {"embedding.list.element": "none"}
    repeated = ["source", "width", "height", "status", "error_message"]
    rng, parts, part_rows = np.random.default_rng(0), [], rows_of_a_part(rows)
    (root / "images").mkdir(parents=True)
    for start in range(0, rows, part_rows):
        count = min(part_rows, rows - start)
        vectors = rng.standard_normal((count, dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        numbers = range(start, start + count)
        columns: dict[str, list[Any]] = {field.name: [None] * count for field in schema}
        columns |= {"image_id": [f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}" for n in numbers]}
        columns |= {"path": [f"{n // 1000:05d}/image-{n:08d}.jpg" for n in numbers]}
        columns |= {"source": ["/photos"] * count, "status": ["ok"] * count}
        columns |= {"width": [640] * count, "height": [480] * count, "bytes": [100_000] * count}
        arrays = [pa.array(columns[field.name], field.type) for field in schema if field.name != "embedding"]
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim))
        file = f"images/part-{len(parts):05d}-{start % 2**32:08x}.parquet"
        table = pa.Table.from_arrays(arrays, schema=schema)
        pq.write_table(
            table, root / file, compression=packed, use_dictionary=repeated, write_statistics=repeated,
            write_page_checksum=True,
        )  # fmt: skip
        parts.append(Part(file, count, count))
    manifest = Manifest(fingerprint, clip.spec, None, "float32", (SourceEntry("/photos"),), tuple(parts))
    write_json(root / "store.json", manifest.to_json())


def write_labels(root: Path, rows: int) -> None:
    """A newer revision of ``rows`` rows, of random margins, as `lanit label` would write it."""
    from lanit.rules import Rule
    from pipeline.prompts.prompt_sets import read_prompt_set
    from pipeline.store.label_revisions import LabelBlock, RevisionHeader, write_revision
    from pipeline.store.store import Store

    store = Store.open(root)
    header = RevisionHeader(store.fingerprint, read_prompt_set(PROMPTS), Rule(), "label", None, "0")

    def blocks() -> Iterator[LabelBlock]:
        rng = np.random.default_rng(1)
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            margin = rng.normal(-0.01, 0.02, (PHRASES, count)).astype(np.float32).T
            ids = pa.array([f"{start + n:016x}" for n in range(count)])
            paths = pa.array([f"{(start + n) // 1000:06d}/image-{start + n:08d}.jpg" for n in range(count)])
            yield LabelBlock(
                start, count, active=margin > 0, margin=margin, similarity_base=margin[:, 0], image_ids=ids, paths=paths
            )

    write_revision(root / "labels" / "r0002.parquet", header, blocks())


if __name__ == "__main__":
    main()
