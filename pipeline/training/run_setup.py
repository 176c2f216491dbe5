"""Building a training run from a store and options: what must hold before the first step, or a run is continued."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lanit.ema import Average
from lanit.errors import LanitError
from lanit.labels import exclusive_pairs
from lanit.objectives import Networks
from lanit.prompts import PromptLearner
from lanit.steps import Optimisers
from pipeline.clip.models import ClipModel
from pipeline.clip.text_towers import OpaqueText
from pipeline.files import read_json, sealed, sha256_bytes, write_json
from pipeline.folders import remove_ours
from pipeline.models.run_folder import BEST, BUNDLE_FILES, CONFIG, METRICS, MODEL, SAMPLES, is_ours
from pipeline.models.tensor_folders import read_document
from pipeline.prompts.learned_prompts import prompt_learner
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.prompts.text_embeddings import text_embeddings
from pipeline.showing import console
from pipeline.store.image_cache import SizedImages, open_sized_images
from pipeline.store.store import LabelRevision, Store
from pipeline.training.checkpoints import latest_checkpoint, newest_whole_checkpoint
from pipeline.training.evaluation import REAL_IMAGES, Evaluator, Sources
from pipeline.training.processes import Processes
from pipeline.training.train_options import TrainOptions
from pipeline.training.training_run import TrainingRun

_FREE_ON_RESUME = {
    "steps", "minutes", "log_every", "sample_every", "checkpoint_every", "evaluate_every", "keep", "cache_gb",
}  # fmt: skip


def prepare_run(
    store: Store,
    folder: Path,
    options: TrainOptions,
    clip: ClipModel,
    revision: int | None,
    processes: Processes,
) -> TrainingRun:
    """Build the run of ``folder``, whose lock the first process holds, and put back its newest checkpoint.

    Raises LanitError where the store has no labels that fit, or the folder holds a run with other options.
    """
    device = processes.device
    processes.check_batch(options.batch_size)
    store.check_fingerprint(clip.fingerprint)
    clip.model.to(device)
    labels = store.labels_to_train(revision).read()
    store.check_current(labels)
    config = _checked_config(folder, options, labels)
    torch.manual_seed(options.seed)
    nets = Networks(options.network_options(len(labels.domains))).to(device)
    prompts = labels.prompt_set
    learner = None
    if options.prompts_from < 1 and options.prompt_update != "generator-only" and not isinstance(clip.text, OpaqueText):
        learner = prompt_learner(clip.text, prompts).to(device)
    domains, base = (tensor.to(device) for tensor in text_embeddings(clip, prompts))
    with processes.first_alone():
        images = open_sized_images(store, options.size, options.cache_gb)
    run = TrainingRun(
        folder=folder,
        digest=config["run"],
        store=store,
        options=options,
        clip=clip,
        processes=processes,
        bf16=_uses_bf16(options, device),
        nets=nets,
        average=Average(nets.generative),
        learner=learner,
        prompt_average=Average(nn.ParameterList([learner.context])) if learner else None,
        optimisers=_optimisers(nets, learner, options),
        images=images,
        labels=labels,
        fixed_text=(domains, base),
        evaluator=_evaluator(store, labels, images, options, device),
    )
    found = processes.from_first(lambda: newest_whole_checkpoint(folder, run.digest, console.warn))
    if found is not None:
        run.resume(*found)
    if options.compile == "yes":
        compile_networks(nets)
    with processes.first_alone():
        if processes.first and found is not None:
            _plan_anew(run, config)
            run.write_what_follows(console.warn)
        elif processes.first:
            write_json(folder / CONFIG, sealed(config))
            _forget_all(folder)
    run.clock = processes.shared(run.clock)
    return run


def _forget_all(folder: Path) -> None:
    """Remove what a run left that ended before its first checkpoint: it begins anew."""
    (folder / METRICS).unlink(missing_ok=True)
    for inner in (SAMPLES, MODEL, BEST):
        remove_ours(folder / inner, partial(_is_ours_in, inner))


def _is_ours_in(inner: str, name: str) -> bool:
    return is_ours(f"{inner}/{name}")


def compile_networks(nets: Networks) -> None:
    """Let torch compile G's halves and E_S, each with and without gradients for its parameters."""
    for owner, name in ((nets.generator, "encode"), (nets.generator, "decode"), (nets.style_encoder, "forward")):
        setattr(owner, name, torch.compile(getattr(owner, name)))


def _evaluator(
    store: Store, labels: LabelRevision, images: SizedImages, options: TrainOptions, device: torch.device
) -> Evaluator:
    """Sources from all over the store; real images of each domain, by the labels that the run began with."""
    rows = np.unique(np.linspace(0, len(images) - 1, options.evaluate_images).round().astype(int))
    sources = torch.from_numpy(images.take(rows)).to(device).float() / 127.5 - 1
    rng = np.random.default_rng(options.seed)
    carriers = [np.flatnonzero(column) for column in labels.active.T]
    chosen = [np.sort(rng.permutation(found)[:REAL_IMAGES]) for found in carriers]
    everyone = np.unique(np.concatenate(chosen))
    embeddings = store.embeddings_of(everyone)
    real = [torch.from_numpy(embeddings[np.searchsorted(everyone, found)]) for found in chosen]
    exclusive = exclusive_pairs(torch.from_numpy(labels.active)).to(device)
    return Evaluator(Sources(sources, torch.from_numpy(labels.active[rows]).to(device)), real, exclusive)


def _plan_anew(run: TrainingRun, config: dict[str, Any]) -> None:
    """A run continued with other minutes plans its steps from the speed it had. config: as the run has it."""
    clock, asked = run.clock, run.options.to_json()
    if run.options.minutes and run.options.minutes != config["options"]["minutes"] and clock.planned:
        clock.planned = max(clock.step, round(clock.step / clock.seconds * run.options.minutes * 60))
    if config["options"] != asked:
        write_json(run.folder / CONFIG, sealed(config | {"options": asked}))


def _uses_bf16(options: TrainOptions, device: torch.device) -> bool:
    if options.precision != "auto":
        return options.precision == "bf16"
    if device.type == "cuda":  # before Ampere bf16 is emulated, and slow
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def _optimisers(nets: Networks, learner: PromptLearner | None, options: TrainOptions) -> Optimisers:
    """Adam as METHOD §5 sets it."""

    def adam(parameters: list[nn.Parameter], rate: float) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, rate, betas=(0.0, 0.99), weight_decay=1e-4, fused=True)

    return Optimisers(
        adam(list(nets.generative.parameters()), options.learning_rate),
        adam(list(nets.discriminator.parameters()), options.learning_rate),
        adam([learner.context], options.prompt_learning_rate) if learner is not None else None,
    )


def _new_config(options: TrainOptions, labels: LabelRevision) -> dict[str, Any]:
    """``config.json``; ``run`` is a digest of what decided the steps when the run began."""
    config = {"options": options.to_json(), "label_revision": labels.number, "prompt_set": labels.prompt_set.to_json()}
    fixed = {name: value for name, value in options.to_json().items() if name not in _FREE_ON_RESUME}
    return config | {"run": sha256_bytes(json.dumps(config | {"options": fixed}, sort_keys=True).encode())}


def _checked_config(folder: Path, options: TrainOptions, labels: LabelRevision) -> dict[str, Any]:
    """The configuration of the run in ``folder``, or of a new one. Refuses to continue a run under other options.

    Raises LanitError that names them, and where a run has a model, but no checkpoint to go on from.
    """
    if not (folder / CONFIG).is_file():
        return _new_config(options, labels)
    config, asked = read_json(folder / CONFIG, "Train in another --out."), options.to_json()
    if latest_checkpoint(folder) is None:
        _check_nothing_learned(folder)
        return _new_config(options, labels)
    anew = "Repeat the run's own options to continue it, or train elsewhere with another --out."
    prompts = PromptSet.from_json(config["prompt_set"])
    if prompts.domains != labels.domains:
        raise LanitError(f"the run {folder} was trained on other domains ({', '.join(prompts.domains)})", anew)
    if prompts.digest() != labels.prompt_set.digest():
        raise LanitError(
            f"the run {folder} was started with other prompts than label revision {labels.number}",
            f"Add --revision {config['label_revision']} to continue it, or train elsewhere with another --out.",
        )
    for name, value in config["options"].items():
        if name not in _FREE_ON_RESUME and asked.get(name) != value:
            raise LanitError(f"the run {folder} was started with {name} {value}, not {asked.get(name)}", anew)
    return {"run": None} | config


def _check_nothing_learned(folder: Path) -> None:
    """Raise LanitError where the run has a model that was trained, which beginning anew would replace."""
    for model in (folder / MODEL, folder / BEST):
        if model.exists() and _steps_of(model) != 0:
            raise LanitError(
                f"{model} holds a trained model, but the run {folder} has no checkpoint to go on from",
                "Train in another --out; the model can still be used.",
            )


def _steps_of(model: Path) -> int | None:
    """How long a model was trained; none where that cannot be read."""
    try:
        steps = read_document(model / BUNDLE_FILES[0], "")[0]["training"]["steps"]
    except (LanitError, KeyError, TypeError):
        return None
    return steps if isinstance(steps, int) else None
