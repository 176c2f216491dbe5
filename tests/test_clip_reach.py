"""What cannot be had is said before anything heavy is imported, and which CLIP is being loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest

from lanit.errors import LanitError
from pipeline.clip import reach
from pipeline.clip.presets import PRESETS
from pipeline.clip.reach import HUB_WEIGHTS, check_reachable, is_here
from pipeline.clip.sources import weight_files

ROOT = Path(__file__).parents[1]
OFFLINE = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(autouse=True)
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(reach, "hub_answers", lambda: False)
    monkeypatch.chdir(tmp_path)


def test_the_repositories_of_presets_are_those_of_open_clip() -> None:
    for preset in PRESETS.values():
        name, _, tag = preset.clip.partition("/")
        assert weight_files(name, tag) == (preset.repository, HUB_WEIGHTS)


@pytest.mark.parametrize("spec", ["default", "ViT-B-32", "ViT-B-32/openai", "openai/clip-vit-base-patch32", "good",
                                  "hf-hub:openai/clip-vit-base-patch32", "hf-hub:some/clip"])  # fmt: skip
def test_what_is_neither_cached_nor_to_be_had_is_refused(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LanitError, match="cannot be reached from here") as caught:
        check_reachable(spec)
    assert "--clip sample" in caught.value.hint
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(LanitError, match="HF_HUB_OFFLINE is set"):
        check_reachable(spec)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(reach, "hub_answers", lambda: True)
    check_reachable(spec)
    assert not is_here(spec), "it would have to be fetched"


@pytest.mark.parametrize("spec", ["sample", "RN50/yfcc15m", "no-such", "runs/first", "weights.pt"])
def test_of_other_names_nothing_is_said(spec: str) -> None:
    check_reachable(spec)


def test_what_is_on_this_machine_needs_no_hub(tmp_path: Path) -> None:
    (tmp_path / "ViT-B-32" / "openai").mkdir(parents=True)
    check_reachable("ViT-B-32/openai")
    folder = tmp_path / "hub" / "models--laion--CLIP-ViT-B-32-DataComp.XL-s13B-b90K"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (folder / "snapshots" / ("0" * 40) / HUB_WEIGHTS[1]).write_bytes(b"weights")
    check_reachable("fast")
    assert is_here("fast")
    assert is_here("sample")
    with pytest.raises(LanitError):
        check_reachable("good")


def test_without_a_network_embed_ends_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    script = "import sys, cli\ntry:\n    cli.main()\nfinally:\n    print({'torch', 'open_clip'} & sys.modules.keys())"
    line = [sys.executable, "-c", script, "embed", "photos", "--store", "new"]
    environment = os.environ | OFFLINE | {"HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the weights of CLIP 'ViT-B-32/openai' cannot be had: HF_HUB_OFFLINE is set")
    assert done.stdout == "set()\n"
    assert not (tmp_path / "new").exists()
