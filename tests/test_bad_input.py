"""Bad input of every kind: one line on stderr with what to type next, exit code 1 or 2, the store as it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cli
from pipeline.files import sealed, unsealed, write_json

NETWORKS = "--preset small-32 --batch-size 2 --set channels=8 --set max_channels=16 --set discriminator_channels=8"
SMALL = [*NETWORKS.split(), "--set", "mapping_width=16", "--device", "cpu"]


@dataclass(frozen=True)
class Case:
    """A command line that must fail.

    arguments: of lanit; {clip}, {other} and {absent} become folders of the store's CLIP, of another, and of none.
    expected: parts of the line, the last of them what to type or do next. prepare: spoils the world first.
    """

    arguments: str
    expected: tuple[str, ...]
    code: int = 1
    prepare: Callable[[Path], None] = lambda world: None


def _write(name: str, content: str) -> Callable[[Path], None]:
    def write(world: Path) -> None:
        (world / name).parent.mkdir(parents=True, exist_ok=True)
        (world / name).write_text(content, encoding="utf-8")

    return write


def _truncate(name: str) -> Callable[[Path], None]:
    def truncate(world: Path) -> None:
        (path,) = world.glob(name)
        path.write_bytes(path.read_bytes()[:-40])

    return truncate


def _edit_json(name: str, *keys: str, value: object) -> Callable[[Path], None]:
    def edit(world: Path) -> None:
        document = inner = unsealed(json.loads((world / name).read_text(encoding="utf-8")))
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        document.pop("seal", None)
        (world / name).write_text(json.dumps(document), encoding="utf-8")

    return edit


def _remove(name: str) -> Callable[[Path], None]:
    def remove(world: Path) -> None:
        (path,) = world.glob(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def _label(text: str, *expected: str) -> Case:
    return Case("label --prompts bad.txt", expected, prepare=_write("bad.txt", text))


LONG = "somebody with " + "very " * 20 + "long hair"
TRAIN = "train --out run " + " ".join(SMALL)

CASES = {
    # folders
    "missing folder": Case("embed nowhere --clip {clip}", ("no folder nowhere", "Check the path")),
    "folder that is a file": Case("embed good.txt --clip {clip}", ("no column of image paths", "--image-column")),
    "empty folder": Case(
        "embed empty --clip {clip}", ("no images in", ".jpg"), prepare=lambda w: (w / "empty").mkdir()
    ),
    "no image decodable": Case(
        "embed broken --clip {clip}",
        ("none of the 1 images", "Check the files"),
        prepare=_write("broken/a.jpg", "text"),
    ),
    "no image decodable, overwriting": Case(
        "embed broken --clip {clip} --overwrite",
        ("none of the 1 images", "Check the files"),
        prepare=_write("broken/a.jpg", "text"),
    ),
    "no image decodable, new store": Case(
        "embed broken --clip {clip} --store new", ("none of the 1 images",), prepare=_write("broken/a.jpg", "text")
    ),
    # models
    "unknown model": Case("embed photos --clip ViT-Z-99", ("no CLIP 'ViT-Z-99'", "Did you mean"), code=2),
    "unknown weights of a model": Case(
        "embed photos --clip ViT-B-32/nobody", ("no weights 'nobody'", "one of openai"), code=2
    ),
    "model that cannot be had": Case("embed photos --clip ViT-B-32/openai", ("cannot be had", "--clip sample")),
    "missing weights file": Case("embed photos --clip nothing.pt", ("no weights file", "--clip sample")),
    "weights file that is none": Case(
        "embed photos --clip bad.safetensors", ("bad.safetensors", "--clip"), prepare=_write("bad.safetensors", "text")
    ),
    "weights of another architecture": Case(
        "embed photos --clip {clip}/open_clip_model.safetensors --clip-arch RN50",
        ("open_clip_model.safetensors", "--clip"),
    ),
    "unknown architecture": Case(
        "embed photos --clip {clip}/open_clip_model.safetensors --clip-arch RN51", ("no CLIP 'RN51'", "RN50"), code=2
    ),
    "folder without a model": Case("embed photos --clip photos", ("open_clip_config.json", "--clip-arch")),
    "unknown device": Case("embed photos --clip {clip} --device quantum", ("no device 'quantum'", "--device cpu")),
    # prompts
    "missing prompts": Case("label --prompts nothing.txt", ("nothing.txt", "Give a file")),
    "misspelt built-in set": Case("label --prompts celeba-10", ("celeba-10", "celeba-hq-10")),
    "empty prompts": _label("# nothing\n", "no phrase", "one phrase a line"),
    "malformed template": _label("template: a face.\nsmiling\n", "line 1", "exactly once", "a face with {}"),
    "several phrases on a line": _label("smiling, bald\n", "line 1", "line of its own"),
    "duplicate prompts": _label("smiling\nbald\nSmiling \n", "line 3", "repeats line 1", "Remove one"),
    "phrase over the context length": _label(f"smiling\n{LONG}\n", "very very", "…", "tokens", "Shorten"),
    "prompts that are no text": _label("smiling\x00", "not a text file", "one phrase a line"),
    "noun with braces": Case("label --prompts good.txt --noun {{}}", ("--noun", "--noun face")),
    "contradicting options": Case("label --clusters 3 --rule top-3", ("--rule", "Leave --rule out"), code=2),
    "k of nothing": Case("label --prompts good.txt --rule top-0", ("top-k", "--rule top-2"), code=2),
    "threshold that is no cosine": Case(
        "label --prompts good.txt --rule fixed=25", ("between -1 and 1", "--rule fixed=0.25"), code=2
    ),
    "device of search that is not there": Case("search red --device x9", ("no device 'x9'", "--device cpu")),
    "device of flips that is not there": Case(
        "inspect-labels --augment 2 --device x9", ("no device 'x9'", "--device cpu")
    ),
    # stores
    "no store": Case(
        "label --prompts good.txt --store nowhere", ("no store at nowhere", "lanit embed DIR --store nowhere")
    ),
    "no labels": Case("inspect-labels", ("no labels", "lanit label --prompts"), prepare=_remove("manifests/labels")),
    "no such revision": Case("inspect-labels --revision 9", ("no label revision 9", "It has 1")),
    "store of another model": Case("embed photos --clip {other}", ("holds", "--overwrite")),
    "labels by another model": Case("label --prompts good.txt --clip {other}", ("weights_sha256 differ", "--clip")),
    "training with another model": Case(TRAIN + " --clip {other}", ("weights_sha256 differ", "--clip")),
    "half-written store": Case(
        "label --prompts good.txt", ("manifests", "lanit embed"), prepare=_remove("manifests/store.json")
    ),
    "store without a part": Case(
        "label --prompts good.txt", ("part", "lanit embed"), prepare=_remove("manifests/images/*.parquet")
    ),
    "part cut short": Case(
        "label --prompts good.txt", ("part", "lanit embed"), prepare=_truncate("manifests/images/*.parquet")
    ),
    "manifest cut short": Case(
        "label --prompts good.txt", ("store.json", "lanit embed"), prepare=_truncate("manifests/store.json")
    ),
    "labels cut short": Case(
        "inspect-labels", ("revision 1", "lanit label"), prepare=_truncate("manifests/labels/r0001.parquet")
    ),
    "store of a later lanit": Case(
        "label --prompts good.txt",
        ("schema version 99", "--overwrite"),
        prepare=_edit_json("manifests/store.json", "schema_version", value=99),
    ),
    # truth
    "missing truth": Case("inspect-labels --truth nothing.csv", ("nothing.csv", "column 'path'")),
    "truth of other words": Case(
        "inspect-labels --truth t.csv",
        ("no column for any of", "column of 0 and 1"),
        prepare=_write("t.csv", "path,hat\na.png,1\n"),
    ),
    "truth of other images": Case(
        "inspect-labels --truth t.csv",
        ("no path of the known labels", "folder"),
        prepare=_write("t.csv", "path,red\nx.png,1\n"),
    ),
    "epsilon below zero": Case("inspect-labels --epsilon -1", ("--epsilon", "default"), code=2),
    # training
    "unknown preset": Case("train --out run2 --preset huge", ("no preset 'huge'", "small-64"), code=2),
    "unknown setting": Case("train --out run2 --set domian=1", ("'domian'", "domain"), code=2),
    "odd size": Case("train --out run2 --size 100", ("power of two", "--size 64"), code=2),
    "training without labels": Case(
        "train --out run2 " + " ".join(SMALL), ("no labels", "lanit label"), prepare=_remove("manifests/labels")
    ),
    "checkpoint of other options": Case(
        TRAIN.replace("channels=8", "channels=4", 1) + " --steps 2", ("run", "another --out")
    ),
    "checkpoint of another architecture": Case(
        TRAIN.replace("channels=8", "channels=4", 1) + " --steps 2",
        ("another architecture", "another --out"),
        prepare=_edit_json("run/config.json", "options", "channels", value=4),
    ),
    # translation
    "missing model": Case(
        "translate photos --model nowhere --to red --out out", ("no model at nowhere", "--model sample")
    ),
    "phrase that no domain is near": Case(
        "translate photos --model run --to smiling --out out",
        ("'smiling' is not a domain", "none is near", "red, green"),
    ),
    "folder of other files": Case(
        "translate photos --model run --to red --out out",
        ("holds other files", "new or empty folder"),
        prepare=_write("out/001.png", "precious"),
    ),
    "folder of the originals": Case(
        "translate photos --model run --to red --out photos", ("folder of the originals", "another folder")
    ),
    "two references for all": Case(
        "translate photos --model run --to red --reference a.png --reference b.png --out out",
        ("both for all domains", "smiling=face.jpg"),
        code=2,
    ),
    "reference for no domain": Case(
        "translate photos --model run --to red --reference smiling=photos/0.png --out out", ("'smiling'", "red, green")
    ),
    "reference for what is not asked": Case(
        "translate photos --model run --to red --reference green=photos/0.png --out out",
        ("'green', which is not asked for", "Add it"),
        code=2,
    ),
    "steps to nowhere": Case(
        "translate photos --model run --to red --steps 3 --out out", ("--steps is for --interpolate", "Add"), code=2
    ),
    "styles of a reference": Case(
        "translate photos --model run --reference photos/0.png --styles 2 --out out", ("--styles", "Leave"), code=2
    ),
    "misspelt domain to add": Case(
        "translate photos --model run --add gren --out out", ("'gren'", "Did you mean 'green'")
    ),
    "nothing to translate to": Case(
        "translate photos --model run --out out", ("nothing to translate to", "--to"), code=2
    ),
    "contradicting domains": Case(
        "translate photos --model run --to red --add green --out out", ("--to", "--add"), code=2
    ),
    "weight that is none": Case("translate photos --model run --to red=x --out out", ("'red=x'", "0.5"), code=2),
    "missing input": Case("translate nowhere --model run --to red --out out", ("no folder nowhere", "Check the path")),
    "missing reference": Case(
        "translate photos --model run --to red --reference none.png --out out", ("none.png", "Give another image")
    ),
    "model of another architecture": Case(
        "translate photos --model run --to red --out out",
        ("another architecture",),
        prepare=_edit_json("run/model/model.json", "networks", "channels", value=4),
    ),
    "model cut short": Case(
        "translate photos --model run --to red --out out",
        ("cannot read", "the same lanit train command"),
        prepare=_truncate("run/model/*.safetensors"),
    ),
    # the sample world
    "folder that is not empty": Case("sample-faces photos", ("photos", "new or empty folder")),
    "no faces": Case("sample-faces faces --count 0", ("0 faces", "--count"), code=2),
    "demo without time": Case("demo --minutes 0 --out d", ("0 minutes", "--minutes 6"), code=2),
    "demo over something else": Case("demo --out photos", ("photos", "--out")),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_clip_folder: Path) -> Path:
    """A working directory with photos, a labelled store and a run of one step."""
    import numpy as np
    from PIL import Image

    world = tmp_path_factory.mktemp("template")
    rng = np.random.default_rng(0)
    (world / "photos").mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(world / "photos" / f"{number}.png")
    (world / "good.txt").write_text("red\ngreen\n", encoding="utf-8")
    for line in (
        f"embed photos --clip {tiny_clip_folder} --device cpu",
        "label --prompts good.txt",
        f"{TRAIN} --steps 1",
    ):
        before = Path.cwd()
        os.chdir(world)
        try:
            result = CliRunner().invoke(cli.app, line.split())
        finally:
            os.chdir(before)
        assert result.exit_code == 0, result.output
    return world


@pytest.fixture
def world(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template as the working directory, without a network."""
    world = tmp_path / "world"
    shutil.copytree(template, world)
    store = world / "manifests" / "store.json"
    moved = json.loads(store.read_text(encoding="utf-8").replace(str(template), str(world)))
    moved.pop("seal")
    write_json(store, sealed(moved))
    monkeypatch.chdir(world)
    monkeypatch.setattr("pipeline.clip.sources._hub_answers", lambda: False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-cache"))
    return world


def snapshot(world: Path) -> dict[str, bytes]:
    return {str(path.relative_to(world)): path.read_bytes() for path in sorted(world.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, world: Path, tiny_clip_folder: Path, make_clip: Callable[..., Path]) -> None:
    case = CASES[name]
    case.prepare(world)
    words = [word.format(clip=tiny_clip_folder, other=make_clip(1)) for word in case.arguments.split()]
    before = snapshot(world)
    result: Any = CliRunner().invoke(cli.app, words)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == case.code, result.output
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert errors == result.stderr.splitlines()[-1:]
    place = 0
    for part in case.expected:
        assert part in errors[0][place:], errors[0]
        place = errors[0].index(part, place) + len(part)
    assert snapshot(world) == before


def test_the_world_itself_is_good(world: Path) -> None:
    """What the cases spoil works unspoilt, so that each fails for its own reason."""
    for line in (
        "label --prompts good.txt --rule argmax",
        "inspect-labels",
        TRAIN + " --steps 1",
        "translate photos --model run --to red --out out",
    ):
        result = CliRunner().invoke(cli.app, line.split())
        assert result.exit_code == 0, result.output
