"""The command line: light help, one line for an error, the same in a process and under CliRunner, true counts."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
from typer.testing import CliRunner

import cli
from lanit.errors import LanitError, UsageError
from lanit.methods.stargan import StarganOptions
from lanit.methods.tunit import TunitOptions
from lanit.rules import Rule
from pipeline.agents.tools import AgentOptions
from pipeline.clip.model_list import list_models
from pipeline.clip.models import DEFAULT_CLIP, load_clip
from pipeline.commands import store_option
from pipeline.embedding.embed import EmbedOptions
from pipeline.evaluation.evaluate import Tools
from pipeline.evaluation.options import EvaluationOptions
from pipeline.exports.export import export
from pipeline.exports.layouts import DEFAULT_SHARD_MB, LAYOUTS, ExportRequest
from pipeline.importing.import_vectors import ImportRequest
from pipeline.inspection.inspect_labels import InspectOptions
from pipeline.inspection.statistics import DEFAULT_EPSILON_SHARE
from pipeline.labelling.label_sources import LabelRequest
from pipeline.labelling.pairs import pair
from pipeline.model_exports.export_model import export_model
from pipeline.model_exports.sharing import pull, push
from pipeline.play.server import PlayOptions
from pipeline.review.server import ReviewOptions
from pipeline.runs.run_list import list_runs
from pipeline.sample_world.dataset import write_faces
from pipeline.sample_world.demo import run_demo
from pipeline.searching.duplicates import SAMPLE_THRESHOLD, USUAL_THRESHOLD, find_duplicates
from pipeline.searching.search import search
from pipeline.settings import merge_settings, parse_settings
from pipeline.store.index import rebuild_index
from pipeline.store.schemas import StoredType
from pipeline.suggestion.suggest import SuggestOptions
from pipeline.training.train_options import PRESETS, TrainOptions, all_settings
from pipeline.training.training import train
from pipeline.translating.requests import TranslateRequest
from pipeline.translating.translation import TranslateOptions

ROOT = Path(__file__).parent.parent
COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands
HEAVY = ("torch", "pandas", "open_clip", "faiss", "pyarrow", "numpy", "PIL", "rich.table")


def run(*arguments: object, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env=env)


def run_process(code: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Python with ``code`` in a process of its own, in ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


def test_help_and_errors_of_the_command_line_import_nothing_heavy(tmp_path: Path) -> None:
    code = f"""
import sys, cli
from typer.testing import CliRunner
for arguments in ([], ["--help"], ["--version"], ["nonsense"], *([name, "--help"] for name in {list(COMMANDS)!r})):
    CliRunner().invoke(cli.app, arguments)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert run_process(code, tmp_path).stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_of_the_help_parses(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    lines = re.findall(r"^    lanit (.+)$", result.output.split("Example:", 1)[1], re.MULTILINE)
    assert any(line.split()[0] == name for line in lines)
    for line in lines:
        command, *arguments = shlex.split(line)
        COMMANDS[command].make_context(command, arguments)


LIBRARY: dict[str, tuple[Any, ...]] = {
    "embed": (EmbedOptions,),
    "import": (EmbedOptions, ImportRequest),
    "label": (LabelRequest,),
    "inspect-labels": (InspectOptions,),
    "suggest-prompts": (SuggestOptions,),
    "search": (search,),
    "duplicates": (find_duplicates,),
    "index": (rebuild_index,),
    "models": (list_models,),
    "pair": (pair,),
    "train": (TrainOptions, StarganOptions, train),
    "runs": (list_runs,),
    "translate": (TranslateOptions, TranslateRequest),
    "play": (PlayOptions,),
    "review": (ReviewOptions,),
    "mcp": (AgentOptions,),
    "evaluate": (EvaluationOptions, Tools),
    "export": (ExportRequest, export),
    "export-model": (export_model,),
    "push": (push,),
    "pull": (pull,),
    "demo": (run_demo,),
    "sample-faces": (write_faces,),
    "doctor": (),
}
"""What a command hands its options to."""
OTHERWISE = {
    "rate": "learning_rate", "real_images": "real", "shard_size": "shard_mb", "allow_host": "allow_hosts",
    "clip_arch": "clip_architecture", "licence": "license", "dataset": "datasets", "example": "examples",
}  # fmt: skip
"""Options that the library calls otherwise."""
SAID = {
    ("embed", "clip"): f"the store's, else {DEFAULT_CLIP}",
    ("embed", "precision"): f"the store's, else {inspect.signature(load_clip).parameters['precision'].default}",
    ("embed", "storage"): f"the store's, else {get_args(StoredType)[0]}",
    ("embed", "frame"): "the store's, else the file's",
    ("import", "frame"): "the store's, else the file's",
    ("translate", "frame"): "the file's",
    ("label", "rule"): Rule().text,
    ("label", "by"): Rule().by,
    ("inspect-labels", "epsilon"): f"{DEFAULT_EPSILON_SHARE:g} of the margins' standard deviation",
    ("duplicates", "threshold"): f"{USUAL_THRESHOLD:g}; the sample CLIP's {SAMPLE_THRESHOLD:g}",
    ("train", "seed"): str(TrainOptions().seed),
    ("train", "method"): TrainOptions().method,
    ("train", "clusters"): str(TunitOptions().clusters),
    ("translate", "steps"): str(TranslateRequest.steps),
    ("translate", "film"): TranslateRequest.film,
    ("export", "files"): "copy",
    ("export", "shard_size"): str(DEFAULT_SHARD_MB),
}
"""Of options that are none unless given: what then holds, as the help says it after "default:"."""
PROSE = {"if it takes a minute", "the newest", "built in", "torch's cache", "one a processor", "auto, else a new one",
         "one a GPU, else one a node", "runs"}  # fmt: skip
OWN = {
    "embed": {"inputs", "clip", "clip_arch", "precision"},
    "import": {"source", "clip", "clip_arch"},
    "label": {
        "without_people",
        "forget_people",
        "choose_template",
        "choose_offsets",
        "learn_prompts",
        "views",
        "clip",
        "clip_arch",
    },
    "inspect-labels": {"fail_under"},
    "suggest-prompts": {"vocabulary", "clip", "clip_arch"},
    "search": {"clip", "clip_arch"},
    "duplicates": {"table"},
    "index": {"kind"},
    "pair": {"given"},
    "train": {"preset", "config", "present", "example", "settings", "clip", "clip_arch"},
    "runs": {"folders", "watch"},
    "translate": {"inputs", "out", "model", "grid", "clip"},
    "mcp": {"runs"},
    "evaluate": {"runs", "real", "fake", "truth", "tables"},
    "export": {"to"},
    "export-model": {"model"},
    "push": {"repository", "folder"},
    "pull": {"repository"},
    "demo": {"minutes"},
    "sample-faces": {"count"},
}
"""Options without a default in the library."""
EVERYWHERE = {
    "store",
    "as_json",
    "html",
    "quiet",
    "verbose",
    "engine",
    "address",
    "actors",
    "device",
    "revision",
    "dry_run",
    "out",
}


def library_defaults(name: str) -> dict[str, Any]:
    """By name, of all that has one."""
    found: dict[str, Any] = {}
    for behind in LIBRARY[name]:
        for parameter in inspect.signature(behind).parameters.values():
            if parameter.default is not inspect.Parameter.empty:
                found[parameter.name] = parameter.default
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_default_and_what_the_help_says_of_it_are_the_librarys(name: str) -> None:
    known = library_defaults(name)
    for option in COMMANDS[name].params:
        said = re.search(r"\[default: (.+?)\]", option.help or "")
        library = known.get(OTHERWISE.get(option.name, option.name), inspect.Parameter.empty)
        if said is not None:
            assert option.default is None, option.name
            assert said[1] in PROSE or said[1] == SAID.get((name, option.name)), (option.name, said[1])
        elif option.name == "reference":
            assert (option.default, TranslateRequest.reference, TranslateRequest.references) == (None, None, ())
        elif name == "train" and library is not inspect.Parameter.empty:
            assert option.default in (None, library), "a preset decides"
        elif option.name in EVERYWHERE | OWN.get(name, set()):
            assert (
                option.default in (None, library, False)
                or library is inspect.Parameter.empty
                or option.name == "device"
            )
        else:
            nothing = (None, (), "")
            assert option.default == library or (option.default in nothing and library in nothing), option.name


def test_what_the_help_says_agrees_with_the_library() -> None:
    assert cli.DEFAULT_CLIP == DEFAULT_CLIP
    text = " ".join(run("train", "--help").output.split())
    assert all(preset in text for preset in PRESETS)
    assert f"[{'|'.join(LAYOUTS)}]" in " ".join(run("export", "--help").output.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_h_is_help(name: str) -> None:
    assert run(name, "-h").output == run(name, "--help").output


def test_the_environment_names_the_store_and_the_option_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no store at manifests" in run("inspect-labels").output
    monkeypatch.setenv("LANIT_STORE", "mine")
    assert "no store at mine" in run("inspect-labels").output
    assert "no store at other" in run("inspect-labels", "--store", "other").output
    assert [store_option(Path(name)) for name in ("mine", "manifests")] == ["", " --store manifests"]
    monkeypatch.setenv("LANIT_STORE", "")
    assert [store_option(Path(name)) for name in ("mine", "manifests")] == [" --store mine", ""]


def test_the_body_of_a_command_is_short() -> None:
    """At most 12 statements beside its imports: what decides anything lies in a stage."""
    long = {}
    for function in ast.parse((ROOT / "cli.py").read_text(encoding="utf-8")).body:
        if isinstance(function, ast.FunctionDef) and any(
            "app.command" in ast.unparse(d) for d in function.decorator_list
        ):
            inner = [node for node in ast.walk(function) if isinstance(node, ast.stmt)][1:]
            count = sum(not isinstance(node, ast.ImportFrom) for node in inner) - 1  # the docstring
            long |= {function.name: count} if count > 12 else {}
    assert not long


@pytest.mark.parametrize(
    ("line", "now"),
    [
        ("label --prompts x --k 3", "--rule top-3"),
        ("label --prompts x --rule fixed --threshold 0.3", "--rule fixed=0.25"),
        ("label --prompts x --rule top-k", "--rule top-2"),
        ("embed x --mode overwrite", "--overwrite"),
        ("export-model x --out y --force", "--overwrite"),
        ("pull a/b --out y --force", "--overwrite"),
    ],
)
def test_options_of_an_earlier_version_say_what_to_type_now(line: str, now: str) -> None:
    result = run(*line.split())
    assert (result.exit_code, result.stdout) == (2, "")
    (error,) = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert now in error


def test_version_and_bare_call() -> None:
    assert run("--version").output.startswith("lanit ")
    bare = run()
    assert bare.exit_code == 0
    assert "lanit embed photos/" in bare.output


USAGE = {
    "unknown command": (["nonsense"], "lanit --help"),
    "unknown option": (["--nonsense"], "lanit --help"),
    "unknown option of a command": (["label", "--nonsense"], "lanit label --help"),
    "missing option": (["label"], "lanit label --help"),
    "missing argument": (["embed"], "lanit embed --help"),
    "not a number": (["train", "--out", "x", "--steps", "many"], "lanit train --help"),
    "not a choice": (["index", "--kind", "best"], "lanit index --help"),
    "too small": (["embed", "x", "--workers", "0"], "lanit embed --help"),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage_errors_are_one_line_and_exit_2(case: str) -> None:
    arguments, hint = USAGE[case]
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(f"Try: {hint}")


def _raise_in_label(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Any:
    def fail(root: Path) -> None:
        raise error

    monkeypatch.setattr("pipeline.store.store.Store.open", fail)
    return run("label", "--prompts", "x")


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (LanitError("it is\nwrong", "Type this"), 1, "error: it is wrong. Type this"),
        (UsageError("that option", "Leave it out"), 2, "error: that option. Leave it out"),
        (KeyboardInterrupt(), 130, "error: interrupted; run the same command again"),
        (PermissionError(13, "Permission denied", "a/b"), 1, "error: Permission denied: a/b. Check"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device. Free some space and run"),
        (OutOfMemoryError("CUDA"), 1, "error: the GPU is out of memory. Try a smaller --batch-size"),
    ],
)
def test_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str) -> None:
    result = _raise_in_label(monkeypatch, error)
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(text)
    monkeypatch.setenv("LANIT_DEBUG", "1")
    debugged = _raise_in_label(monkeypatch, error)
    assert debugged.exit_code == code
    assert "Traceback (most recent call last)" in debugged.stderr
    assert debugged.stderr.splitlines()[-1] == line


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    result = _raise_in_label(monkeypatch, ZeroDivisionError("ours"))
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        ("lanit.errors.LanitError('wrong', 'Type this')", 1, "error: wrong. Type this"),
        ("KeyboardInterrupt", 130, "error: interrupted; run the same command again"),
    ],
)
def test_a_process_says_the_same(failure: str, code: int, line: str, tmp_path: Path) -> None:
    code_text = f"""
import sys, cli, lanit.errors, pipeline.store.store
def fail(*arguments):
    raise {failure}
pipeline.store.store.Store.open = fail
sys.argv = ["lanit", "label", "--prompts", "x"]
cli.main()
"""
    done = run_process(code_text, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"{line}\n")


@pytest.fixture
def world(make_images: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with six images, one broken, and prompts."""
    folder = make_images(5, "my photos é")
    (folder / "broken.JPG").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not an image")
    (tmp_path / "prompts.txt").write_text("template: a photo of {}.\nred\na very long phrase of many words\n[blue]\n")
    truth = ["path,red,[blue]", *(f"{p.relative_to(folder).as_posix()},1,0" for p in folder.rglob("*.png"))]
    (tmp_path / "truth.csv").write_text("\n".join(truth))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def test_embed_label_and_inspect(world: Path, tiny_clip_folder: Path) -> None:
    embedded = run("embed", "my photos é", "--clip", tiny_clip_folder, "--json")
    assert embedded.exit_code == 0, embedded.output
    report = json.loads(embedded.stdout)
    assert report["found"] == 6 == report["ok"] + report["failed"] + report["skipped"]
    assert (world / "manifests" / "store.json").exists()

    again = run("embed", "my photos é", "--clip", tiny_clip_folder)
    assert re.search(r"images found +6\nembedded +0\nfailed +1\nskipped \(unchanged\) +5\n", again.stdout)

    labelled = run("label", "--prompts", "prompts.txt", "--json")
    report = json.loads(labelled.stdout)
    assert report["images"] == 6 == report["labelled"] + report["unlabelled"] + report["failed"]
    assert (report["revision"], report["created"]) == (1, True)

    shown = run("label", "--prompts", "prompts.txt")
    assert "revision 1 already has these labels" in shown.stderr
    assert "a very long phrase" in shown.stdout  # folded, not cut
    assert "[blue]" in shown.stdout

    inspected = run("inspect-labels", "--truth", "truth.csv", "--epsilon", "0.01")
    assert inspected.exit_code == 0, inspected.output
    assert "Scores against the truth of 5 images" in inspected.stdout
    assert "no truth for a very long phrase of many words" in inspected.stdout
    statistics = json.loads(run("inspect-labels", "--truth", "truth.csv", "--json").stdout)
    assert statistics["images"] == 5 == sum(statistics["label_counts"])
    assert statistics["scores"]["domains_without_truth"] == ["a very long phrase of many words"]
    for output in (again.stdout, shown.stdout, inspected.stdout):
        tables = [line for line in output.splitlines() if re.search(r"\S {2,}\S", line)]
        assert max(map(len, tables)) <= 80
        assert "\x1b" not in output


def test_a_stream_that_knows_ascii_only(world: Path, tiny_clip_folder: Path) -> None:
    (world / "prompts.txt").write_text("café\nnaïve\n", encoding="utf-8")
    run("embed", "my photos é", "--clip", tiny_clip_folder)
    run("label", "--prompts", "prompts.txt")
    code = "import sys, cli; sys.argv = ['lanit', 'inspect-labels']; cli.main()"
    done = run_process(code, world, PYTHONIOENCODING="ascii", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert "caf\\xe9" in done.stdout
    assert done.stdout.isascii()


def test_train_and_translate(world: Path, tiny_clip_folder: Path) -> None:
    run("embed", "my photos é", "--clip", tiny_clip_folder)
    run("label", "--prompts", "prompts.txt")
    small = ["channels=8", "max_channels=16", "discriminator_channels=8", "mapping_width=16"]
    options = ["--preset", "small-32", "--batch-size", 2, *(part for text in small for part in ("--set", text))]
    trained = run("train", "--out", "run", *options, "--steps", 1, "--json")
    assert trained.exit_code == 0, trained.output
    assert json.loads(trained.stdout)["steps"] == 1
    assert "channels=8" in trained.stderr
    same = run("train", "--out", "run", *options, "--steps", 1)
    assert same.exit_code == 0, same.output
    assert "1 steps (1 of them before)" in same.stdout

    request = ["--model", "run", "--to", "red, [blue]=0.5", "--out", "out", "--grid", "grid.png"]
    done = run("translate", "my photos é", *request, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["found"] == 6 == report["ok"] + report["failed"]
    assert len(list((world / "out").rglob("*.png"))) == report["ok"] == 5
    assert re.search(r"images found +6\ntranslated +5\nfailed +1\n", run("translate", "my photos é", *request).stdout)


def test_dry_run_shows_what_would_be_set_and_writes_nothing(tmp_path: Path) -> None:
    result = run("train", "--out", tmp_path / "run", "--preset", "small-64", "--set", "crop=0.25", "--dry-run")
    options = json.loads(result.stdout)
    assert (options["size"], options["crop"], options["seed"]) == (64, 0.25, 0)
    assert not (tmp_path / "run").exists()


def test_sample_faces_are_counted(tmp_path: Path) -> None:
    report = json.loads(run("sample-faces", tmp_path / "faces", "--count", 3, "--size", 32, "--json").stdout)
    assert report["count"] == 3 == len(list((tmp_path / "faces").glob("*.png")))


def test_settings_have_the_type_of_their_default() -> None:
    parsed = parse_settings(all_settings(), ["r1-every=4", "domain = 2", "slack=drop"])
    assert parsed == {"r1_every": 4, "domain": 2.0, "slack": "drop"}
    assert isinstance(parsed["domain"], float)
    assert merge_settings(all_settings(), ["crop=0"], {"size": 64, "steps": None}) == {"crop": 0.0, "size": 64}


@pytest.mark.parametrize(
    ("texts", "named", "expected"),
    [
        (["crop"], {}, "NAME=VALUE"),
        (["crp=1"], {}, "crop"),
        (["steps=1.5"], {}, "whole number"),
        (["crop=x"], {}, "a number"),
        (["crop=1", "crop=0"], {}, "twice"),
        (["size=64"], {"size": 32}, "both"),
    ],
)
def test_bad_settings_are_usage_errors(texts: list[str], named: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        merge_settings(all_settings(), texts, named)
