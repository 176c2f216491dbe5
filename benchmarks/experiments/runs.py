"""Training and measuring one arm with one seed; each leaves one JSON file, and one that is there is not done again.

Arms have equal processor time: what a step costs is measured once for all that train in one way, and says how many
steps there are.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiments.arms import ARMS, BASELINE, EXPERIMENTS, Arm, arm_named
from benchmarks.experiments.labelling import Supervision, by_prompts, macro_f1, supervise
from benchmarks.experiments.plan import Plan
from benchmarks.experiments.protocol import labels_of_held_out, score_bounds, score_latents, score_references
from benchmarks.experiments.worlds import World
from lanit.labels import Rule
from lanit.matching import match
from lanit.methods.clusters import ClusterOptions
from pipeline.files import json_bytes, read_json, sha256_bytes, write_json
from pipeline.models.bundle import load_bundle
from pipeline.models.translator import Translator
from pipeline.showing import console
from pipeline.training.train_options import TrainOptions, options_from
from pipeline.training.training import TrainReport, train

_WARM_STEPS, _TIMED_STEPS, _TIMED_ROUNDS = 16, 33, 2  # with one R1 step among the 16 timed
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
    """The world's options with the arm's changes; no samples, checkpoints or evaluations but the first and the last.
    CLIP guides every arm with words alike, whatever the world's preset, unless the arm says otherwise."""
    quiet = {"sample_every": 0, "checkpoint_every": 0, "evaluate_every": 0, "evaluate_images": 8, "keep": 1}
    guided = {} if arm.level == "found" else {"domain": 1.0}
    given = {**world.options, **guided, **quiet, "steps": steps, "seed": seed, **arm.changes}
    if arm.learns:
        given |= world.learning
    if arm.level == "found":
        given["clusters"] = arm.domains or len(world.domains)
        given.pop("balance", None)
    return options_from(world.preset, given)


def run_job(world: World, arm: Arm, seed: int, plan: Plan) -> dict[str, Any]:
    """Label, train and measure. Raises KeyboardInterrupt where training was stopped; the same job continues it."""
    supervision = supervise(world, arm, seed)
    cost = step_cost(world, arm_named(BASELINE) if arm.steps_of_words else arm)
    options = options_of(world, arm, seed, max(1, round(plan.seconds(world.name) / cost)))
    folder = world.folder / "runs" / f"{arm.name}-{seed}"
    report = train(world.store, folder, options, world.clip, revision=supervision.revision, device="cpu")
    if report.interrupted:
        raise KeyboardInterrupt
    bundle = load_bundle(folder)
    if arm.level == "found":
        supervision = replace(supervision, active=world.store.labels(report.label_revision).active)
    label_of = by_prompts(Rule(), bundle.prompts) if arm.learns else supervision.label_of
    begun = time.monotonic()
    held_labels = labels_of_held_out(world, bundle.networks, label_of)
    scores = score_references(world, bundle.networks, held_labels, plan.translations)
    if bundle.prompt_set.domains == world.domains:
        translator = Translator(bundle, torch.device("cpu"))
        scores["latent_recognised"] = score_latents(world, translator, held_labels, min(plan.translations, _LATENT))
    after = macro_f1(label_of(world.store.embeddings(), world.truth), world.truth) if arm.learns else None
    return {
        "world": world.name, "arm": arm.name, "seed": seed,
        "domains": list(world.domains), "scores": scores, "labels": _labels(world, arm, supervision, after),
        "training": _training(report, options, cost), "translations_per_domain": plan.translations,
        "evaluation_seconds": round(time.monotonic() - begun, 1), "machine": machine(),
    }  # fmt: skip


def run_bounds(world: World, plan: Plan) -> None:
    """The figures of untouched sources and of real images, once for each world."""
    path = plan.work / "results" / world.name / f"{BOUNDS}.json"
    if not path.is_file():
        scores = score_bounds(world, plan.translations)
        write_json(path, {"world": world.name, "judge": world.judge.described, "remark": world.remark} | scores)


def _labels(world: World, arm: Arm, supervision: Supervision, after: float | None) -> dict[str, Any]:
    matched = None
    if arm.of_clusters and len(world.kinds):
        columns = list(world.kinds)
        matched = match(supervision.active.argmax(axis=1), world.truth[:, columns].argmax(axis=1))
    return {
        "rule": supervision.rule,
        "macro_f1": supervision.macro_f1,
        "macro_f1_after": after,
        "mutual_information": None if matched is None else matched.mutual_information,
        "matched": None if matched is None else matched.accuracy,
        "unlabelled": float((~supervision.active.any(axis=1)).mean()),
        "per_image": float(supervision.active.sum(axis=1).mean()),
    }


def _training(report: TrainReport, options: TrainOptions, cost: float) -> dict[str, Any]:
    return {
        "processor_seconds_per_step": round(cost, 4),
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


def step_cost(world: World, arm: Arm) -> float:
    """Processor seconds of a step by the options of ``arm``, on average over a run with its warm-up; measured once for
    all arms of these options, and kept in the folder of the world. R1 and all else that comes now and then counts as
    often as it comes."""
    options = options_of(world, arm, 0, _TIMED_STEPS)
    found = {name: value for name, value in options.to_json().items() if name not in ("steps", "seed")}
    path = world.folder / "costs" / f"{sha256_bytes(json_bytes(found))[:12]}.json"
    if not path.is_file():
        rounds = [_timed(world, arm, turn) for turn in range(_TIMED_ROUNDS)]
        warm, joint = (min(each) for each in zip(*rounds, strict=True))  # other work only ever adds time
        share = options.phase_2_from if isinstance(options.settings, ClusterOptions) else 0.0
        cost = share * warm + (1 - share) * joint
        write_json(path, {"cost": cost, "warm_up": warm, "joint": joint, "arm": arm.name, "options": found})
    cost = read_json(path)["cost"]
    return float(cost)


def _timed(world: World, arm: Arm, turn: int) -> tuple[float, float]:
    """Processor seconds of a step before and after where a warm-up ends, of a short run of its own."""
    early = {"warm_up": _WARM_STEPS / _TIMED_STEPS} if arm.level == "found" else {}
    timed = replace(arm, changes={**arm.changes, **early})
    folder = world.folder / "timing" / f"{arm.name}-{os.getpid()}-{turn}"
    ends = dict[int, float]()
    report = train(
        world.store, folder, options_of(world, timed, 0, _TIMED_STEPS), world.clip,
        revision=supervise(world, arm, 0).revision, device="cpu",
        progress=lambda done, planned: ends.setdefault(done, time.process_time()),
    )  # fmt: skip
    if report.interrupted:
        raise KeyboardInterrupt
    last, warm = _TIMED_STEPS - 1, _WARM_STEPS - 1  # what ends a warm-up, or a run, is no part of a step
    return (ends[warm] - ends[3]) / (warm - 3), (ends[last] - ends[_WARM_STEPS]) / (last - _WARM_STEPS)


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
        judged = sum(result["scores"]["mfid_judge"]) / len(result["scores"]["mfid_judge"])
        console.note(
            f"{number}/{len(left)} {name} {arm.name} seed {seed}: the judge's mFID {judged:.2f} "
            f"in {time.monotonic() - begun:.0f} s"
        )
