"""A Space of a model is whole, runs from its own folder, stands in the frame of the hub alone, arrives as written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
from huggingface_hub import RepoCard

from lanit.errors import LanitError, UsageError
from pipeline.clip.hub import Repository
from pipeline.model_exports.export_model import export_model
from pipeline.model_exports.sharing import push
from pipeline.model_exports.space import GRADIO_VERSION, REQUIREMENTS
from pipeline.models.bundle import load_bundle, save_bundle
from pipeline.play.routes import policy
from tests import fake_hub
from tests.fake_hub import TOKEN, FakeHub
from tests.model_builders import random_bundle

ROOT = Path(__file__).parent.parent
PAGE = Repository("ann/page")


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    export_model("sample", tmp_path / "exported", license="apache-2.0")
    return tmp_path / "exported"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub.serve() as running:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


def test_a_space_is_written_to_look_at_and_sends_nothing(exported: Path, tmp_path: Path) -> None:
    report = push(exported, PAGE, space=True, out=tmp_path / "page")
    assert (report.url, report.out) == (None, str(tmp_path / "page"))
    found = {
        path.relative_to(tmp_path / "page").as_posix() for path in (tmp_path / "page").rglob("*") if path.is_file()
    }
    assert set(report.files) == found
    assert {"README.md", "app.py", "requirements.txt", "model/model.json", "lanit/__init__.py"} <= found
    assert not [name for name in found if name.endswith(".pyc") or "sample-judge" in name or "sample-generator" in name]
    card = RepoCard.load(tmp_path / "page" / "README.md", repo_type="space").data.to_dict()
    assert (card["sdk"], card["sdk_version"], card["app_file"]) == ("gradio", GRADIO_VERSION, "app.py")
    assert (card["title"], card["license"]) == ("ann/page", "apache-2.0")
    assert load_bundle(tmp_path / "page" / "model").prompt_set == load_bundle("sample").prompt_set
    assert not [name for name in found if str(tmp_path).encode() in (tmp_path / "page" / name).read_bytes()]
    with pytest.raises(LanitError, match="is taken"):
        push(exported, PAGE, space=True, out=tmp_path / "page")
    with pytest.raises(UsageError, match="--out is for a Space"):
        push(exported, PAGE, out=tmp_path / "other")


def test_the_hub_gets_what_was_written(exported: Path, hub: FakeHub, tmp_path: Path) -> None:
    written = push(exported, PAGE, space=True, out=tmp_path / "page")
    assert not hub.requests
    report = push(exported, PAGE, space=True)
    assert hub.spaces == {"ann/page": "gradio"}
    assert hub.commits == 1
    assert report.files == written.files
    assert hub.repositories["ann/page"] == {name: (tmp_path / "page" / name).read_bytes() for name in written.files}
    with pytest.raises(LanitError, match="is there already, and public"):
        push(exported, PAGE, space=True, private=True)


def test_a_model_of_a_clip_on_this_machine_is_no_space(tmp_path: Path, hub: FakeHub) -> None:
    clip = tmp_path / "clip.safetensors"
    save_bundle(tmp_path / "model", replace(random_bundle(), clip_spec=str(clip)))
    export_model(tmp_path / "model", tmp_path / "out")
    with pytest.raises(LanitError, match=r"cannot have the CLIP of this model, clip\.safetensors") as caught:
        push(tmp_path / "out", PAGE, space=True)
    assert str(tmp_path) not in caught.value.message
    assert not hub.requests


def test_what_a_space_needs_is_what_lanit_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = {*project["dependencies"], *project["optional-dependencies"]["play"]}
    assert set(REQUIREMENTS) <= known
    left_out = {re.split("[<>=]", each)[0] for each in known - set(REQUIREMENTS)}
    assert left_out == {"faiss-gpu", "faiss-cpu", "typer", "pandas"}, "an index; what gradio brings along"
    assert f"gradio=={GRADIO_VERSION}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_only_the_named_site_may_frame_the_page() -> None:
    assert policy().endswith("; frame-ancestors 'none'")
    assert policy("huggingface.co").endswith("; frame-ancestors huggingface.co")


@pytest.mark.slow
@pytest.mark.parametrize("on_the_hub", [False, True])
def test_app_py_serves_the_page_from_its_own_folder_alone(exported: Path, tmp_path: Path, on_the_hub: bool) -> None:
    """Without the source of this checkout on the path, nor what it does without; as the hub sets it, and as it is."""
    pytest.importorskip("gradio")
    push(exported, PAGE, space=True, out=tmp_path / "page")
    (tmp_path / "without").mkdir()
    for name in ("faiss", "onnx", "mcp"):
        (tmp_path / "without" / f"{name}.py").write_text("raise ModuleNotFoundError(__name__)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "without"), "PORT": "0", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"SPACE_HOST": "ann-page.hf.space"} if on_the_hub else {}
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=tmp_path / "page", env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        found = re.search(r"Open (http://127\.0\.0\.1:\d+/)", process.stdout.readline())
        assert found is not None
        host = "ann-page.hf.space" if on_the_hub else "127.0.0.1"
        request = urllib.request.Request(found[1], headers={"Host": host})
        for _ in range(100):  # it listens before it answers
            try:
                answer = urllib.request.urlopen(request, timeout=30)
                break
            except ConnectionError:
                time.sleep(0.1)
        allowed = "huggingface.co" if on_the_hub else "'none'"
        assert answer.headers["Content-Security-Policy"].endswith(f"frame-ancestors {allowed}")
        assert "wearing hat" in answer.read().decode()
    finally:
        process.terminate()
        process.wait(20)


def test_the_report_of_a_dry_run_says_how_to_look_at_it(exported: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    import cli

    arguments = ["push", str(exported), "ann/page", "--space", "--out", str(tmp_path / "a page")]
    shown = CliRunner().invoke(cli.app, arguments)
    assert shown.exit_code == 0, shown.output
    assert f"python '{tmp_path / 'a page'}'/app.py" in shown.stdout
    arguments[-1] = str(tmp_path / "again")
    report: dict[str, Any] = json.loads(CliRunner().invoke(cli.app, [*arguments, "--json"]).stdout)
    assert (report["space"], report["url"]) == (True, None)
