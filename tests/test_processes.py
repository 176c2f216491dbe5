"""Several processes train the model that one would: the same batches, losses and labels, to float tolerance."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cli
from lanit.augment import flip_and_crop
from lanit.errors import LanitError
from lanit.losses import adversarial_loss, flip_one
from lanit.ranks import Draws, Ranks
from pipeline.embedding.embed import embed
from pipeline.models.bundle import load_bundle
from pipeline.models.metric_lines import read_lines
from pipeline.models.tensor_folders import read_tensors
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.pairs import write_pairs
from pipeline.store.store import Store
from pipeline.training.processes import Pace, Processes, joined_processes
from tests.children import fresh_child
from tests.label_builders import add_labels

ROOT = Path(__file__).parent.parent
PROMPTS = PromptSet(
    ("smiling", "blond hair", "hat"), ("a face with {}.", "the {} face"), ("a face with.", "the face"), "test"
)
SETTINGS = (
    "channels=4", "max_channels=8", "mapping_width=8", "precision=float32", "r1_every=2", "r1=1", "prompts_from=0.5",
    "refresh_every=2", "prompt_learning_rate=0.001", "learning_rate=0.0001", "crop=0.5", "balance=uniform",
    "evaluate_images=4", "keep=9", "diversity=0", "output=image", "checkpoint_every=1",
)  # fmt: skip
"""A generator that draws from the first step on: where one begins at nothing, or behind a mask that paints nothing yet,
gradients are so small that rounding turns some, which differs from processor to processor, and Adam makes it as large
as any step. Runs below have a mask, from weights that draw."""


@pytest.fixture(scope="module")
def store(tiny_clip: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(13):
        coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 36)).save(folder / "images" / f"{number:02d}.png")
    embed([folder / "images"], folder / "store", tiny_clip)
    opened = Store.open(folder / "store")
    active = rng.random((opened.ok, 3)) < 0.4
    margin = np.where(active, 0.1, -0.1).astype(np.float32)
    add_labels(opened, active, margin, prompts=PROMPTS)
    return folder / "store"


def train_words(store: Path, run: Path, steps: int, settings: tuple[str, ...] = SETTINGS) -> list[str]:
    """The command, without its name."""
    words = ["train", "--out", str(run), "--preset", "small-32", "--store", str(store), "--device", "cpu", "--json"]
    words += ["--steps", str(steps), "--batch-size", "8"]
    for setting in settings:
        words += ["--set", setting]
    return words


def by_torchrun(store: Path, run: Path, settings: tuple[str, ...]) -> subprocess.Popen[str]:
    """Two processes of a run that would take days."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*launcher, str(ROOT / "cli.py"), *train_words(store, run, 100_000, settings)],
                            env=environment, cwd=store.parent, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def _train(words: list[str], environment: dict[str, str], folder: Path) -> None:
    """The command in this process, which writes what it prints into ``folder``."""
    os.environ |= environment
    torch.set_num_threads(1)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["lanit", *words]
    cli.main()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(processes: int, words: list[str], folder: Path) -> list[BaseProcess]:
    """So many processes with one command, told of each other as torchrun tells them; each writes into its own folder,
    ``folder``/0 and on."""
    port, started = str(free_port()), []
    for rank in range(processes):
        (folder / str(rank)).mkdir(parents=True)
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes),
                       "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes),
                       "TORCHELASTIC_RUN_ID": "test", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "0"}  # fmt: skip
        started.append(fresh_child(_train, words, environment if processes > 1 else {}, folder / str(rank)))
    return started


def ended(started: list[BaseProcess], folder: Path, code: int = 0) -> tuple[str, str]:
    """What they printed and what they complained of, one after the other, once all have ended with ``code``."""
    for process in started:
        process.join(300)
    out, err = ("".join((folder / str(rank) / name).read_text() for rank in range(len(started)))
                for name in ("out", "err"))  # fmt: skip
    assert [process.exitcode for process in started] == [code] * len(started), err
    return out, err


def train(processes: int, store: Path, run: Path, steps: int) -> tuple[str, str]:
    folder = run.parent / f"{run.name}-{steps}"
    return ended(start(processes, train_words(store, run, steps), folder), folder)


def networks(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights, and biases but those of the generator: before a norm they move by rounding alone."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    found = read_tensors(folder / "networks.safetensors")
    found = {name: value for name, value in found.items() if not ("generator." in name and name.endswith(".bias"))}
    return found | {f"prompts {name}": value for name, value in read_tensors(folder / "prompts.safetensors").items()}


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float = 2e-6) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=atol, msg=name)


def test_two_processes_train_the_model_of_one_and_either_continues_the_other(store: Path, tmp_path: Path) -> None:
    """Phase 2 with its label refresh included; Adam's moments come along."""
    alone, both = tmp_path / "alone", tmp_path / "both"
    out, err = train(2, store, both, 3)
    assert err.count("torchrun kills its processes 0 s after a signal to stop") == 1, "one of them speaks"
    report = json.loads(out)
    assert (report["processes"], report["steps"], report["images"]) == (2, 3, 24)
    train(1, store, alone, 3)
    for step in range(4):
        assert_close(networks(alone, step), networks(both, step))
    begun, ended = networks(alone, 0), networks(alone, 3)
    moved = [name for name in ended if (begun[name] - ended[name]).abs().max() > 1e-4]
    assert len(moved) > len(ended) / 2, "what does not move is no evidence"
    lines = [read_lines(run / "metrics.jsonl")[0] for run in (alone, both)]
    assert [(line["step"], line["kind"]) for line in lines[0]] == [(line["step"], line["kind"]) for line in lines[1]]
    for one, other in zip(*lines, strict=True):
        if one["kind"] in ("losses", "evaluation"):
            numbers = [
                {name: value for name, value in line.items() if name != "seconds" and not isinstance(value, str)}
                for line in (one, other)
            ]
            assert numbers[0] == pytest.approx(numbers[1], rel=2e-2, abs=1e-3)
    train(1, store, both, 4)
    train(2, store, alone, 4)
    assert_close(networks(alone, 4), networks(both, 4))


COMMON = ("channels=4", "max_channels=8", "precision=float32", "evaluate_images=4", "crop=0.5", "checkpoint_every=0",
          "learning_rate=0.0001")  # fmt: skip
_JUDGED = ("r1=1", "r1_every=2")
_DRAWN = ("output=image",)  # a residual begins at 0, where gradients are rounding
_MASKED = ("output=masked", "classification=4", "diversity=0", "prompts_from=1", "mapping_width=8")
BY_METHOD: dict[str, tuple[str, ...]] = {
    "content": ("method=content", "present=hat", *_DRAWN, *_JUDGED),
    "one-shot": ("method=one-shot", "present=hat", "one_from=0.5", *_JUDGED),
    "paired": (
        *_DRAWN,
        "pairs=yes",
        "pair=3",
        "discriminator_input=pair",
        "domain=0",
        "prompts_from=1",
        "mapping_width=8",
    ),
    "tunit": ("method=tunit", *_DRAWN, "clusters=3", "warm_up=0.5", "queue=24", "classification=2", *_JUDGED),
    "style-aware": ("method=style-aware", *_DRAWN, "clusters=3", "warm_up=0.5", "frozen_steps=1", *_JUDGED),
    "masked": (*_MASKED, *_JUDGED),
}
"""Methods of their own, pairs, and a mask that already draws: settings of runs of four steps, in which all that learns
does."""


def _train_each(commands: list[list[str]], ports: list[int], environment: dict[str, str], folder: Path) -> None:
    """The commands one after the other, each among processes that meet at a port of its own."""
    for words, port in zip(commands, ports, strict=True):
        try:
            _train(words, environment | {"MASTER_PORT": str(port)}, folder)
        except SystemExit as over:
            if over.code:
                raise


def test_two_processes_train_the_model_of_one_by_every_method(store: Path, tmp_path: Path) -> None:
    """Averages too, and what they hold beside weights: a bank of codes, moments of styles. Biases are not compared:
    before a norm they move by rounding alone, which Adam makes as large as any step."""
    fast = ("learning_rate=0.01", *(setting for setting in COMMON if "learning_rate" not in setting), *_MASKED)
    ended(start(1, train_words(store, tmp_path / "drawing", 4, fast), tmp_path / "begun"), tmp_path / "begun")
    commands: dict[int, list[list[str]]] = {}
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        shutil.copytree(store, tmp_path / str(count) / "store")
        opened = Store.open(tmp_path / str(count) / "store")
        write_pairs(opened, np.arange(6), np.arange(6) + 6)
        commands[count] = []
        for name, settings in BY_METHOD.items():
            words = train_words(opened.root, tmp_path / str(count) / name, 4, (*COMMON, *settings))
            words += ["--set", f"example={store.parent / 'images' / '00.png'}"] if name == "one-shot" else []
            words += ["--set", f"grow={tmp_path / 'drawing'}"] if name == "masked" else []
            words += [] if "clusters=3" in settings else ["--revision", "1"]
            commands[count].append(words)
    started: list[BaseProcess] = []
    ports = [free_port() for _ in BY_METHOD]
    for rank, count in ((0, 1), (0, 2), (1, 2)):
        folder = tmp_path / "said" / str(len(started))
        folder.mkdir(parents=True)
        environment = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(count), "RANK": str(rank)} if count > 1 else {}
        started.append(fresh_child(_train_each, commands[count], ports, environment, folder))
    ended(started, tmp_path / "said")
    for name in BY_METHOD:
        step = "checkpoints/step-00000004"
        for part in ("networks", "average"):
            alone, both = (
                {f"{name}: {key}": value for key, value in read_tensors(file).items() if "bias" not in key}
                for file in (tmp_path / count / name / step / f"{part}.safetensors" for count in ("1", "2"))
            )
            assert_close(alone, both, 1e-5)
        begun = read_tensors(tmp_path / "1" / name / "checkpoints/step-00000000/networks.safetensors")
        ends = read_tensors(tmp_path / "1" / name / step / "networks.safetensors")
        moved = [key for key, value in ends.items() if (value.float() - begun[key].float()).abs().max() > 1e-4]
        assert len(moved) > len(ends) / 2, name


def test_a_signal_to_one_process_stops_all_with_a_checkpoint(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    both = start(2, train_words(store, run, 100_000), tmp_path / "said")
    deadline = time.monotonic() + 240
    while not (run / "checkpoints" / "step-00000002").is_dir():
        assert all(process.is_alive() for process in both)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    both[-1].terminate()
    ended(both, tmp_path / "said", 130)
    newest = max((run / "checkpoints").glob("step-*"))
    assert (newest / "state.json").is_file()
    assert int(newest.name[5:]) >= 2


def test_what_torchrun_is_told_to_stop_saves_the_step_that_it_is_at(store: Path, tmp_path: Path) -> None:
    """Within its limit: nothing is lost, though torchrun itself always ends with 1 then."""
    run = tmp_path / "run"
    rare = (*SETTINGS[:-1], "checkpoint_every=0", "log_every=1")
    process = by_torchrun(store, run, rare)
    deadline = time.monotonic() + 240
    while not any(line["step"] >= 2 for line in read_lines(run / "metrics.jsonl")[0]):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    last = read_lines(run / "metrics.jsonl")[0][-1]["step"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000000", f"step-{last:08d}"]
    assert load_bundle(run).training["steps"] == last


def _fail_first(port: int, rank: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    with joined_processes("cpu") as processes:
        assert processes.from_first(lambda: rank) == 0
        with pytest.raises(LanitError if rank == 0 else SystemExit):
            processes.from_first(lambda: Processes(torch.device("cpu"), Ranks(0, 3)).check_batch(8))


def test_where_the_first_process_fails_the_others_end_too() -> None:
    """They would wait for it for hours."""
    port = free_port()
    both = [fresh_child(_fail_first, port, rank) for rank in range(2)]
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]


@pytest.mark.parametrize(("limit", "seconds", "warned"), [("60", 50.0, False), ("60", 70.0, True), (None, 31.0, True)])
def test_a_step_longer_than_the_patience_of_torchrun_is_told(
    monkeypatch: pytest.MonkeyPatch, limit: str | None, seconds: float, warned: bool
) -> None:
    warnings: list[str] = []
    cpu, clock = torch.device("cpu"), iter([100.0, 100.0 + 2 * (seconds - 10)])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    if limit:
        monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", limit)
    pace = Pace(since=7, beside=10.0)
    for step in (8, 9, 10, 11):
        pace.step_ended(step, cpu, warnings.append)
    assert bool(warnings) is warned
    if warned:
        enough = int(warnings[0].split("TORCH_ELASTIC_SHUTDOWN_TIMEOUT=")[1].split()[0])
        assert enough >= 2 * seconds


def test_a_batch_that_cannot_be_shared_says_which_can() -> None:
    three = Processes(torch.device("cpu"), Ranks(0, 3))
    three.check_batch(12)
    with pytest.raises(LanitError, match="a batch of 8 cannot be shared evenly by 3 processes") as caught:
        three.check_batch(8)
    assert caught.value.hint == "Try --batch-size 6."
    Processes(torch.device("cpu")).check_batch(7)


# --- what makes it so, without processes ---


def shares(rows: int, count: int, seed: int = 0) -> list[Draws]:
    return [Draws(torch.Generator().manual_seed(seed), Ranks(rank, count)) for rank in range(count)]


@pytest.mark.parametrize("count", [2, 3])
def test_the_draws_of_all_processes_are_those_of_one(count: int) -> None:
    whole = Draws(torch.Generator().manual_seed(0))
    expected = [whole.uniform(12, 5), whole.normal(24, 2)]
    made = [(draws.uniform(12 // count, 5), draws.normal(24 // count, 2)) for draws in shares(12, count)]
    for position, value in enumerate(expected):
        for rank in range(count):
            assert torch.equal(made[rank][position], value[rank::count])


def test_augmentation_and_flips_of_a_share_are_those_of_the_batch() -> None:
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    labels = torch.rand(8, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    whole = Draws(torch.Generator().manual_seed(0))
    cropped, (drawn, flipped) = flip_and_crop(images, whole, 0.7), flip_one(labels, whole)
    for rank, draws in enumerate(shares(8, 2)):
        torch.testing.assert_close(flip_and_crop(images[rank::2], draws, 0.7), cropped[rank::2])
        own = flip_one(labels[rank::2], draws)
        assert torch.equal(own[0], drawn[rank::2])
        assert torch.equal(own[1], flipped[rank::2])


def test_a_loss_over_active_entries_is_weighed_by_those_of_the_whole_batch() -> None:
    """Shares with uneven numbers of labels: the mean of what they return is the loss of the batch."""

    class Counted(Ranks):
        def mean(self, value: torch.Tensor) -> torch.Tensor:
            return labels.sum() / 2

    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([[1, 1, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)
    halves = [adversarial_loss(logits[r::2], labels[r::2], Counted(r, 2)) for r in range(2)]
    assert torch.stack(halves).mean().item() == pytest.approx(adversarial_loss(logits, labels).item(), rel=1e-6)
    unweighed = torch.stack([adversarial_loss(logits[r::2], labels[r::2]) for r in range(2)]).mean()
    assert unweighed.item() != pytest.approx(adversarial_loss(logits, labels).item(), rel=1e-3)
