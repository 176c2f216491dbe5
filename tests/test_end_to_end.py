"""Every stage by its command on real photographs, with an architecture of open_clip's, its weights random."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from cli import app

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos.tar"
COUNT = 8


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.exists(), reason="needs ../shared/data/photos.tar beside the repository")
def test_photographs_through_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.unpack_archive(PHOTOS, "unpacked")  # tarfile's own filters came with Python 3.11.4
    Path("photos").mkdir()
    files = [path for path in Path("unpacked").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")]
    for path in sorted(files)[:COUNT]:
        shutil.copy(path, "photos")
    Path("photos", "broken.jpg").write_bytes(b"no image")
    Path("words.txt").write_text("noun: animal\nlong ears\na striped coat\nwater\n")
    torch.manual_seed(0)
    save_file(open_clip.create_model("ViT-S-32-alt").state_dict(), "weights.safetensors")
    runner = CliRunner()

    def run(*arguments: str) -> dict[str, object]:
        result = runner.invoke(app, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        found: dict[str, object] = json.loads(result.stdout)
        return found

    embedded = run(
        "embed", "photos", "--clip", "weights.safetensors", "--clip-arch", "ViT-S-32-alt", "--batch-size", "8"
    )
    assert (embedded["found"], embedded["ok"], embedded["failed"], embedded["skipped"]) == (COUNT + 1, COUNT, 1, 0)
    labelled = run("label", "--prompts", "words.txt")
    assert (labelled["images"], labelled["failed"]) == (COUNT + 1, 1)
    assert int(str(labelled["labelled"])) + int(str(labelled["unlabelled"])) == COUNT
    statistics = run("inspect-labels")
    assert statistics["images"] == COUNT
    small = ["--size", "32", "--set", "channels=8", "--set", "max_channels=16", "--set", "mapping_width=8"]
    trained = run("train", "--out", "run", *small, "--steps", "20", "--batch-size", "2", "--device", "cpu")
    assert trained["steps"] == 20
    translated = run("translate", "photos", "--model", "run", "--to", "water", "--out", "out", "--device", "cpu")
    assert (translated["found"], translated["ok"], translated["failed"]) == (COUNT + 1, COUNT, 1)
    with Path("out", "translations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(Path("out", row["output"]).is_file() for row in rows if row["status"] == "ok") == COUNT
    assert [row["path"] for row in rows if row["status"] == "failed"] == ["broken.jpg"]
