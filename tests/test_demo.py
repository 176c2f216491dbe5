"""The demo: its commands are real ones, it clears only its own folder, and a short one runs to its page."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import typer.main
from PIL import Image

from cli import app
from lanit.errors import LanitError, UsageError
from pipeline.decoding.images import decode_rgb
from pipeline.models.bundle import load_bundle
from pipeline.models.translator import Translator, load_labeller
from pipeline.sample_world import demo as demo_module
from pipeline.sample_world.demo import Demo, add_domain, clear, read_charts, run_demo


def demo(out: Path) -> Demo:
    return Demo(out, 0.5, 3, 100, "small-32", "cpu")


def test_every_command_shown_is_one_that_lanit_understands(tmp_path: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    shown = demo(tmp_path / "my demo").commands
    assert len(shown) == 8
    for text in shown.values():
        lanit, name, *words = shlex.split(text)
        assert lanit == "lanit"
        commands[name].make_context(name, words)


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "mine.png").write_bytes(b"mine")
    with pytest.raises(LanitError, match="no demo of lanit"):
        clear(demo(tmp_path))
    assert (tmp_path / "faces" / "mine.png").read_bytes() == b"mine"


def test_an_earlier_demo_is_replaced_and_what_lies_beside_it_stays(tmp_path: Path) -> None:
    clear(demo(tmp_path))
    (tmp_path / "faces").mkdir()
    (tmp_path / "index.html").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    clear(demo(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.json", "notes.txt"]


def test_a_file_of_the_user_in_a_folder_of_a_demo_stays(tmp_path: Path) -> None:
    """And so does all else: it is refused before anything is removed."""
    clear(demo(tmp_path))
    for name in ("faces/face-00000.png", "run/model/model.json", "run/model/thesis.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    with pytest.raises(LanitError, match=r"holds model/thesis\.txt, which lanit did not write"):
        clear(demo(tmp_path))
    assert (tmp_path / "faces" / "face-00000.png").exists()
    (tmp_path / "run" / "model" / "thesis.txt").unlink()
    clear(demo(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["demo.json"]


def test_no_time_to_train_is_a_usage_error(tmp_path: Path) -> None:
    for minutes in (0, -1, float("nan")):
        with pytest.raises(UsageError):
            Demo(tmp_path, minutes, 0, 100, "small-32", "cpu")


def test_curves_are_read_by_kind(tmp_path: Path) -> None:
    lines = [
        {"step": 0, "kind": "sample", "recognised": 0.1, "kept": 0.9},
        {"step": 20, "kind": "losses", "cycle": 0.5, "d_adversarial": 1.0},
        {"step": 40, "kind": "losses", "cycle": 0.4, "d_adversarial": 0.9, "domain": 2.0},
        {"step": 40, "kind": "refresh", "flips": {}},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    series = {curve.name: (curve.x, curve.y) for chart in read_charts(path) for curve in chart.series}
    assert series["others kept"] == ([0], [0.9])
    assert series["cycle"] == ([20, 40], [0.5, 0.4])
    assert series["domain"] == ([40], [2.0])
    assert series["diversity"] == ([], [])


@pytest.mark.slow
def test_a_short_demo_ends_with_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_module, "JUDGED", 8)
    out = tmp_path / "demo"
    report = run_demo(0.02, out, seed=1, faces=64, device="cpu")
    captured = capsys.readouterr()
    page = (out / "index.html").read_text(encoding="utf-8")
    assert captured.out.rstrip().splitlines()[-1].endswith("demo/index.html")
    for command in demo_module.Demo(out, 0.02, 1, 64, "small-32", "auto").commands.values():
        assert command.replace("--device auto", "--device cpu") in captured.err
    assert report.steps > 0
    assert f"<b>{report.steps}</b> steps" in page
    assert 0 <= report.recognised <= 1
    assert json.loads((out / "demo.json").read_text())["report"] == report.to_json()

    own = sorted(path.name for path in out.iterdir())

    # The page's grids and judged pictures are what `lanit translate --add` writes.
    sources = np.stack([decode_rgb(path) for path in sorted((out / "sources").glob("*.png"))])
    for model, folder in ((out / "run", "translated"), ("sample", "translated-sample")):
        translator = Translator(load_bundle(model), torch.device("cpu"))
        size, column = translator.bundle.options.image_size, translator.domains.index(demo_module.ADDED)
        small = np.stack([demo_module.fit_square(face, size) for face in sources])
        made = add_domain(translator, load_labeller(translator.bundle, None, translator.device), small, column)
        written = [np.asarray(Image.open(path)) for path in sorted((out / folder).glob("*.png"))]
        assert np.abs(made.astype(int) - np.stack(written)).max() <= 1  # other batches, other last bits

    clear(demo(out))
    assert own == [
        ".lock",
        "demo.json",
        "faces",
        "index.html",
        "run",
        "sources",
        "store",
        "translated",
        "translated-sample",
    ]
    assert sorted(path.name for path in out.iterdir()) == [".lock", "demo.json"], "it knows all that it writes"
