"""Training and measuring one arm with one seed; each leaves one JSON file, and one that is there is not done again."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiments.arms import ARMS, EXPERIMENTS, Arm
from benchmarks.experiments.labelling import Supervision, by_prompts, macro_f1, supervise
from benchmarks.experiments.plan import Plan
from benchmarks.experiments.protocol import score_bounds, score_latents, score_references
from benchmarks.experiments.worlds import World
from lanit.labels import Rule
from pipeline.files import read_json, write_json
from pipeline.models.bundle import load_bundle
from pipeline.models.translator import Translator
from pipeline.showing import console
from pipeline.training.train_options import TrainOptions, options_from
from pipeline.training.training import TrainReport, train

_WARM_STEPS, _TIMED_STEPS, _TIMED_ROUNDS = 8, 16, 4  # with one R1 step among the timed
_LATENT = 200  # latent-guided translations for each domain
BOUNDS = "bounds"
Job = tuple[str, Arm, int]


def jobs(worlds: Sequence[str], arms: Sequence[str], seeds: Sequence[int]) -> Iterator[Job]:
    """(world, arm, seed) in order: an experiment in all worlds before the next, a seed of all arms before the next."""
    for experiment in EXPERIMENTS:
        for seed in seeds:
            for world in worlds:
                for arm in ARMS:
                    if arm.experiment == experiment and arm.name in arms:
                        yield world, arm, seed


def result_path(work: Path, world: str, arm: str, seed: int) -> Path:
    return work / "results" / world / f"{arm}-{seed}.json"


def pending(work: Path, planned: Sequence[Job]) -> list[Job]:
    """The jobs that have left no result yet."""
    return [job for job in planned if not result_path(work, job[0], job[1].name, job[2]).is_file()]


def options_of(world: World, arm: Arm, seed: int, steps: int) -> TrainOptions:
    """The world's options with the arm's changes; no samples, checkpoints or evaluations but the first and the last."""
    quiet = {"sample_every": 0, "checkpoint_every": 0, "evaluate_every": 0, "evaluate_images": 8, "keep": 1}
    given = {**world.options, **quiet, "steps": steps, "seed": seed, **arm.changes}
    if arm.learns:
        given |= world.learning
    return options_from(world.preset, given)


def run_job(world: World, arm: Arm, seed: int, plan: Plan) -> dict[str, Any]:
    """Label, train and measure. Raises KeyboardInterrupt where training was stopped; the same job continues it."""
    supervision = supervise(world, arm, seed)
    steps = plan.steps(world.name)
    if arm.time_of_fused:
        steps = round(steps * equal_time_ratio(world, arm))
    options = options_of(world, arm, seed, steps)
    folder = world.folder / "runs" / f"{arm.name}-{seed}"
    report = train(world.store, folder, options, world.clip, revision=supervision.revision, device="cpu")
    if report.interrupted:
        raise KeyboardInterrupt
    bundle = load_bundle(folder)
    label_of = supervision.label_of
    if arm.learns:
        label_of = by_prompts(Rule(), bundle.prompts)
    begun = time.monotonic()
    scores = score_references(world, bundle.networks, label_of, plan.translations)
    if arm.experiment == "levels" and arm.level != "clusters":  # a cluster is no domain that could be asked for
        translator = Translator(bundle, torch.device("cpu"))
        scores["latent_recognised"] = score_latents(world, translator, label_of, min(plan.translations, _LATENT))
    after = macro_f1(label_of(world.store.embeddings(), world.truth), world.truth) if arm.learns else None
    return {
        "world": world.name, "arm": arm.name, "seed": seed,
        "domains": list(world.domains), "scores": scores, "labels": _labels(supervision, after),
        "training": _training(report, options), "translations_per_domain": plan.translations,
        "evaluation_seconds": round(time.monotonic() - begun, 1), "machine": machine(),
    }  # fmt: skip


def run_bounds(world: World, plan: Plan) -> None:
    """The figures of untouched sources and of real images, once for each world."""
    path = plan.work / "results" / world.name / f"{BOUNDS}.json"
    if not path.is_file():
        scores = score_bounds(world, plan.translations)
        write_json(path, {"world": world.name, "judge": world.judge.described, "remark": world.remark} | scores)


def _labels(supervision: Supervision, after: float | None) -> dict[str, Any]:
    return {
        "rule": supervision.rule,
        "macro_f1": supervision.macro_f1,
        "macro_f1_after": after,
        "unlabelled": float((~supervision.active.any(axis=1)).mean()),
        "per_image": float(supervision.active.sum(axis=1).mean()),
    }


def _training(report: TrainReport, options: TrainOptions) -> dict[str, Any]:
    return {
        "steps": report.steps,
        "images_seen": report.images,
        "seconds": report.seconds,
        "seconds_per_step": report.seconds_per_step,
        "options": options.to_json(),
    }


def machine() -> dict[str, Any]:
    return {
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def equal_time_ratio(world: World, arm: Arm) -> float:
    """Seconds of a step by the world's own options ÷ of a step by ``arm``; measured in turn, once for each world."""
    path = world.folder / f"time-{arm.name}.json"
    if not path.is_file():
        plain = replace(arm, name="timed", changes={})
        seconds: dict[str, list[float]] = {"own": [], "arm": []}
        for turn in range(_TIMED_ROUNDS):
            for name, timed in (("own", plain), ("arm", arm)):
                seconds[name].append(_seconds_per_step(world, timed, turn))
        least = {name: min(values) for name, values in seconds.items()}  # other work only ever adds time
        write_json(path, least | {"ratio": least["own"] / least["arm"]})
    ratio: float = read_json(path)["ratio"]
    return ratio


def _seconds_per_step(world: World, arm: Arm, turn: int) -> float:
    """Of a short run of its own, the first steps left out."""
    folder = world.folder / "timing" / f"{arm.name}-{os.getpid()}-{turn}"
    revision = supervise(world, arm, 0).revision
    warm, done = (
        train(world.store, folder, options_of(world, arm, 0, steps), world.clip, revision=revision, device="cpu")
        for steps in (_WARM_STEPS, _WARM_STEPS + _TIMED_STEPS)
    )
    return (done.seconds - warm.seconds) / (done.steps - warm.steps)


def run_all(worlds: dict[str, World], planned: Sequence[Job], plan: Plan) -> None:
    """Every job that has left no result, in order."""
    for world in worlds.values():
        run_bounds(world, plan)
    left = pending(plan.work, planned)
    console.note(f"{len(planned) - len(left)} of {len(planned)} results are there; {len(left)} to go")
    for number, (name, arm, seed) in enumerate(left, 1):
        begun = time.monotonic()
        result = run_job(worlds[name], arm, seed, plan)
        write_json(result_path(plan.work, name, arm.name, seed), result)
        mfid = sum(result["scores"]["mfid"]) / len(result["scores"]["mfid"])
        console.note(
            f"{number}/{len(left)} {name} {arm.name} seed {seed}: mFID {1000 * mfid:.1f} "
            f"in {time.monotonic() - begun:.0f} s"
        )
