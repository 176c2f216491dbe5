"""The folder of a run: nobody else's is touched, one writer at a time, and what a kill left out is made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lanit.errors import LanitError
from pipeline.files import read_json
from pipeline.model_exports.export_model import export_model
from pipeline.models.bundle import load_bundle
from pipeline.models.metric_lines import add_line, read_lines
from pipeline.models.run_folder import (
    BEST,
    CHECKPOINT_FILES,
    CHECKPOINTS,
    CONFIG,
    METRICS,
    MODEL,
    MODEL_FILES,
    SAMPLES,
    check_run_folder,
    is_ours,
    locked_run,
)
from pipeline.training.clock import Clock
from pipeline.training.evaluation import Evaluator
from pipeline.training.learner import Learner
from tests.training_world import TINY, changed, copy_of, draw_store, go, labelled

STEPS, BEST_STEP = 3, 2
OPTIONS = changed(TINY, steps=STEPS, log_every=1, evaluate_every=1, checkpoint_every=1, keep=2, refresh_every=0)


@pytest.fixture(scope="module")
def finished(tiny_clip: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps that learns its prompts from the second on; the evaluation of step 2 was the best."""
    folder = tmp_path_factory.mktemp("finished")
    draw_store(folder, tiny_clip)
    labelled(copy_of(folder / "store", folder / "labelled" / "store"))
    figures = iter([0.0, 0.5, 0.2, 0.9])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "measure", lambda *_: {"kid": next(figures)})
        assert go(folder / "labelled" / "run", tiny_clip, OPTIONS).best_step == BEST_STEP
    return folder / "labelled" / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, store included."""
    shutil.copytree(finished.parent, tmp_path / "copy")
    return tmp_path / "copy" / "run"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)


def retire(folder: Path) -> None:
    """As a process leaves it that was killed between the two renames of a replacement."""
    folder.rename(folder.with_name(f".{folder.name}.12345.old"))


LOST: dict[str, Callable[[Path], object]] = {
    "model deleted": lambda run: shutil.rmtree(run / "model"),
    "model of another step": lambda run: (shutil.rmtree(run / "model"), shutil.copytree(run / "best", run / "model")),
    "a bit of the weights changed": lambda run: flip(run / "model" / "model.safetensors"),
    "a bit of what is said of them changed": lambda run: flip(run / "model" / "model.json"),
    "learned prompts deleted": lambda run: (run / "model" / "prompts.safetensors").unlink(),
    "model half replaced": lambda run: retire(run / "model"),
    "best deleted": lambda run: shutil.rmtree(run / "best"),
    "best of another step": lambda run: (shutil.rmtree(run / "best"), shutil.copytree(run / "model", run / "best")),
    "best damaged": lambda run: flip(run / "best" / "model.safetensors"),
    "checkpoint half replaced": lambda run: retire(run / "checkpoints" / f"step-{STEPS:08d}"),
}


@pytest.mark.parametrize("lost", LOST)
def test_what_follows_from_a_checkpoint_is_made_again_bit_for_bit(run: Path, tiny_clip: Any, lost: str) -> None:
    before = contents(run)
    LOST[lost](run)
    report = go(run, tiny_clip, OPTIONS)
    assert (report.steps, report.started_at) == (STEPS, STEPS)
    assert contents(run) == before


def test_the_last_sample_and_evaluation_are_made_again(run: Path, tiny_clip: Any) -> None:
    """Lost with their lines, and where the picture alone is gone, it comes without another line."""
    before = contents(run)
    sample, path = run / "samples" / f"{STEPS:08d}.png", run / "metrics.jsonl"
    sample.unlink()
    go(run, tiny_clip, OPTIONS)
    lines = [(line["step"], line["kind"]) for line in read_lines(path)[0]]
    assert lines.count((STEPS, "sample")) == 1
    assert contents(run) == before
    kept = [line for line in path.read_text().splitlines(keepends=True) if json.loads(line)["step"] < STEPS]
    path.write_text("".join(kept))
    sample.unlink()
    go(run, tiny_clip, OPTIONS)
    again = [(line["step"], line["kind"]) for line in read_lines(path)[0]]
    assert again == [line for line in lines if line != (STEPS, "losses")]
    assert sample.read_bytes() == before[f"samples/{STEPS:08d}.png"]


def test_damaged_and_torn_lines_of_metrics_end_no_run(run: Path, tiny_clip: Any) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    spoilt = [lines[0].replace('"step": 0', '"step": 1'), "\x00\n", *lines[1:], '{"step": 3, "kind": "sam']
    path.write_text("".join(spoilt))
    assert read_lines(path)[1] == 2
    go(run, tiny_clip, OPTIONS)
    assert path.read_text() == "".join(lines[1:])


@pytest.mark.parametrize("damage", ["cut", "swapped", "changed"])
def test_lines_that_are_not_those_the_run_wrote_are_told(
    run: Path, tiny_clip: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    other = {"cut": lines[:-2], "changed": [lines[0].replace('"step": 0', '"step": 1'), *lines[1:]]}
    if damage == "swapped":  # whole lines of another run
        shutil.copytree(run, tmp_path / "other")
        (tmp_path / "other" / "metrics.jsonl").unlink()
        for line in map(json.loads, lines):
            line.pop("seal")
            add_line(tmp_path / "other" / "metrics.jsonl", line | {"seconds": line["seconds"] + 9})
        other["swapped"] = (tmp_path / "other" / "metrics.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(other[damage]))
    assert export_model(run, tmp_path / "out").warnings
    capsys.readouterr()
    go(run, tiny_clip, OPTIONS)
    assert "metrics.jsonl lacks lines that this run wrote, or has others" in " ".join(capsys.readouterr().err.split())


def test_a_best_model_that_is_made_again_is_the_one_that_was_there(run: Path, tiny_clip: Any, tmp_path: Path) -> None:
    """Also where the run goes on under other numbers of steps, which the model tells people."""
    twin = tmp_path / "twin" / "run"
    shutil.copytree(run.parent, twin.parent)
    (twin / "best" / "model.safetensors").write_bytes(b"damaged")
    for folder in (run, twin):
        go(folder, tiny_clip, changed(OPTIONS, steps=STEPS + 1, evaluate_every=0))
    for name in ("model.json", "model.safetensors"):
        assert (run / "best" / name).read_bytes() == (twin / "best" / name).read_bytes()


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(run: Path, tiny_clip: Any) -> None:
    for name in ("checkpoints", "model", "best"):
        shutil.rmtree(run / name)
    go(run, tiny_clip, changed(OPTIONS, steps=1, seed=7))
    lines = [(line["step"], line["kind"]) for line in read_lines(run / "metrics.jsonl")[0]]
    assert len(lines) == len(set(lines))
    assert max(step for step, _ in lines) == 1
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["00000000.png", "00000001.png"]
    assert read_json(run / "config.json")["options"]["seed"] == 7


def test_a_trained_model_without_a_checkpoint_is_not_replaced(run: Path, tiny_clip: Any) -> None:
    shutil.rmtree(run / "checkpoints")
    before = contents(run)
    for model in ("model", "best"):
        with pytest.raises(LanitError, match="no checkpoint to go on from"):
            go(run, tiny_clip, OPTIONS)
        assert contents(run) == before
        if model == "model":
            shutil.rmtree(run / "model")
            before = contents(run)


def test_a_damaged_checkpoint_is_done_again_from_the_one_before(
    run: Path, tiny_clip: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends with the same weights. What lies in the damaged folder that is not ours is not replaced."""
    monkeypatch.setattr(Evaluator, "measure", lambda *_: {"kid": 0.9})
    newest = run / "checkpoints" / f"step-{STEPS:08d}"
    before = contents(run)
    (newest / "mine.txt").touch()
    with pytest.raises(LanitError, match=r"holds mine\.txt"):
        go(run, tiny_clip, OPTIONS)
    (newest / "mine.txt").unlink()
    flip(newest / "networks.safetensors")
    assert go(run, tiny_clip, OPTIONS).started_at == STEPS - 1
    assert f"going on from step-{STEPS - 1:08d}" in " ".join(capsys.readouterr().err.split())
    after = contents(run)
    assert after.keys() == before.keys()
    assert [name for name in before if name.endswith(".safetensors") and after[name] != before[name]] == []


def test_leftovers_of_killed_runs_go(run: Path, tiny_clip: Any) -> None:
    before = contents(run)
    cut = run / "checkpoints" / "step-00000001"  # its removal was interrupted
    for folder in (cut, run / "checkpoints" / ".step-00000003.99999.tmp", run / ".model.99999.tmp"):
        folder.mkdir()
        (folder / "networks.safetensors").touch()
    (run / "samples" / ".00000003.png.99999.tmp").touch()
    (run / ".metrics.jsonl.99999.tmp").touch()
    go(run, tiny_clip, OPTIONS)
    assert contents(run) == before
    assert not cut.exists()


def test_a_run_begins_where_only_leftovers_of_a_killed_one_lie(tmp_path: Path) -> None:
    for name in (".model.99999.tmp/model.safetensors", "checkpoints/.step-00000003.99999.tmp/networks.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    check_run_folder(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("name", ["model/thesis.txt", "best/photo.txt", "config.json", "checkpoints/step-1/mine.txt"])
def test_a_folder_of_somebody_else_is_refused_as_it_is(run: Path, tiny_clip: Any, name: str) -> None:
    other = run.parent / "project"
    (other / name).parent.mkdir(parents=True)
    (other / name).write_text('{"mine": true}')
    with pytest.raises(LanitError, match="holds other files and is no run of lanit"):
        go(other, tiny_clip, OPTIONS)
    assert contents(other) == {name: b'{"mine": true}'}
    assert not (other / ".lock").exists()


def test_files_of_the_user_in_a_run_stay(run: Path, tiny_clip: Any) -> None:
    (run / "notes.txt").write_text("mine")
    (run / "samples" / "favourite.png").write_text("mine")
    go(run, tiny_clip, changed(OPTIONS, steps=STEPS + 1))
    assert (run / "notes.txt").read_text() == (run / "samples" / "favourite.png").read_text() == "mine"
    (run / "model" / "thesis.txt").write_text("mine")
    before = contents(run)
    with pytest.raises(LanitError, match=r"holds thesis\.txt"):
        go(run, tiny_clip, changed(OPTIONS, steps=STEPS + 2))
    assert contents(run) == before


def test_a_second_train_in_a_folder_is_refused_and_changes_nothing(run: Path, tiny_clip: Any) -> None:
    before = contents(run)
    with (
        locked_run(run),
        pytest.raises(LanitError, match="another lanit command is writing to") as caught,
    ):
        go(run, tiny_clip, changed(OPTIONS, steps=STEPS + 1))
    assert "another --out" in caught.value.hint
    assert contents(run) == before


def test_every_file_of_a_run_is_known_as_ours(finished: Path) -> None:
    assert [name for name in contents(finished) if not is_ours(name)] == []
    for name in ("notes.txt", "model/thesis.txt", "samples/mine.png", "checkpoints/step-00000001/mine.txt", "best"):
        assert not is_ours(name)


def test_every_file_of_a_run_is_described() -> None:
    page = (Path(__file__).parents[1] / "manifests" / "README.md").read_text(encoding="utf-8")
    section = page.split("\n## Runs and models\n")[1]
    names = [name.removesuffix(".safetensors") for name in (*CHECKPOINT_FILES, *MODEL_FILES)]
    for name in (CONFIG, METRICS, f"{SAMPLES}/", f"{CHECKPOINTS}/step-", f"{MODEL}/", f"{BEST}/", *names):
        assert name in section, name


def test_a_run_of_an_older_lanit_goes_on(run: Path, tiny_clip: Any) -> None:
    """Its files have neither digests nor seals."""
    for path in (*run.rglob("*.json"), run / "metrics.jsonl"):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        documents = [json.loads(line) for line in lines]
        for document in documents:
            for name in ("seal", "files", "run"):
                document.pop(name, None)
        path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    before = {name: data for name, data in contents(run).items() if name != "config.json"}
    assert go(run, tiny_clip, OPTIONS).started_at == STEPS
    assert {name: data for name, data in contents(run).items() if name != "config.json"} == before
    assert go(run, tiny_clip, changed(OPTIONS, steps=STEPS + 1)).started_at == STEPS
    assert load_bundle(run).training["steps"] == STEPS + 1


def test_asking_whether_the_prompts_are_learned_begins_nothing() -> None:
    clock = Clock(step=5, planned=6)
    method: Any = SimpleNamespace(learns_prompts=True)
    assert not Learner(method, TINY.prompts_from, clock).learning
    assert not clock.learning
