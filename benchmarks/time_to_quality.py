"""How many seconds until translations are good: settings of training side by side, in the eyes of the judge.

    python -m benchmarks.time_to_quality --work DIR --arms before small --seeds 0 1 2 [--budget 600] [--until 0.8 0.88]
    python -m benchmarks.time_to_quality --work DIR --arms small --set learning_rate=0.002 --name faster

Drawn faces, labelled by the sample CLIP, are trained on by the steps of ``lanit train``. Time is the processor time of
this process in the steps alone (data, optimisers and averages included; not the judging), so that other work on the
machine counts for little; give one thread (OMP_NUM_THREADS=1). Every ``--every`` seconds of it the averages translate
unseen faces, each to every attribute that it lacks, and the judge of the sample world, which shares nothing with
training, says in how many it sees the attribute, and how many of the others stay. One line of JSON for each look; a
finished arm and seed is not run again, one that was stopped begins anew. The table gives the medians of the seconds at
which both shares of a quality are first reached, and their ratio to the first arm's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lanit.inference import Target, draw_latents, drawn_codes, edited, translate
from lanit.labels import EmbeddedPrompts, Rule
from lanit.methods.method import Method, Moment, Setting
from lanit.methods.table import METHODS
from lanit.metrics import spread
from lanit.networks import GenerativeNetworks
from lanit.ranks import ALONE, Draws
from lanit.schedules import step_seed
from pipeline.clip.models import ClipModel, load_clip
from pipeline.decoding.grids import to_float, to_uint8
from pipeline.embedding.embed import embed
from pipeline.labelling.label import label
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import read_prompt_set
from pipeline.sample_world.dataset import TRUTH_NAME, write_faces
from pipeline.sample_world.evaluation import EVALUATION_SEED
from pipeline.sample_world.faces import draw_faces
from pipeline.sample_world.judge import Judge, load_judge, score
from pipeline.sample_world.train_generator import GENERATOR_SEED
from pipeline.settings import parse_settings
from pipeline.showing import console
from pipeline.store.image_cache import open_sized_images
from pipeline.store.store import Store
from pipeline.training.batches import make_batch
from pipeline.training.run_setup import uses_bf16
from pipeline.training.train_options import TrainOptions, all_settings, options_from
from pipeline.training.training_data import TrainingData

QUALITIES = ((0.80, 0.88), (0.95, 0.97))
STYLES = 4  # translations of a face whose spread is its diversity
TIMED_STEPS = 30  # as in ``lanit train --minutes``: then schedules are planned
BEFORE: dict[str, Any] = {
    "max_channels": 128, "mapping_width": 64, "output": "residual", "batch_size": 16, "learning_rate": 1e-3,
    "domain": 1.5, "domain_scope": "active", "guidance_crop": 1.0, "cycle": 2.0, "diversity": 0.5, "r1": 0.05,
    "r1_every": 16, "balance": "domain", "crop": 0.0, "prompts_from": 1.0, "clip_precision": "bf16",
}  # fmt: skip
"""The preset of small sizes as it was until 2026-11-29, which everything is compared with."""


@dataclass(frozen=True)
class Arm:
    """A preset with changes laid over it."""

    preset: str
    changes: Mapping[str, Any] = field(default_factory=dict)


ARMS = {
    "before-32": Arm("32", BEFORE | {"channels": 32, "ema": 0.995}),
    "before-64": Arm("64", BEFORE | {"channels": 16, "ema": 0.998}),
    "small-32": Arm("small-32"),
    "small-64": Arm("small-64"),
}


@dataclass(frozen=True)
class Faces:
    """Unseen faces with their truth, and what is asked of them.

    images: float32 (n×3×S×S) in [-1, 1]; truth: bool (n×12); own: labels as CLIP reads them, bool (n×12).
    """

    images: Tensor
    truth: np.ndarray
    own: Tensor
    exclusive: Tensor
    clip: ClipModel
    judge: Judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["before-32", "small-32"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="changes to every arm")
    parser.add_argument("--name", default="", help="of an arm with --set in lines and tables, after the arm's")
    parser.add_argument("--budget", type=float, default=600, help="processor seconds, for which schedules are planned")
    parser.add_argument("--until", type=float, nargs=2, default=(1.1, 1.1), help="stop at recognised and kept")
    parser.add_argument("--every", type=float, default=30, help="processor seconds between two looks of the judge")
    parser.add_argument("--faces", type=int, default=4000, help="to train on")
    parser.add_argument("--judged", type=int, default=100, help="unseen faces")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    lines = asked.work / "looks.jsonl"
    clip = load_clip("sample")
    store = stored(asked.work, asked.faces, clip)
    for seed in asked.seeds:
        for name in asked.arms:
            shown = f"{name}-{asked.name}" if asked.name else name
            if any(each["last"] for each in looks(lines) if (each["arm"], each["seed"]) == (shown, seed)):
                continue
            arm = ARMS[name]
            changes = parse_settings(all_settings(), asked.set) | {"seed": seed}
            options = options_from(arm.preset, {**arm.changes, **changes})
            run(store, clip, options, asked, shown, lines)
    show(looks(lines))


def stored(work: Path, count: int, clip: ClipModel) -> Store:
    """Faces of the world that the shipped generator learns from, embedded and labelled as a user's."""
    faces, folder = work / "faces", work / "store"
    if not (faces / TRUTH_NAME).is_file():
        write_faces(faces, count, GENERATOR_SEED, 64)
    if not (folder / "labels").is_dir():
        embed([faces], folder, clip)
        label(Store.open(folder), clip, read_prompt_set("sample-faces"), Rule())
    return Store.open(folder)


def looks(lines: Path) -> list[dict[str, Any]]:
    """All lines of arms and seeds that came to their end, and of the last try of the others."""
    kept: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for text in lines.read_text().splitlines() if lines.is_file() else []:
        each = json.loads(text)
        place = kept.setdefault((each["arm"], each["seed"]), [])
        if each["step"] == 0:
            place.clear()
        place.append(each)
    return [each for group in kept.values() for each in group]


def run(
    store: Store, clip: ClipModel, options: TrainOptions, asked: argparse.Namespace, name: str, lines: Path
) -> None:
    revision = store.labels()
    data = TrainingData(open_sized_images(store, options.size, 100.0), revision, options.slack, options.balance)
    prompts = embed_prompts(clip, revision.prompt_set)
    method = built(options, clip, prompts, data)
    faces = unseen(clip, prompts, data.exclusive, options.size, asked.judged)
    losses: dict[str, list[float]] = {}
    seconds, step, planned, due, warm = 0.0, 0, 0, 0.0, 0.0
    while True:
        reached = False
        if seconds >= due or seconds >= asked.budget:
            due += asked.every
            figures = judged(method.averaged, faces)
            reached = figures["recognised"] >= asked.until[0] and figures["kept"] >= asked.until[1]
            last = reached or seconds >= asked.budget
            line: dict[str, Any] = {"arm": name, "seed": options.seed, "step": step, "seconds": round(seconds, 1)}
            line |= figures
            line["losses"] = {part: round(statistics.fmean(values), 4) for part, values in losses.items()}
            losses.clear()
            with lines.open("a") as file:
                file.write(json.dumps(line | {"last": last}) + "\n")
            text = " ".join(f"{key} {value:.4g}" for key, value in figures.items() if key != "least_domain")
            console.note(f"{name} {options.seed} step {step} {seconds:.0f} s {text} {line['losses']}")
            if last:
                return
        begun = time.process_time()
        for part, value in one_step(method, data, options, Moment(step, planned, False)).items():
            losses.setdefault(part, []).append(value.item())
        step, seconds = step + 1, seconds + time.process_time() - begun
        if step == 5:
            warm = seconds
        if step == TIMED_STEPS:
            planned = step + round((asked.budget - seconds) / (seconds - warm) * (step - 5))


def built(options: TrainOptions, clip: ClipModel, prompts: EmbeddedPrompts, data: TrainingData) -> Method:
    torch.manual_seed(options.seed)
    domains = len(data.labels.domains)
    device, bf16 = torch.device("cpu"), uses_bf16(options, torch.device("cpu"))
    setting = Setting(
        image_size=options.size, domains=domains, device=device, bf16=bf16, encode=clip.encode_images, prompts=prompts,
        learner=None, ema=options.ema, paired=False, sample=lambda count: data.sample(device, count),
    )  # fmt: skip
    return METHODS[options.method](options.settings, setting)


def one_step(method: Method, data: TrainingData, options: TrainOptions, moment: Moment) -> dict[str, Tensor]:
    """One iteration as ``lanit train`` makes it."""
    rows = data.rows_of_step(options.seed, moment.step, options.batch_size, ALONE)
    draws = Draws(torch.Generator().manual_seed(step_seed(options.seed, moment.step)))
    latent_dim, device = method.averaged.latent_dim, torch.device("cpu")
    pixels, active = data.images.take(rows), data.labels.active[rows]
    batch = make_batch(
        pixels, active, latent_dim, options.crop, device, draws, paired=data.paired, exclusive=data.exclusive
    )
    return method.step(batch, moment, draws)


@torch.no_grad()
def unseen(clip: ClipModel, prompts: EmbeddedPrompts, exclusive: Tensor, size: int, count: int) -> Faces:
    pictures, truth = draw_faces(EVALUATION_SEED, range(count), size)
    images = to_float(pictures)
    return Faces(images, truth, prompts.labels(clip.encode_images(images)), exclusive, clip, load_judge())


@torch.no_grad()
def judged(networks: GenerativeNetworks, faces: Faces) -> dict[str, float]:
    """``recognised``, ``kept``, ``least_domain``: as ``lanit evaluate sample`` has them. ``untouched``: mean change of
    0 to 255 where nothing is asked. ``diversity``: spread of the CLIP embeddings of translations in four styles."""
    columns, nothing = faces.own.shape[1], torch.zeros(faces.own.shape[1])
    codes = drawn_codes(networks, draw_latents(networks.latent_dim, 0, STYLES))
    seen, rows, requested, spreads = [], [], [], []
    for attribute in range(columns):
        add = (torch.arange(columns) == attribute).float()
        lacking = np.flatnonzero(~faces.truth[:, attribute])
        images, own = faces.images[lacking], faces.own[lacking]
        made = translate(networks, images, edited(own, add, nothing.bool(), faces.exclusive), codes[:1])[0]
        seen.append(faces.judge.predict(to_uint8(made)))
        rows.append(lacking)
        requested.append(np.full(len(lacking), attribute))
        few = edited(own[:8], add, nothing.bool(), faces.exclusive)
        styles = translate(networks, images[:8], few, codes)
        embedded = faces.clip.encode_images(styles.flatten(0, 1)).unflatten(0, styles.shape[:2])
        spreads.append(spread(embedded.transpose(0, 1)))
    found = score(np.concatenate(seen), faces.truth[np.concatenate(rows)], np.concatenate(requested))
    same = translate(networks, faces.images, Target(faces.own.float(), faces.own), codes[:1])[0]
    return {
        "recognised": round(float(found.recognised.mean()), 4),
        "kept": round(float(found.kept.mean()), 4),
        "least_domain": round(float(found.recognised.min()), 4),
        "untouched": round(float((same - faces.images).abs().mean()) * 127.5, 3),
        "diversity": float(torch.cat(spreads).mean()),
    }


def seconds_to(group: list[dict[str, Any]], recognised: float, kept: float) -> float | None:
    """Seconds at the first look at which both are reached, or none."""
    reached = (each["seconds"] for each in group if each["recognised"] >= recognised and each["kept"] >= kept)
    return next(reached, None)


def show(found: list[dict[str, Any]]) -> None:
    arms = list(dict.fromkeys(each["arm"] for each in found))
    rows, baseline = [], dict[tuple[float, float], float]()
    for arm in arms:
        seeds = sorted({each["seed"] for each in found if each["arm"] == arm})
        groups = [[each for each in found if (each["arm"], each["seed"]) == (arm, seed)] for seed in seeds]
        cells = []
        for quality in QUALITIES:
            times = [seconds_to(group, *quality) for group in groups]
            if any(each is None for each in times):
                cells += [f"not in {max(group[-1]['seconds'] for group in groups):.0f}", "-"]
                continue
            median = statistics.median(each for each in times if each is not None)
            ratio = median / baseline.setdefault(quality, median)
            cells += [f"{median:.0f}", f"{ratio:.2f}"]
        ends = [group[-1] for group in groups]
        last = [statistics.median(each[key] for each in ends) for key in ("recognised", "kept", "untouched")]
        rows.append((arm, str(len(seeds)), *cells, *(f"{each:.3f}" for each in last)))
    heads = [text for quality in QUALITIES for text in ("{:.2f}/{:.2f}".format(*quality), "ratio")]
    title = "Processor seconds until recognised/kept, medians of seeds; both at the end, and change where none is asked"
    console.table(title, ("arm", "seeds", *heads, "recognised", "kept", "untouched"), rows)


if __name__ == "__main__":
    main()
