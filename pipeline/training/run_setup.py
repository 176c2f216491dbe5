"""Building a training run from a store and options: what must hold before the first step, or a run is continued."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lanit.errors import LanitError, listed
from lanit.methods.clusters import ClusterOptions
from lanit.methods.method import Method, OneImage, Setting
from lanit.methods.table import METHODS
from lanit.sentences import touches_phrase
from pipeline.clip.models import ClipModel
from pipeline.clip.text_towers import OpaqueText
from pipeline.commands import store_option
from pipeline.computing.devices import emulates_bf16, warning_of_bf16
from pipeline.files import read_json, sealed, sha256_bytes, write_json
from pipeline.folders import remove_ours
from pipeline.models.run_folder import BEST, BUNDLE_FILES, CONFIG, METRICS, MODEL, SAMPLES, is_ours
from pipeline.models.tensor_folders import read_document
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.learned_prompts import prompt_learner
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.showing import console
from pipeline.store.image_cache import open_sized_images
from pipeline.store.pairs import partners, record_of
from pipeline.store.store import LabelRevision, Store
from pipeline.training.checkpoints import latest_checkpoint, newest_whole_checkpoint
from pipeline.training.clock import Clock, clock_of
from pipeline.training.evaluation import REAL_IMAGES, Evaluator, Sources
from pipeline.training.found_clusters import unlabelled
from pipeline.training.growth import inner_networks
from pipeline.training.guard import PromptGuard
from pipeline.training.learner import Learner, kept_context
from pipeline.training.one_word import example_of, labels_of
from pipeline.training.processes import Processes
from pipeline.training.refresh import RunLabels
from pipeline.training.run_files import RunFiles
from pipeline.training.run_model import RunModel
from pipeline.training.train_options import TrainOptions
from pipeline.training.training_data import TrainingData
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
    clip.towers.to(device)
    labels = _labels_to_begin_with(store, folder, options, revision)
    pairs = _pairs(store) if options.pairs == "yes" else None
    paired = None if pairs is None else record_of(store, pairs)
    config = _checked_config(folder, options, labels, paired)
    bf16 = uses_bf16(options, device)
    if bf16 and processes.first and (slow := warning_of_bf16(device)):
        console.warn(f"{slow}: --set precision=float32 in a new run")
    with processes.first_alone():
        images = open_sized_images(store, options.size, options.cache_gb)
    slack = "drop" if isinstance(options.settings, OneImage) else options.slack  # beside the word only that image
    data = TrainingData(images, labels, slack, options.balance, pairs)
    found = processes.from_first(lambda: newest_whole_checkpoint(folder, config["run"], console.warn))
    inner = None if found else inner_networks(options.settings, options.size, labels.domains)
    method = _method(options, labels.prompt_set, clip, data, device, bf16, inner)
    run = TrainingRun(
        options=options,
        processes=processes,
        learner=Learner(method, options.phase_2_from, Clock(revision=labels.number)),
        data=data,
        labels=RunLabels(store, folder.name, options.settings, labels),
        files=RunFiles(folder, config["run"], options.keep, options.batch_size, processes.first),
        model=RunModel(
            sizes=options.settings.network_options(options.size, len(labels.domains)),
            fingerprint=clip.fingerprint,
            clip_spec=store.clip_spec,
            clip_architecture=store.clip_architecture,
            images=len(images),
            batch_size=options.batch_size,
            device=str(device),
            precision="bf16" if bf16 else "float32",
            options=options.to_json(),
            written=labels.prompt_set,
            pairs=paired,
            embed=partial(embed_prompts, clip),
        ),
        clip=clip,
        evaluator=_evaluators(store, data, options, device),
        guard=PromptGuard(store, clip),
    )
    if found is not None:
        _resume(run, *found)
    method.compile()
    clock = run.learner.clock
    with processes.first_alone():
        if processes.first and found is not None:
            _plan_anew(clock, folder, options, config)
            model = run.model.now(run.learner, data)
            run.files.write_what_follows(clock, model, run.best_model, console.warn)
        elif processes.first:
            write_json(folder / CONFIG, sealed(config))
            _forget_all(folder)
    run.learner.clock = processes.shared(clock)
    return run


def _labels_to_begin_with(store: Store, folder: Path, options: TrainOptions, revision: int | None) -> LabelRevision:
    """Those of the store; none where the method finds its own."""
    if isinstance(options.settings, ClusterOptions):
        return unlabelled(store, folder.name, options.settings, revision)
    labels = labels_of(options.settings, store.labels_to_train(revision).read())
    store.check_current(labels)
    return labels


def _method(
    options: TrainOptions,
    prompts: PromptSet,
    clip: ClipModel,
    data: TrainingData,
    device: torch.device,
    bf16: bool,
    inner: dict[str, torch.Tensor] | None,
) -> Method:
    """Seeded; with a learner of the prompts where they may be learned and CLIP's text side lets them. inner: networks
    to begin with, or none."""
    learner = None
    finds_clusters = isinstance(options.settings, ClusterOptions)
    if options.prompts_from < 1 and not finds_clusters and not isinstance(clip.text, OpaqueText):
        learner = prompt_learner(clip.text, prompts)
        _warn_of_touching(prompts)
    embedded = embed_prompts(clip, prompts).to(device)
    torch.manual_seed(options.seed)
    setting = Setting(
        image_size=options.size,
        domains=len(prompts.domains),
        device=device,
        bf16=bf16,
        encode=clip.encode_images,
        prompts=embedded,
        learner=learner,
        ema=options.ema,
        paired=data.paired,
        sample=partial(data.sample, device),
        example=example_of(options.settings, options.size),
        inner=inner,
    )
    return METHODS[options.method](options.settings, setting)


def _pairs(store: Store) -> np.ndarray:
    """See :func:`pipeline.store.pairs.partners`. Raises LanitError where there are none."""
    found = partners(store)
    if found is None:
        raise LanitError(
            f"the store {store.root} has no paired images",
            f"Pair them: lanit pair FROM TO{store_option(store.root)}; or train unpaired, as by --preset cyclegan.",
        )
    return found


def _warn_of_touching(prompts: PromptSet) -> None:
    touching = [f"'{template}'" for template in prompts.templates if touches_phrase(template)]
    if touching:
        console.warn(
            f"letters touch the phrase in {listed(touching, 3)}: the two are one word to CLIP, which prompt learning "
            "leaves as it is"
        )


def _resume(run: TrainingRun, checkpoint: Path, state: dict[str, Any]) -> None:
    """Put back a checkpoint, whose files are as they were written."""
    clock = clock_of(state)
    if run.options.steps and not run.options.minutes:
        clock.planned = run.options.steps
    labels = run.labels.read_current(clock.revision)
    run.learner.put_back(checkpoint, clock, kept_context(labels.prompt_set, run.model.written, run.device))
    run.data.use(labels)
    run.files.forget_lines_after(clock, state.get("metrics"), console.warn)


def _forget_all(folder: Path) -> None:
    """Remove what a run left that ended before its first checkpoint: it begins anew."""
    (folder / METRICS).unlink(missing_ok=True)
    for inner in (SAMPLES, MODEL, BEST):
        remove_ours(folder / inner, partial(_is_ours_in, inner))


def _is_ours_in(inner: str, name: str) -> bool:
    return is_ours(f"{inner}/{name}")


def _evaluators(
    store: Store, data: TrainingData, options: TrainOptions, device: torch.device
) -> Callable[[], Evaluator]:
    """By the labels that the run began with; of one that finds clusters, by those of now."""
    if isinstance(options.settings, ClusterOptions):
        return lambda: _evaluator(store, data, options, device)
    evaluator = _evaluator(store, data, options, device)
    return lambda: evaluator


def _evaluator(store: Store, data: TrainingData, options: TrainOptions, device: torch.device) -> Evaluator:
    """Sources from all over the store; real images of each domain, by the labels in ``data``."""
    images, active = data.images, data.labels.active
    rows = np.unique(np.linspace(0, len(images) - 1, options.evaluate_images).round().astype(int))
    sources = torch.from_numpy(images.take(rows)).to(device).float() / 127.5 - 1
    rng = np.random.default_rng(options.seed)
    carriers = [np.flatnonzero(column) for column in active.T]
    chosen = [np.sort(rng.permutation(found)[:REAL_IMAGES]) for found in carriers]
    everyone = np.unique(np.concatenate(chosen))
    embeddings = store.embeddings_of(everyone)
    real = [torch.from_numpy(embeddings[np.searchsorted(everyone, found)]) for found in chosen]
    own = torch.from_numpy(active[rows]).to(device)
    return Evaluator(Sources(sources, own), real, data.exclusive.to(device))


def _plan_anew(clock: Clock, folder: Path, options: TrainOptions, config: dict[str, Any]) -> None:
    """A run continued with other minutes plans its steps from the speed it had. config: as the run has it."""
    asked = options.to_json()
    if options.minutes and options.minutes != config["options"]["minutes"] and clock.planned:
        clock.planned = max(clock.step, round(clock.step / clock.seconds * options.minutes * 60))
    if config["options"] != asked:
        write_json(folder / CONFIG, sealed(config | {"options": asked}))


def uses_bf16(options: TrainOptions, device: torch.device) -> bool:
    """Whether the networks of a run are to be computed in bfloat16."""
    if options.precision in ("float32", "bf16"):
        return options.precision == "bf16"
    if device.type == "cuda":
        return not emulates_bf16(device)
    if options.precision == "fast":  # without AMX a step in bf16 takes a sixth longer than in float32 (docs/LOG.md)
        return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def _new_config(options: TrainOptions, labels: LabelRevision, pairs: dict[str, Any] | None) -> dict[str, Any]:
    """``config.json``; ``run`` is a digest of what decided the steps when the run began. pairs: what is noted of them,
    where images are paired."""
    begun = labels.number or labels.parent or 0  # of clusters, the revision that people labelled
    config = {"options": options.to_json(), "label_revision": begun, "prompt_set": labels.prompt_set.to_json()}
    config |= {} if pairs is None else {"pairs": pairs}
    fixed = {name: value for name, value in options.to_json().items() if name not in _FREE_ON_RESUME}
    return config | {"run": sha256_bytes(json.dumps(config | {"options": fixed}, sort_keys=True).encode())}


def _checked_config(
    folder: Path, options: TrainOptions, labels: LabelRevision, pairs: dict[str, Any] | None
) -> dict[str, Any]:
    """The configuration of the run in ``folder``, or of a new one. Refuses to continue a run under other options.

    Raises LanitError that names them, and where a run has a model, but no checkpoint to go on from.
    """
    if not (folder / CONFIG).is_file():
        return _new_config(options, labels, pairs)
    config, asked = read_json(folder / CONFIG, "Train in another --out."), options.to_json()
    if latest_checkpoint(folder) is None:
        _check_nothing_learned(folder)
        return _new_config(options, labels, pairs)
    anew = "Repeat the run's own options to continue it, or train elsewhere with another --out."
    for name, value in config["options"].items():
        if name not in _FREE_ON_RESUME and asked.get(name) != value:
            raise LanitError(f"the run {folder} was started with {name} {value}, not {asked.get(name)}", anew)
    _check_pairs(folder, config.get("pairs"), pairs)
    begun = config["label_revision"]
    if not labels.number and begun != (labels.parent or 0):
        how = f"Add --revision {begun}" if begun else "Leave out --revision"
        raise LanitError(
            f"the run {folder} was started with {f'label revision {begun}' if begun else 'no label revision'}",
            f"{how} to continue it, or train elsewhere with another --out.",
        )
    prompts = PromptSet.from_json(config["prompt_set"])
    if prompts.domains != labels.domains:
        raise LanitError(f"the run {folder} was trained on other domains ({', '.join(prompts.domains)})", anew)
    if prompts.digest() != labels.prompt_set.digest():
        raise LanitError(
            f"the run {folder} was started with other prompts than label revision {labels.number}",
            f"Add --revision {config['label_revision']} to continue it, or train elsewhere with another --out.",
        )
    return {"run": None} | config


def _check_pairs(folder: Path, begun: dict[str, Any] | None, pairs: dict[str, Any] | None) -> None:
    """Raise LanitError where a run began with other pairs than those of now. begun: none of an older lanit."""
    if begun is None or pairs is None or begun == pairs:
        return
    raise LanitError(
        f"the run {folder} was started with other pairs ({begun['count']:,}) than the store has now "
        f"({pairs['count']:,})",
        "Pair the images as they were (lanit pair FROM TO) to continue it, or train elsewhere with another --out.",
    )


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
