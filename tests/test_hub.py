"""Models go to the Hugging Face hub and come back whole, are used by their name there, and every refusal is a line."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from typer.testing import CliRunner

import lanit
from cli import app
from lanit.errors import LanitError, UsageError
from pipeline.clip.hub import Repository, find_repository, parse_repository
from pipeline.model_exports.export_model import export_model
from pipeline.model_exports.sharing import pull, push
from pipeline.models.bundle import find_bundle, load_bundle, save_bundle
from tests.fake_hub import TOKEN, FakeHub, serve
from tests.model_builders import random_bundle, write_run

FACES = Repository("ann/faces")


@pytest.fixture(autouse=True)
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub, no token, an empty cache, and a working directory in which no path is owner/name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        point_to(f"http://127.0.0.1:{free.getsockname()[1]}", monkeypatch)  # nothing listens there once it is closed
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(away: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve() as running:
        point_to(running.url, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A model of a CLIP that lies on this machine."""
    bundle = random_bundle(spec=str(tmp_path / "secret place" / "clip.safetensors"))
    export_model(write_run(tmp_path / "run", bundle), tmp_path / "exported")
    return tmp_path / "exported"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_that_was_pushed_comes_back_whole(hub: FakeHub, exported: Path, tmp_path: Path) -> None:
    report = push(exported, FACES)
    assert hub.commits == 1
    assert (report.url, report.private) == (f"{hub.url}/ann/faces/commit/{hub.sha('ann/faces')}", False)
    pulled = pull(FACES, tmp_path / "pulled")
    sent, back = contents(exported), contents(tmp_path / "pulled")
    assert set(sent) == set(back) == set(report.files) == set(pulled.files)
    assert {name for name in sent if sent[name] != back[name]} == {"model.json"}, "the place of the CLIP is left out"
    theirs, ours = load_bundle(tmp_path / "pulled"), load_bundle(exported)
    assert theirs.clip_spec == "clip.safetensors"
    for name, value in ours.networks.state_dict().items():
        assert torch.equal(theirs.networks.state_dict()[name], value)


def test_nothing_of_this_machine_nor_of_other_files_is_sent(hub: FakeHub, exported: Path, tmp_path: Path) -> None:
    (exported / "notes.txt").write_text("mine")
    (exported / ".env").write_text("HF_TOKEN=mine")
    push(exported, FACES)
    sent = hub.repositories["ann/faces"]
    assert not {"notes.txt", ".env"} & set(sent)
    for name, data in sent.items():
        assert b"secret place" not in data, name
        assert str(tmp_path).encode() not in data, name
    assert "secret place" in (exported / "model.json").read_text(), "the folder itself stays as it was"


def test_every_command_and_lanit_load_take_a_name_on_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["export-model", "sample", "--out", "model"]).exit_code == 0
    sent = runner.invoke(app, ["push", "model", "ann/faces", "--private", "--json"])
    assert sent.exit_code == 0, sent.output
    assert json.loads(sent.stdout)["private"] is True
    assert hub.private["ann/faces"]
    runner.invoke(app, ["sample-faces", "faces", "--count", "2"])
    done = runner.invoke(app, ["translate", "faces", "--model", "hf-hub:ann/faces", "--to", "bald", "--out", "out"])
    assert done.exit_code == 0, done.output
    back = runner.invoke(app, ["pull", "ann/faces", "--out", "pulled", "--json"])
    assert back.exit_code == 0, back.output
    assert json.loads(back.stdout)["repository"] == "ann/faces"
    assert lanit.load("ann/faces", device="cpu").domains == lanit.load("pulled", device="cpu").domains


def test_only_the_bundle_is_fetched_to_use_a_model(hub: FakeHub, exported: Path) -> None:
    push(exported, FACES)
    hub.requests.clear()
    load_bundle("ann/faces")
    fetched = {request.rsplit("/", 1)[1] for request in hub.requests if "/resolve/" in request}
    assert fetched == {"model.json", "model.safetensors", "config.json"}, "by the last the hub counts downloads"


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "no network"])
def test_what_was_fetched_once_loads_without_the_hub(
    hub: FakeHub, exported: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    push(exported, FACES)
    load_bundle("ann/faces")
    hub.requests.clear()
    if how == "no network":
        monkeypatch.setattr("pipeline.clip.hub.hub_answers", lambda: False)
    else:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_bundle("ann/faces").training == load_bundle(exported).training
    with pytest.raises(LanitError, match="not in the cache"):
        load_bundle("ann/other")
    assert not hub.requests


def test_a_cache_that_another_tool_filled_will_do(exported: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "cache" / "models--ann--faces"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    exported.rename(tmp_path / "moved")
    (folder / "snapshots").mkdir()
    (tmp_path / "moved").rename(folder / "snapshots" / commit)
    assert find_bundle("hf-hub:ann/faces") == folder / "snapshots" / commit
    assert load_bundle(f"ann/faces@{commit}").prompt_set.name == "test"
    assert pull(FACES, tmp_path / "pulled").files


def test_a_folder_comes_before_the_hub_and_a_typing_error_never_asks_it(hub: FakeHub, exported: Path) -> None:
    bundle = random_bundle(seed=1)
    save_bundle(Path("ann") / "faces", bundle)
    assert find_bundle("ann/faces") == Path("ann/faces")
    with pytest.raises(LanitError, match="there is no model at ann/fcaes"):
        find_bundle("ann/fcaes")
    assert not hub.requests
    push(exported, FACES)
    assert find_bundle("hf-hub:ann/faces") != Path("ann/faces")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann/faces", Repository("ann/faces")),
        ("hf-hub:ann/faces", Repository("ann/faces")),
        ("ann/faces@v1.0", Repository("ann/faces", "v1.0")),
        ("ann/faces@refs/pr/1", Repository("ann/faces", "refs/pr/1")),
        ("faces", None), ("./faces", None), ("../a/b", None), ("a/b/c", None), ("/a/b", None), ("a b/c", None),
        ("hf-hub:faces", None), ("https://host/a", None), ("", None),
    ],
)  # fmt: skip
def test_names_of_repositories(text: str, expected: Repository | None) -> None:
    assert find_repository(text) == expected
    if expected is not None:
        assert parse_repository(str(expected)) == expected
    else:
        with pytest.raises(UsageError, match="owner/name"):
            parse_repository(text)


def fails(*words: str) -> str:
    """The one line of a command that fails."""
    result = CliRunner().invoke(app, words)
    assert result.exit_code in (1, 2), result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.output
    return lines[0]


def test_without_a_network_or_a_token_it_is_said_in_a_line(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(exported)
    assert "there is no token. Log in with: hf auth login, or set HF_TOKEN." in fails("push", name, "ann/faces")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "Hugging Face cannot be reached from here" in fails("push", name, "ann/faces")
    assert "cannot be reached from here, and it is not in the cache" in fails("pull", "ann/faces", "--out", "out")
    line = fails("translate", ".", "--model", "ann/faces", "--to", "hat", "--out", "out")
    assert "there is no folder ann/faces, and the model ann/faces cannot be fetched" in line
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in fails("push", name, "ann/faces")
    assert "HF_HUB_OFFLINE is set, and it is not in the cache" in fails("pull", "ann/faces", "--out", "out")
    assert not list(Path().iterdir())


def test_what_the_hub_refuses_is_said_in_a_line(
    hub: FakeHub, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(exported)
    assert "there is no such repository" in fails("pull", "ann/none", "--out", "out")
    push(exported, FACES)
    assert "no such revision" in fails("pull", "ann/faces@v9", "--out", "out")
    assert "is there already, and public" in fails("push", name, "ann/faces", "--private")
    assert hub.commits == 1
    hub.repositories["ann/readme"] = {"README.md": b"# hello"}
    hub.private["ann/readme"] = False
    assert "holds no model of lanit" in fails("pull", "ann/readme", "--out", "out")
    assert "holds no model of lanit" in fails("export-model", "ann/readme", "--out", "out")
    hub.repositories["ann/faces"]["model.safetensors"] = b"cut off"
    assert "cannot read" in fails("pull", "ann/faces", "--out", "out")
    hub.writable = False
    assert "the token does not allow it" in fails("push", name, "ann/faces")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "the token does not allow it" in fails("push", name, "ann/faces")
    assert not list(Path().iterdir())


def test_only_a_whole_export_is_pushed(hub: FakeHub, exported: Path, tmp_path: Path) -> None:
    assert "lanit export-model" in fails("push", str(tmp_path / "run"), "ann/faces")
    assert "a revision is made by the hub" in fails("push", str(exported), "ann/faces@v1")
    assert "Write owner/name" in fails("push", str(exported), "faces")
    (exported / "model.safetensors").write_bytes(b"cut off")
    assert "cannot read" in fails("push", str(exported), "ann/faces")
    assert not hub.requests


def test_a_folder_that_is_taken_is_left_alone(hub: FakeHub, exported: Path, tmp_path: Path) -> None:
    push(exported, FACES)
    before = contents(tmp_path / "run")
    with pytest.raises(LanitError, match="holds other files"):
        pull(FACES, tmp_path / "run", overwrite=True)
    assert contents(tmp_path / "run") == before
    with pytest.raises(LanitError, match="--overwrite"):
        pull(FACES, exported)
    pull(FACES, exported, overwrite=True)
    assert load_bundle(exported).clip_spec == "clip.safetensors"
