"""A training run goes on bit for bit where it stopped, however it stopped, and says what it did."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lanit.errors import LanitError, UsageError
from lanit.labels import Rule
from lanit.methods import stargan
from lanit.objectives import Guidance, StepOptions
from lanit.prompts import PromptLearner
from pipeline.clip.models import load_clip
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.inspection.label_report import label_and_report
from pipeline.labelling.known_labels import Truth
from pipeline.labelling.label import HowToLabel, label
from pipeline.models.bundle import load_bundle
from pipeline.models.tensor_folders import read_tensors
from pipeline.prompts.learned_prompts import read_learned_prompts
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import Store
from pipeline.training import training
from pipeline.training.checkpoints import latest_checkpoint
from pipeline.training.evaluation import Evaluator
from pipeline.training.loss_log import LossLog
from pipeline.training.run_setup import uses_bf16
from pipeline.training.train_options import PRESETS, TrainOptions, make_options, options_from
from pipeline.training.training_data import TrainingData
from tests.label_builders import add_labels
from tests.training_world import IMAGES, PROMPTS, STEPS, TINY, changed, copy_of, draw_store, go, labelled, metrics


@pytest.fixture(scope="module")
def original(tiny_clip: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of twelve drawn images."""
    return draw_store(tmp_path_factory.mktemp("training"), tiny_clip)


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Store:
    """A store of one's own, labelled at random; three images have no label, and two have all."""
    return labelled(copy_of(original, tmp_path / "store"))


class Crash(Exception):
    pass


def signal_at(step: int, number: int = signal.SIGINT) -> Callable[[int, int], None]:
    def progress(done: int, planned: int) -> None:
        if (done, planned) == (step, STEPS):
            os.kill(os.getpid(), number)

    return progress


def crash_at(step: int) -> Callable[[int, int], None]:
    def progress(done: int, planned: int) -> None:
        if (done, planned) == (step, STEPS):
            raise Crash

    return progress


def checkpoint(run: Path, step: int) -> dict[str, Any]:
    """Everything in a checkpoint, seconds aside."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    found: dict[str, Any] = {
        f"{path.stem}: {name}": tensor
        for path in folder.glob("*.safetensors")
        for name, tensor in read_tensors(path).items()
    }
    state = json.loads((folder / "state.json").read_text())  # both cover seconds
    return found | {
        f"state: {name}": value for name, value in state.items() if name not in ("seconds", "seal", "metrics")
    }


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        other = second[name]
        same = torch.equal(value, other) if isinstance(value, Tensor) else value == other
        assert same, f"{name} differs"


def assert_same_runs(a: Path, b: Path, step: int = STEPS) -> None:
    """Equal checkpoints, equal models, equal label revisions in the stores beside the runs."""
    assert_same(checkpoint(a, step), checkpoint(b, step))
    assert_same(*(read_tensors(run / "model" / "model.safetensors") for run in (a, b)))
    stores = [Store.open(run.parent / "store") for run in (a, b)]
    assert stores[0].revisions() == stores[1].revisions()
    for number in stores[0].revisions():
        one, two = (store.labels(number) for store in stores)
        assert (one.origin, one.parent) == (two.origin, two.parent)
        assert np.array_equal(one.active, two.active)
        assert np.array_equal(one.margin, two.margin)


@pytest.fixture
def twins(store: Store, tmp_path: Path) -> Callable[[], tuple[Path, Path]]:
    """Two folders, each with a store of the same bytes and room for a run of the same name."""

    def make() -> tuple[Path, Path]:
        for name in ("whole", "parts"):
            copy_of(store.root, tmp_path / name / "store")
        return tmp_path / "whole" / "run", tmp_path / "parts" / "run"

    return make


VARIANTS = {
    "fused": TINY,
    "paper": changed(TINY, schedule="paper"),
    "joint-balanced": changed(TINY, prompt_update="joint", balance="domain", domain_scope="active"),
    "no-prompts": changed(TINY, prompts_from=1.0, crop=0.0),
}


@pytest.mark.parametrize(
    ("variant", "at"), [("fused", 3), ("paper", 3), ("fused", 5), ("joint-balanced", 4), ("no-prompts", 1)]
)
def test_a_stopped_run_ends_where_the_whole_one_does(
    twins: Callable[[], tuple[Path, Path]], tiny_clip: Any, variant: str, at: int
) -> None:
    """6 steps equal 3, Ctrl-C, and 3 more, across the beginning of phase 2 and a label refresh, to the last bit."""
    whole, parts = twins()
    options = VARIANTS[variant]
    assert go(whole, tiny_clip, options).steps == STEPS
    first = go(parts, tiny_clip, options, progress=signal_at(at))
    assert (first.steps, first.started_at, first.interrupted) == (at, 0, True)
    torch.manual_seed(99)  # global randomness has no say
    np.random.seed(99)
    second = go(parts, tiny_clip, options)
    assert (second.steps, second.started_at, second.interrupted) == (STEPS, at, False)
    assert_same_runs(whole, parts)
    if variant != "no-prompts":
        before, after = checkpoint(parts, 0), checkpoint(parts, STEPS)
        assert not torch.equal(before["prompts: context"], after["prompts: context"])
        assert len(Store.open(parts.parent / "store").revisions()) == 3
        assert after["state: revision"] == 3


@pytest.mark.parametrize("schedule", ["fused", "paper"])
def test_a_run_stopped_at_ten_random_steps_of_both_phases_ends_where_the_whole_one_does(
    twins: Callable[[], tuple[Path, Path]], tiny_clip: Any, schedule: Any
) -> None:
    """Each stop is a resume; with both schedules there are twenty."""
    whole, parts = twins()
    options = changed(TINY, steps=16, schedule=schedule, evaluate_every=5, evaluate_images=4, sample_every=0)
    go(whole, tiny_clip, options)
    stops = sorted(np.random.default_rng(len(schedule)).permutation(np.arange(1, 16))[:10].tolist())
    assert stops[0] < 8 < stops[-1], "phase 2 begins at step 8"
    for stop in stops:

        def progress(done: int, planned: int, stop: int = stop) -> None:
            if done == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        assert go(parts, tiny_clip, options, progress=progress).steps == stop
    go(parts, tiny_clip, options)
    assert_same_runs(whole, parts, 16)
    assert checkpoint(parts, 16)["state: best_step"] in (5, 10, 15, 16)


def test_the_best_checkpoint_and_its_model_stay(
    store: Store, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the figures: the step of the least one is kept, and its bundle is the model of that step."""
    figures = iter([0.0, 0.5, 0.2, 0.4, 0.3, 0.9, 0.8])  # the first is of step 0, when nothing was learned
    monkeypatch.setattr(Evaluator, "measure", lambda *_: {"kid": next(figures), "recognised": 0.5})
    models = {}

    def keep(done: int, planned: int) -> None:
        models[done] = read_tensors(tmp_path / "run" / "model" / "model.safetensors")

    options = changed(TINY, evaluate_every=1, checkpoint_every=1, keep=1)
    report = go(tmp_path / "run", tiny_clip, options, progress=keep)
    assert (report.best_step, report.best_by, report.best) == (2, "kid", 0.2)
    folders = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert folders == ["step-00000002", f"step-{STEPS:08d}"]
    best = read_tensors(tmp_path / "run" / "best" / "model.safetensors")
    assert_same(best, models[2])
    assert not all(torch.equal(value, models[STEPS][name]) for name, value in best.items())
    assert load_bundle(tmp_path / "run" / "best").training["steps"] == 2


def test_images_decoded_as_they_are_drawn_train_the_same_model(
    twins: Callable[[], tuple[Path, Path]], tiny_clip: Any
) -> None:
    cached, drawn = twins()
    go(cached, tiny_clip)
    go(drawn, tiny_clip, changed(TINY, cache_gb=0.0))
    assert not (drawn.parent / "store" / "cache").exists()
    assert_same_runs(cached, drawn)


def test_what_could_fail_hours_later_is_tried_at_step_0(store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    go(tmp_path / "run", tiny_clip, changed(TINY, steps=2, refresh_every=0))
    first = [line["kind"] for line in metrics(tmp_path / "run") if line["step"] == 0]
    assert first == ["sample", "evaluation", "refresh rehearsed"]
    assert (tmp_path / "run" / "checkpoints" / "step-00000000" / "state.json").is_file()
    assert (tmp_path / "run" / "samples" / "00000000.png").is_file()
    assert store.revisions() == [1], "a rehearsal writes nothing"


def test_labels_that_cannot_be_written_stop_a_run_before_its_first_step(
    store: Store, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(LanitError, match=r"cannot write .*labels.*No space left"):
        go(tmp_path / "run", tiny_clip)
    assert latest_checkpoint(tmp_path / "run") is None


def test_out_of_memory_says_what_to_lower(
    store: Store, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ):

        def fail(*_: Any, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(stargan, "fused_step", fail)
        with pytest.raises(LanitError, match="out of memory with 2 images of 32 px") as caught:
            go(tmp_path / "run", tiny_clip)
        assert "--batch-size" in caught.value.hint
    monkeypatch.setattr(stargan, "fused_step", lambda *_: (_ for _ in ()).throw(RuntimeError("another")))
    with pytest.raises(RuntimeError, match="another"):
        go(tmp_path / "run", tiny_clip)


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: values read, and shapes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in WAITING:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero, aten.unique_dim,
    aten._unique2, aten.repeat_interleave,
}  # fmt: skip


@pytest.mark.parametrize("schedule", ["fused", "paper"])
@pytest.mark.parametrize("learning", [False, True])
def test_no_step_waits_for_its_device(
    store: Store, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: Any, learning: bool
) -> None:
    """R1, prompts, averages, optimisers, differentiable augmentation and the sums of losses included."""
    waits, real, log = Waits(), training._step, LossLog()

    def watched(*arguments: Any) -> Any:
        with waits:
            parts = real(*arguments)
            log.add(parts, 1)
        return parts

    monkeypatch.setattr(training, "_step", watched)
    options = changed(
        TINY, steps=3, schedule=schedule, prompts_from=0.0 if learning else 1.0, r1_every=1, augment="differentiable"
    )
    go(tmp_path / "run", tiny_clip, options)
    assert waits.found == []
    with waits:
        torch.ones(1).item()
    assert len(waits.found) == 1, "it does count"


@pytest.mark.parametrize("schedule", ["fused", "paper"])
def test_clip_guides_and_prompts_learn_on_every_so_many_steps(
    store: Store, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    """The other steps ask for what a step without CLIP's guidance does, and for nothing of CLIP."""
    asked, seen, moved, name = list[StepOptions](), list[int](), list[bool](), f"{schedule}_step"
    take = getattr(stargan, name)

    def watched(nets: Any, optimisers: Any, batch: Any, prompts: Any, plan: Any, terms: StepOptions, draws: Any) -> Any:
        def guidance() -> Guidance:
            found = prompts()
            moved.append(found.prompts.domains.requires_grad)

            def encode(images: Tensor) -> Tensor:
                seen.append(len(asked))
                return found.encode(images)

            return replace(found, encode=encode)

        asked.append(terms)
        return take(nets, optimisers, batch, guidance, plan, terms, draws)

    monkeypatch.setattr(stargan, name, watched)
    go(tmp_path / "run", tiny_clip, changed(TINY, schedule=schedule, domain_every=3, log_every=1))
    assert sorted(set(seen)) == [1, 4]
    assert moved == [False, False, False, True, False, False]  # CLIP reads prompts that learn, from step 3 on
    plain = replace(asked[0], weights=replace(asked[0].weights, domain=0.0))
    assert asked == [asked[0], plain, plain] * 2
    losses = [line for line in metrics(tmp_path / "run") if line["kind"] == "losses"]
    assert ["domain" in line for line in losses] == [True, False, False] * 2


def test_guidance_on_no_step_is_refused_with_what_to_set() -> None:
    with pytest.raises(UsageError, match="domain_every is at least 1") as caught:
        changed(TINY, domain_every=0)
    assert "--set domain=0" in caught.value.hint


def test_a_killed_run_ends_where_the_whole_one_does(twins: Callable[[], tuple[Path, Path]], tiny_clip: Any) -> None:
    """Steps, labels and metric lines since the last checkpoint are done again, and appear once."""
    whole, parts = twins()
    options = changed(TINY, checkpoint_every=3, log_every=1)
    go(whole, tiny_clip, options)
    with pytest.raises(Crash):
        go(parts, tiny_clip, options, progress=crash_at(5))  # after the refresh of step 4
    assert len(Store.open(parts.parent / "store").revisions()) == 2
    report = go(parts, tiny_clip, options)
    assert report.started_at == 3
    assert_same_runs(whole, parts)
    lines = [[(line["step"], line["kind"]) for line in metrics(run)] for run in (whole, parts)]
    assert lines[0] == lines[1]


def test_options_that_change_no_step_may_change_on_resume(
    twins: Callable[[], tuple[Path, Path]], tiny_clip: Any
) -> None:
    whole, parts = twins()
    go(whole, tiny_clip)
    go(parts, tiny_clip, changed(TINY, log_every=1, sample_every=2, checkpoint_every=1), progress=signal_at(3))
    go(parts, tiny_clip, changed(TINY, log_every=3, keep=1))
    assert_same_runs(whole, parts)
    assert [path.name for path in (parts / "checkpoints").iterdir()] == [f"step-{STEPS:08d}"]


def test_a_finished_run_is_left_as_it_is(store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    go(tmp_path / "run", tiny_clip)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    report = go(tmp_path / "run", tiny_clip)
    assert (report.steps, report.started_at) == (STEPS, STEPS)
    assert {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"
    } == before


def test_a_run_may_be_made_longer(store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    short = changed(TINY, steps=2, prompts_from=1.0)
    go(tmp_path / "run", tiny_clip, short)
    report = go(tmp_path / "run", tiny_clip, replace(short, steps=4))
    assert (report.steps, report.started_at) == (4, 2)


def test_a_run_by_the_clock_may_be_made_longer(
    store: Store, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And needs no number of steps: by this clock each takes an eighth of a second."""
    ticks = itertools.count()
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 8))
    monkeypatch.setattr(training, "_TIMED_STEPS", 2)
    timed = changed(TINY, steps=0, minutes=0.45 / 60, prompts_from=1.0)
    assert go(tmp_path / "run", tiny_clip, timed).steps == 4
    assert go(tmp_path / "run", tiny_clip, replace(timed, minutes=1.2 / 60)).steps == 10


CHANGES: dict[str, Any] = {
    "learning_rate": 2e-3, "batch_size": 3, "seed": 1, "channels": 6, "size": 64, "schedule": "paper", "crop": 0.1,
    "prompts_from": 0.9, "slack": "drop", "refresh_every": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def begun(original: Path, tiny_clip: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    folder = tmp_path_factory.mktemp("begun")
    labelled(copy_of(original, folder / "store"))
    go(folder / "run", tiny_clip, changed(TINY, steps=1))
    return folder / "run"


@pytest.mark.parametrize("name", CHANGES)
def test_resuming_with_another_option_names_it(begun: Path, tiny_clip: Any, name: str) -> None:
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    with pytest.raises(LanitError, match=f"was started with {name} ") as caught:
        go(begun, tiny_clip, changed(TINY, **{name: CHANGES[name]}))
    assert f"not {CHANGES[name]}" in str(caught.value)
    assert "--out" in caught.value.hint
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before


def test_resuming_on_other_domains_is_refused(store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    go(tmp_path / "run", tiny_clip, changed(TINY, steps=1))
    labelled(store, replace(PROMPTS, domains=("smiling", "blond hair", "scarf")))
    with pytest.raises(LanitError, match="other domains") as caught:
        go(tmp_path / "run", tiny_clip)
    assert "--out" in caught.value.hint


def test_a_run_keeps_the_prompts_it_was_started_with(twins: Callable[[], tuple[Path, Path]], tiny_clip: Any) -> None:
    """Labels made meanwhile, of the same domains in other words, are for other runs."""
    whole, parts = twins()
    options = changed(TINY, refresh_every=0)
    go(whole, tiny_clip, options)
    go(parts, tiny_clip, options, progress=signal_at(3))
    other = PromptSet(PROMPTS.domains, ("one photo of a person with a {}",), ("one photo",), "other")
    labelled(Store.open(parts.parent / "store"), other)
    with pytest.raises(LanitError, match="other prompts") as caught:
        go(parts, tiny_clip, options)
    assert "--revision 1" in caught.value.hint
    go(parts, tiny_clip, options, revision=1)
    assert_same(checkpoint(whole, STEPS), checkpoint(parts, STEPS))
    assert replace(load_bundle(parts).prompt_set, learned=None) == PROMPTS


def test_labels_of_images_that_are_gone_are_refused(
    store: Store, original: Path, tiny_clip: Any, tmp_path: Path
) -> None:
    """Row i of the labels would not be row i of the images any more: never train on that silently."""
    go(tmp_path / "run", tiny_clip, changed(TINY, steps=1))
    more = tmp_path / "more"
    shutil.copytree(original.parent / "images", more)
    (more / "00.png").unlink()
    embed([more], store.root, tiny_clip, EmbedOptions(overwrite=True))
    with pytest.raises(LanitError, match="label revision 1"):
        go(tmp_path / "run", tiny_clip)
    labelled(Store.open(store.root))
    with pytest.raises(LanitError, match="label revision 1"):
        go(tmp_path / "run", tiny_clip)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_first(store: Store, tiny_clip: Any, tmp_path: Path, number: int) -> None:
    before = signal.getsignal(number)
    report = go(tmp_path / "run", tiny_clip, progress=signal_at(2, number))
    assert report.interrupted
    assert signal.getsignal(number) is before
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None
    assert newest.name == "step-00000002"
    assert load_bundle(tmp_path / "run").training["steps"] == 2


def test_the_model_is_the_average_with_the_prompts_as_learned(store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    go(tmp_path / "run", tiny_clip)
    saved, bundle = checkpoint(tmp_path / "run", STEPS), load_bundle(tmp_path / "run")
    for name, value in bundle.networks.state_dict().items():
        assert torch.equal(value, saved[f"average: {name}"])
        assert not torch.equal(value, saved[f"networks: generative.{name}"])
    assert replace(bundle.prompt_set, learned=None) == PROMPTS
    assert bundle.prompt_set.learned is not None
    assert np.array_equal(bundle.prompt_set.learned.array(), saved["prompts: average"].numpy())
    assert bundle.fingerprint == tiny_clip.fingerprint
    learner = PromptLearner(tiny_clip.text, PROMPTS.domains, PROMPTS.templates, PROMPTS.bases)
    domains, base = learner.text_features(saved["prompts: average"])
    torch.testing.assert_close(bundle.prompts.domains, domains)
    torch.testing.assert_close(bundle.prompts.base, base)
    assert not torch.allclose(bundle.prompts.base, learner.text_features()[1], atol=1e-4)


def test_refresh_relabels_by_the_averaged_prompts_and_counts_the_flips(
    store: Store, tiny_clip: Any, tmp_path: Path
) -> None:
    """METHOD (15): the old revision stays, the new one has it as parent, and the report says what flipped."""
    go(tmp_path / "run", tiny_clip)
    refreshed = [line for line in metrics(tmp_path / "run") if line["kind"] == "refresh"]
    assert [line["step"] for line in refreshed] == [4, 6], "phase 1 refreshes nothing"
    for line, number in zip(refreshed, (2, 3), strict=True):
        before, after = store.labels(number - 1), store.labels(number)
        assert line["label_revision"] == number
        assert (after.parent, after.origin) == (number - 1, f"train:run step {line['step']}")
        flips = {n: int((before.active[:, i] != after.active[:, i]).sum()) for i, n in enumerate(PROMPTS.domains)}
        assert line["flips"] == flips
        assert np.array_equal(after.active, after.margin > 0)
    assert sum(refreshed[0]["flips"].values()) > 0
    bundle = load_bundle(tmp_path / "run")
    difference = (bundle.prompts.domains - bundle.prompts.base).numpy()
    np.testing.assert_allclose(store.labels(3).margin, store.embeddings() @ difference.T, atol=1e-5)


def test_the_file_of_learned_prompts_labels_as_the_last_refresh_did(
    store: Store, tiny_clip: Any, tmp_path: Path
) -> None:
    """And a run that starts from those labels begins with what was learned."""
    report = go(tmp_path / "run", tiny_clip)
    assert {word.template for word in report.learned} == {PROMPTS.templates[0], PROMPTS.templates[1]}
    assert max(word.moved for word in report.learned) > 0
    refreshed = store.labels(report.label_revision)
    read = read_learned_prompts(tmp_path / "run" / "model" / "prompts.safetensors").prompts
    made = store.labels(label(store, tiny_clip, read, Rule()).revision)
    np.testing.assert_allclose(made.margin, refreshed.margin, atol=1e-6)
    assert not np.allclose(made.margin, store.labels(1).margin, atol=1e-3)
    go(tmp_path / "next", tiny_clip, changed(TINY, steps=1, prompts_from=0.9), revision=made.number)
    begun = checkpoint(tmp_path / "next", 0)["prompts: context"]
    torch.testing.assert_close(begun, checkpoint(tmp_path / "run", STEPS)["prompts: average"])


def test_refresh_keeps_offsets_and_the_labels_that_people_gave(store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(-1, 2, (store.ok, len(PROMPTS.domains))).astype(np.int8)
    paths = tuple(store.ok_images()["path"].to_pylist())
    given = Truth("path", paths, PROMPTS.domains, values == 1, values >= 0)
    made = label_and_report(store, tiny_clip, PROMPTS, Rule(), dry_run=True).statistics
    prompts = replace(PROMPTS, offsets=tuple(d.margin_p50 for d in made.domains))
    first = label(store, tiny_clip, prompts, HowToLabel(answers=given)).revision
    go(tmp_path / "run", tiny_clip, revision=first)
    for number in (first + 1, first + 2):
        after = store.labels(number)
        np.testing.assert_array_equal(after.human, values >= 0)
        expected = np.where(values >= 0, values == 1, after.margin > np.array(prompts.offsets, np.float32))
        np.testing.assert_array_equal(after.active, expected)
        assert replace(after.prompt_set, learned=None) == prompts
        assert after.prompt_set.learned is not None
    assert load_bundle(tmp_path / "run").prompt_set.offsets == prompts.offsets


def test_labels_in_use_are_those_of_the_newest_refresh(
    store: Store, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def spy(nets: Any, optimisers: Any, batch: Any, *rest: Any) -> Any:
        seen.append((batch.x_labels.numpy(), batch.y_labels.numpy()))
        return real(nets, optimisers, batch, *rest)

    real = stargan.fused_step
    monkeypatch.setattr(stargan, "fused_step", spy)
    drawn: dict[int, np.ndarray] = {}
    rows_of_step = TrainingData.rows_of_step

    def note(data: TrainingData, seed: int, step: int, *rest: Any) -> np.ndarray:
        drawn[step] = rows_of_step(data, seed, step, *rest)  # a step's own rows come after those fetched ahead
        return drawn[step]

    monkeypatch.setattr(TrainingData, "rows_of_step", note)
    go(tmp_path / "run", tiny_clip, changed(TINY, balance="domain"))
    assert len(seen) == STEPS
    for step, (x, y) in enumerate(seen):
        labels = store.labels(1 if step < 4 else 2).active
        assert np.array_equal(np.concatenate([x, y]), labels[drawn[step]])


@pytest.mark.parametrize("schedule", ["fused", "paper"])
def test_metric_lines_are_the_means_of_the_losses_since_the_last(
    store: Store, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    """A loss that is not paid in every step (R1, diversity) is averaged over the steps that paid it."""
    taken: list[dict[str, float]] = []
    real = getattr(stargan, f"{schedule}_step")

    def spy(*arguments: Any) -> Any:
        parts = real(*arguments)
        taken.append({name: value.item() for name, value in parts.items()})
        return parts

    monkeypatch.setattr(stargan, f"{schedule}_step", spy)
    options = changed(TINY, schedule=schedule, log_every=5, prompts_from=1.0)  # r1 in steps 0, 2 and 4; then in none
    go(tmp_path / "run", tiny_clip, options)
    lines = [line for line in metrics(tmp_path / "run") if line["kind"] == "losses"]
    assert [(line["step"], line["images"]) for line in lines] == [(5, 10), (6, 12)]
    assert [sum("r1" in parts for parts in taken[window]) for window in (slice(5), slice(5, 6))] == [3, 0]
    for line, window in zip(lines, (taken[:5], taken[5:]), strict=True):
        names = {name for parts in window for name in parts}
        assert set(line) - {"kind", "step", "images", "seconds"} == names
        for name in names:
            values = [parts[name] for parts in window if name in parts]
            assert line[name] == pytest.approx(sum(values) / len(values), abs=2e-5), name
    assert {"adversarial", "domain", "cycle", "style", "diversity", "total", "d_adversarial", "r1"} <= set(lines[0])
    seconds = [line["seconds"] for line in metrics(tmp_path / "run")]
    assert seconds == sorted(seconds)


def test_a_sample_line_comes_with_its_grid(store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    go(tmp_path / "run", tiny_clip, changed(TINY, steps=2, sample_every=1, prompts_from=1.0))
    lines = [line for line in metrics(tmp_path / "run") if line["kind"] == "sample"]
    assert {line["step"] for line in lines} == {0, 1, 2}
    assert len(lines) == 3, "one line a grid"
    for line in lines:
        with Image.open(tmp_path / "run" / "samples" / f"{line['step']:08d}.png") as grid:
            assert grid.width > 4 * 32
        assert 0 <= line["recognised"] <= 1
        assert 0 <= line["kept"] <= 1


@contextlib.contextmanager
def poisoned(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """From ``step`` on, the cycle loss is NaN and so are the networks."""
    real, count = stargan.fused_step, [0]

    def spy(nets: Any, *rest: Any) -> Any:
        parts = real(nets, *rest)
        count[0] += 1
        if count[0] > step:
            parts["cycle"] = torch.tensor(float("nan"))
            with torch.no_grad():
                nets.generator.to_rgb.bias.fill_(float("nan"))
        return parts

    with monkeypatch.context() as patch:
        patch.setattr(stargan, "fused_step", spy)
        yield


@pytest.mark.parametrize("every", [1, 2])
def test_a_loss_that_is_not_finite_is_named_and_never_saved(
    store: Store, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Also where checkpoints come more often than metric lines."""
    options = changed(TINY, log_every=5, checkpoint_every=every, prompts_from=1.0)
    with (
        poisoned(2, monkeypatch),
        pytest.raises(LanitError, match=r"the loss 'cycle' was not finite at step 3") as caught,
    ):
        go(tmp_path / "run", tiny_clip, options)
    assert "--learning-rate" in caught.value.hint
    assert "0.001" in caught.value.hint
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None
    assert newest.name == "step-00000002"
    for folder in ("networks", "average"):
        assert all(torch.isfinite(value).all() for value in read_tensors(newest / f"{folder}.safetensors").values())
    assert all(torch.isfinite(value).all() for value in load_bundle(tmp_path / "run").networks.state_dict().values())
    for line in metrics(tmp_path / "run"):
        assert all(np.isfinite(value) for value in line.values() if isinstance(value, float))


def test_progress_counts_steps_only(store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    go(tmp_path / "run", tiny_clip, changed(TINY, steps=3), progress=lambda done, planned: seen.append((done, planned)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_store_without_fitting_labels_says_what_to_type(
    original: Path, tiny_clip: Any, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    bare = copy_of(original, tmp_path / "store")
    with pytest.raises(LanitError, match="has no labels") as caught:
        go(tmp_path / "run", tiny_clip)
    assert "lanit label" in caught.value.hint
    labelled(bare)
    with pytest.raises(LanitError, match="holds embeddings of"):
        go(tmp_path / "run", load_clip(str(make_clip(seed=9))))
    with pytest.raises(LanitError, match="no label revision 7"):
        go(tmp_path / "run", tiny_clip, revision=7)
    assert not (tmp_path / "run").exists()


def test_too_few_images_to_train_on(original: Path, tiny_clip: Any, tmp_path: Path) -> None:
    store = copy_of(original, tmp_path / "store")
    active = np.zeros((IMAGES, 3), bool)
    active[4, 1] = True
    add_labels(store, active, active, prompts=PROMPTS)
    with pytest.raises(LanitError, match="only 1 images can be trained on"):
        go(tmp_path / "run", tiny_clip, changed(TINY, slack="drop"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 1}, "at least 2 images"),
        ({"steps": 0}, "neither steps nor minutes"),
        ({"size": 48}, "power of two"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"schedule": "both"}, "schedule 'both' is unknown"),
        ({"domain_scope": "some"}, "domain_scope 'some' is unknown"),
        ({"slack": "skip"}, "slack 'skip' is unknown"),
        ({"balance": "even"}, "balance 'even' is unknown"),
        ({"ema": 1.5}, "ema"),
        ({"crop": 2.0}, "crop"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_mean_nothing_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        changed(TINY, **change)


def test_presets_are_options_and_changes_lie_over_them() -> None:
    for name, values in PRESETS.items():
        assert options_from(name, {}).to_json() == TrainOptions().to_json() | values
    assert options_from("small-32", {"steps": 7, "size": None}).steps == 7
    assert options_from("small-32", {"steps": 7, "size": None}).size == 32
    with pytest.raises(UsageError, match="no preset 'large'") as caught:
        options_from("large", {})
    assert "small-64" in caught.value.hint


@pytest.mark.parametrize(
    ("preset", "changes", "output"),
    [("small-64", {}, "masked"), ("small-64,stargan", {}, "masked"), ("small-64,unit", {}, "masked"),
     ("small-64,pix2pix", {}, "residual"), ("small-64,bicyclegan", {}, "residual"),
     ("64,stargan", {}, "image"), ("small-64", {"classification": 0.0}, "residual"),
     ("small-64", {"method": "tunit"}, "masked"), ("small-64", {"method": "style-aware"}, "residual"),
     ("small-64", {"method": "tunit", "classification": 0.0}, "residual"),
     ("small-64", {"classification": 0.0, "output": "masked"}, "masked")],
)  # fmt: skip
def test_presets_have_a_mask_where_a_discriminator_teaches_it(
    preset: str, changes: dict[str, Any], output: str
) -> None:
    assert options_from(preset, changes).to_json()["output"] == output


@pytest.mark.parametrize(
    ("preset", "changes", "weight"),
    [("small-32", {}, 2.0), ("small-32", {"classification": 0.0}, 0.1), ("64", {}, 0.1),
     ("64", {"classification": 1.0}, 2.0), ("small-32", {"reconstruction": 0.5}, 0.5)],
)  # fmt: skip
def test_clusters_that_a_discriminator_teaches_leave_more_of_an_image(
    preset: str, changes: dict[str, Any], weight: float
) -> None:
    assert options_from(preset, changes | {"method": "tunit"}).to_json()["reconstruction"] == weight


@pytest.mark.parametrize(("emulated", "chosen"), [(True, "bf16"), (True, "auto"), (False, "bf16")])
def test_a_run_in_bf16_says_where_that_is_emulated_and_is_float32_there_unless_asked(
    store: Store,
    tiny_clip: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    emulated: bool,
    chosen: str,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: not emulated)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    go(tmp_path / "run", tiny_clip, changed(TINY, precision=chosen, steps=1))
    said = "this processor only emulates bfloat16" in capsys.readouterr().err
    assert said == (emulated and chosen == "bf16")
    assert load_bundle(tmp_path / "run").training["precision"] == ("float32" if chosen == "auto" else chosen)


@pytest.mark.parametrize("amx", [True, False])
def test_fast_is_bf16_on_a_cpu_only_where_that_is_faster(monkeypatch: pytest.MonkeyPatch, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    chosen = {name: uses_bf16(make_options({"precision": name}), torch.device("cpu"))
              for name in ("auto", "fast", "float32", "bf16")}  # fmt: skip
    assert chosen == {"auto": True, "fast": amx, "float32": False, "bf16": True}
