"""The stages from Python: the chain of docs/PYTHON.md and the notebook run; each gives what its command gives."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import lanit
from lanit.errors import LanitError, UsageError
from lanit.rules import Rule
from pipeline.inspection.inspect_labels import inspect_labels
from pipeline.labelling.label import label
from pipeline.models.bundle import load_bundle
from pipeline.prompts.prompt_sets import prompt_set_of_words
from pipeline.sample_world.dataset import write_faces
from pipeline.stages import ImageStore, StoreLabels
from pipeline.store.store import Store

ROOT = Path(__file__).parent.parent
WORDS = ["smiling", "wearing hat"]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    write_faces(folder / "faces", 24, 0, 64)
    lanit.embed(folder / "faces", folder / "store", clip="sample", device="cpu")
    return folder


@pytest.fixture(scope="module")
def store(faces: Path) -> ImageStore:
    return lanit.open_store(faces / "store", device="cpu")


@pytest.fixture(scope="module")
def labels(store: ImageStore) -> StoreLabels:
    return store.label(WORDS, noun="face")


def test_importing_lanit_is_light_and_says_its_version() -> None:
    code = "import sys, lanit; print(lanit.__version__); print({'torch', 'numpy', 'pipeline'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [version("lanit"), "set()"]


def test_a_store_is_as_many_images_as_were_embedded_and_shows_itself(store: ImageStore, faces: Path) -> None:
    assert len(store) == 24
    assert store.paths == [f"face-{number:05d}.png" for number in range(24)]
    assert re.fullmatch(rf"store {faces / 'store'}: 24 images embedded by sample, \d label revisions?", repr(store))


def test_embeddings_are_those_of_the_store_read_once_and_read_only(store: ImageStore, faces: Path) -> None:
    np.testing.assert_array_equal(store.embeddings, Store.open(faces / "store").embeddings())
    assert store.embeddings is store.embeddings
    with pytest.raises(ValueError, match="read-only"):
        store.embeddings[0] = 0


def test_embedding_again_embeds_nothing(store: ImageStore, faces: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (faces / "store" / "images").glob("part-*")}
    again = lanit.embed([faces / "faces"], faces / "store", device="cpu")
    assert before
    assert {path: path.stat().st_mtime_ns for path in (faces / "store" / "images").glob("part-*")} == before
    np.testing.assert_array_equal(again.embeddings, store.embeddings)


def test_labels_are_those_of_the_command(labels: StoreLabels, store: ImageStore, faces: Path) -> None:
    opened = Store.open(faces / "store")
    made = label(opened, store.clip, prompt_set_of_words(WORDS, "face"), Rule())
    assert (made.created, made.revision) == (False, labels.revision)
    assert labels.domains == ("smiling", "wearing hat")
    table = labels.to_pandas(margins=True)
    np.testing.assert_array_equal(table[WORDS].to_numpy(), opened.labels(labels.revision).active)
    assert table.path.tolist() == store.paths
    assert store.labels(labels.revision).domains == labels.domains


def test_a_notebook_shows_labels_as_a_table_of_phrases(labels: StoreLabels, faces: Path) -> None:
    counts = inspect_labels(Store.open(faces / "store").revision_file(labels.revision)).domains
    assert counts[0].count > 0
    html = labels._repr_html_()
    for domain in counts:
        assert re.search(rf"<th>{domain.domain}</th>\s*<td>{domain.count}</td>", html)
    assert f"smiling {counts[0].count}" in repr(labels)


def test_phrases_are_escaped_where_html_is_shown(store: ImageStore) -> None:
    html = store.label(["a <b>bold</b> face"])._repr_html_()
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert "<b>" not in html


def test_a_data_loader_takes_images_with_their_labels(labels: StoreLabels, faces: Path) -> None:
    data = labels.dataset(size=32)
    assert len(data) == 24
    active = torch.from_numpy(Store.open(faces / "store").labels(labels.revision).active)
    batches = list(DataLoader(data, batch_size=10))
    pictures, known = (torch.cat(each) for each in zip(*batches, strict=True))
    assert (pictures.shape, pictures.dtype) == ((24, 3, 32, 32), torch.uint8)
    assert torch.equal(known, active)
    assert torch.equal(data[-1][0], pictures[23])
    with pytest.raises(IndexError):
        data[24]


def test_training_from_python_is_the_run_of_the_command(labels: StoreLabels, tmp_path: Path) -> None:
    small = {"batch_size": 2, "channels": 4, "max_channels": 8, "mapping_width": 8, "evaluate_images": 4}
    run = lanit.train(labels, tmp_path / "run", preset="small-32", steps=2, settings=small, device="cpu")
    assert run.report is not None
    assert (run.report.steps, run.report.label_revision) == (2, labels.revision)
    assert run.model.domains == labels.domains
    assert repr(run.model) == "model of smiling, wearing hat; 32 px, on cpu"
    assert run.metrics.query("kind == 'losses'").step.tolist() == [2]
    assert load_bundle(tmp_path / "run").training["options"]["channels"] == 4
    again = lanit.train(labels, tmp_path / "run", preset="small-32", steps=3, settings=small, device="cpu")
    assert again.report is not None
    assert again.report.started_at == 2


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda store, labels, out: lanit.embed([]), "nothing to embed"),
        (lambda store, labels, out: lanit.open_store(out / "none"), "there is no store at"),
        (lambda store, labels, out: store.label([]), "no phrase"),
        (lambda store, labels, out: store.label(out / "none.txt"), "none.txt"),
        (lambda store, labels, out: store.label(["smiling"], rule="best"), "best"),
        (lambda store, labels, out: store.labels(99), "no label revision 99"),
        (lambda store, labels, out: lanit.train(labels, out, preset="tiny"), "no preset 'tiny'"),
        (lambda store, labels, out: lanit.train(labels, out, steps=1, settings={"steps": 2}), "given twice"),
        (lambda store, labels, out: lanit.train(labels, out, settings={"depth": 2}), "no setting 'depth'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    store: ImageStore, labels: StoreLabels, tmp_path: Path, ask: Any, says: str
) -> None:
    with pytest.raises((LanitError, UsageError)) as caught:
        ask(store, labels, tmp_path)
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_the_notebook_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell, with fewer faces and steps than a person would take."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "docs" / "first_steps.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    for slow, quick in (("600, 0, 64", "24, 0, 64"), ("minutes=6", "steps=1")):
        assert code.count(slow) == 1
        code = code.replace(slow, quick)
    found: dict[str, Any] = {}
    exec(compile(code, "first_steps.ipynb", "exec"), found)
    assert found["made"].size == (32, 32)
    assert found["active"].shape == (3,)


def test_the_lines_of_the_page_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the model, which has no network here, and the minutes."""
    monkeypatch.chdir(tmp_path)
    write_faces(tmp_path / "photos", 24, 0, 64)
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "photos" / "face-00000.png").read_bytes())
    page = (ROOT / "docs" / "PYTHON.md").read_text(encoding="utf-8")
    (lines,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "lanit.embed" in block)
    for slow, quick in (('"photos/"', '"photos/", clip="sample"'), ('"small-64", minutes=30', '"small-32", steps=1')):
        assert lines.count(slow) == 1
        lines = lines.replace(slow, quick)
    found: dict[str, Any] = {"lanit": lanit}
    exec(compile(lines, "PYTHON.md", "exec"), found)
    assert found["table"].smiling.sum() > 0
    (lines,) = (
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if block.startswith("store = lanit.open")
    )
    assert lines.count('"small-64"') == lines.count("minutes=30") == 3
    few = 'steps=2, settings={"channels": 4, "max_channels": 8, "evaluate_images": 4, "batch_size": 10}'
    exec(compile(lines.replace("small-64", "small-32").replace("minutes=30", few), "PYTHON.md", "exec"), found)
    assert found["kinds"].report.label_revision == found["store"].labels().revision > 1
    assert len(found["kinds"].model.domains) == 10
    assert found["hats"].model.domains == ("wearing hat",)
    assert found["one"].model.domains == ("smiling",)
