"""Habits of the command line: -q, -v, -o, standard input, completion, stores found above, options from a file."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import cli
import pipeline.doctor.checks as checks
from lanit.errors import UsageError
from pipeline.commands import store_above, store_option
from pipeline.embedding.embed import embed
from pipeline.files import sealed
from pipeline.training.train_config import resolved_options
from pipeline.training.train_options import PRESETS, options_from

ROOT = Path(__file__).parent.parent
COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands


def run(*arguments: object, **settings: Any) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], **settings)


@pytest.fixture
def world(make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nine images in ``images/``, their store, and ``below/deep`` to work in."""
    embed([make_images(9)], tmp_path / "manifests", tiny_clip)
    (tmp_path / "below" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_quiet_or_verbose_and_o_is_out(name: str) -> None:
    spellings = [set(parameter.opts) for parameter in COMMANDS[name].params]
    assert {"--quiet", "-q"} in spellings
    assert {"--verbose", "-v"} in spellings
    assert all("-o" in each for each in spellings if "--out" in each)
    assert sum("-o" in each for each in spellings) <= 1


def test_quiet_leaves_remarks_out_and_verbose_tells_what_is_done(world: Path) -> None:
    usual, quiet = run("label", "red", "blue"), run("label", "red", "violet", "-q")
    assert "loading CLIP" in usual.stderr
    assert "loading CLIP" not in quiet.stderr
    assert all(line.startswith("warning:") for line in quiet.stderr.splitlines())
    assert "without a label" in quiet.stdout
    verbose = run("label", "red", "green", "--verbose", "--json")
    assert json.loads(verbose.stdout)["images"] == 9
    logged = [line for line in verbose.stderr.splitlines() if re.match(r"\[ +\d+\.\d\d s\] ", line)]
    for said in (
        "9 images, 9 with an embedding",
        "phrases: 1 known, 1 to be read",
        "loaded on cpu",
        "r0003.parquet",
        "MiB",
    ):
        assert any(said in line for line in logged), said
    assert not re.search(r"^\[ ", run("label", "red", "green").stderr, re.MULTILINE), "it does not last"
    both = run("label", "red", "-q", "-v")
    assert (both.exit_code, both.stdout, len(both.stderr.splitlines())) == (2, "", 1)


def test_the_store_is_found_above_as_git_finds_its_own(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("label", "red").exit_code == 0
    monkeypatch.chdir(world / "below" / "deep")
    assert run("inspect-labels").exit_code == 0
    again = run("embed", world / "images", "--json")
    assert (again.exit_code, json.loads(again.stdout)["skipped"]) == (0, 9)
    assert not list(Path().iterdir())
    assert store_option(store_above()) == "", "what a message says to type finds it too"
    assert "no store at manifests" in run("inspect-labels", "--store", "manifests").stderr
    monkeypatch.setenv("LANIT_STORE", "elsewhere")
    assert "no store at elsewhere" in run("inspect-labels").stderr
    monkeypatch.delenv("LANIT_STORE")
    Path("manifests").mkdir()
    assert store_above() == world / "manifests", "a folder without a store is none"
    Path("manifests/store.json").touch()
    assert store_above() == Path("manifests"), "the nearest counts"


def test_lists_come_from_standard_input(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = sorted(map(str, (world / "images" / "a").glob("*.png")))[:3]
    clip = json.loads(Path("manifests/store.json").read_text())["clip_spec"]
    done = run("embed", "-", "--clip", clip, "--store", "other", "--json", input="\n".join(some) + "\n\n")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["ok"] == 3
    empty = run("embed", "-", "--clip", clip, "--store", "third", input=" \n")
    assert (empty.exit_code, "names no input" in empty.stderr) == (2, True)
    assert not Path("third").exists()
    assert run("label", "--prompts", "-", input="red\nblue\n").exit_code == 0
    suggested = run("suggest-prompts", "--vocabulary", "-", "--json", input="green\nviolet\nred\n")
    assert suggested.exit_code == 0, suggested.output
    not_text = run("embed", "-", "--store", "third", input=b"\xff\xfe\n")
    assert (not_text.exit_code, "UTF-8" in not_text.stderr) == (2, True)
    assert run("label", "--clusters", "2", "--words", "-", input="green\nviolet\nred\n").exit_code in (0, 1)


def test_shells_complete_commands_presets_and_domains(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def completed(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1), "_LANIT_COMPLETE": "complete_bash"}
        done = subprocess.run([sys.executable, "-c", "import cli; cli.main()"], capture_output=True, text=True,
                              check=True, env={**os.environ, "PYTHONPATH": str(ROOT), **words})  # fmt: skip
        return done.stdout.split("\n")

    assert "inspect-labels" in completed("lanit insp")
    assert {"small-64", "small-32"} <= set(completed("lanit train --preset small"))
    assert tuple(PRESETS) == cli.TRAIN_PRESETS
    assert "celeba-hq-10" in cli._complete_prompts("celeba")
    assert cli._complete_clip("go") == ["good"]
    nothing = SimpleNamespace(params={})
    assert cli._complete_domain(nothing, "") == [], "no labels yet"
    run("label", "red", "dark blue")
    assert cli._complete_domain(nothing, "d") == ["dark blue"]
    monkeypatch.chdir("below/deep")
    assert "red" in completed("lanit search x --label r")


def test_demo_play_and_review_print_json(monkeypatch: pytest.MonkeyPatch) -> None:
    import pipeline.play.server
    import pipeline.review.server
    import pipeline.sample_world.demo

    def demo(*given: Any, **named: Any) -> Any:
        print("a table")
        return SimpleNamespace(to_json=lambda: {"page": "x"})

    monkeypatch.setattr(pipeline.sample_world.demo, "run_demo", demo)
    shown = run("demo", "--json")
    assert json.loads(shown.stdout) == {"page": "x"}
    assert "a table" in shown.stderr
    assert "a table" in run("demo").stdout
    for name, module in (("play", pipeline.play.server), ("review", pipeline.review.server)):
        monkeypatch.setattr(module, name, lambda options, tell: tell("http://127.0.0.1:1/"))
        assert json.loads(run(name, "--json").stdout) == {"address": "http://127.0.0.1:1/"}
        assert "Open http://127.0.0.1:1/" in run(name).stdout


def test_options_of_a_run_are_given_back(tmp_path: Path) -> None:
    options = options_from("small-64", {"crop": 0.25, "steps": 70, "seed": 3})
    (tmp_path / "run").mkdir()
    config = tmp_path / "run" / "config.json"
    config.write_text(json.dumps(sealed({"prompt_set": {}, "options": options.to_json()})))
    dry = ("train", "-o", tmp_path / "again", "--dry-run")
    for named in (config, config.parent):
        assert json.loads(run(*dry, "--config", named).stdout) == options.to_json()
    changed = json.loads(run(*dry, "--config", config, "--seed", 4, "--set", "crop=0.5").stdout)
    assert changed == options.to_json() | {"seed": 4, "crop": 0.5}
    assert json.loads(run(*dry, "--config", config, "--minutes", 5).stdout)["steps"] == 0
    own = tmp_path / "own.toml"
    own.write_text("preset = 'small-32'\nminutes = 30\ncrop = 0.25\n")
    assert resolved_options(own, "paper", {}) == options_from("small-32", {"minutes": 30.0, "crop": 0.25})
    assert resolved_options(own, "paper", {"crop": 0.75}).crop == 0.75
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("crop = 'half'", "crop is not a number"), ("steps = 1.5", "steps is not a whole number"), ("crpo = 1", "crop"),
     ("crop = ", "is no TOML"), ("preset = 'large'", "no preset 'large'")],
)  # fmt: skip
def test_a_file_of_options_that_says_nothing_useful_is_refused(text: str, said: str, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    refused = run("train", "-o", tmp_path / "run", "--config", own)
    assert (refused.exit_code in (1, 2), said in refused.stderr) == (True, True), refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    with pytest.raises(UsageError, match="--preset"):
        resolved_options(own, "small-64", {})


def test_doctor_says_what_is_missing_for_what(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(world))
    monkeypatch.setattr(checks, "version_of", lambda name: None if name in ("gradio", "faiss-gpu") else "1.0")
    shown = run("doctor", "--json")
    assert shown.exit_code == 0, shown.output
    report = json.loads(shown.stdout)
    found = {(check["kind"], check["name"]): check for check in report["checks"]}
    assert found["extras", "play"]["state"] == "missing"
    assert found["extras", "play"]["hint"].startswith('pip install "gradio>=')
    assert found["extras", "review"]["state"] == "ok"
    assert found["versions", "faiss"]["found"] == "faiss-cpu 1.0"
    assert found["store", "manifests"]["found"].startswith("9 images, 9 with an embedding")
    assert found["models", "good"]["state"] == "missing"
    table = run("doctor").stdout
    assert "nothing is wrong" in table
    assert "lanit play: lacks gradio" in " ".join(table.split())
    monkeypatch.setattr(checks, "version_of", lambda name: None if name == "pyarrow" else "1.0")
    Path("manifests/store.json").write_text("{")
    broken = run("doctor", "--json")
    assert broken.exit_code == 1
    names = {check["name"] for check in json.loads(broken.stdout)["checks"] if check["state"] == "problem"}
    assert names == {"pyarrow", "manifests"}


def test_doctor_knows_every_requirement_and_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}  # type: ignore[index]

    assert names(project["dependencies"]) - {"faiss-gpu", "faiss-cpu", "markupsafe"} == set(checks.NEEDED)
    extras = {name: names(packages) for name, packages in project["optional-dependencies"].items()}
    assert {name: set(packages) for name, (_, packages) in checks.EXTRAS.items()} == {
        name: packages for name, packages in extras.items() if name not in ("dev", "readers")
    }


def test_a_list_is_put_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.inputs.listed import listed_inputs

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("b\n\nc é\n".encode())))
    assert listed_inputs(["a", "-", "d"]) == ["a", "b", "c é", "d"]
    assert listed_inputs(["a"]) == ["a"]
