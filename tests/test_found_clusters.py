"""Methods that need no labels: clusters are found, named and written, and what they are used for needs no CLIP."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import adjusted_mutual_info_score

from lanit.errors import LanitError, UsageError
from lanit.inference import drawn_codes, edited, translate
from pipeline.api import Model
from pipeline.embedding.embed import embed
from pipeline.evaluation.sample import real_labels
from pipeline.model_exports.model_card import model_card
from pipeline.model_exports.run_metrics import read_metrics
from pipeline.models.bundle import load_bundle
from pipeline.models.translator import Translator
from pipeline.play.panels import margin_table
from pipeline.play.workbench import Reading
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.runs.page import runs_page
from pipeline.runs.run_list import list_runs
from pipeline.store.store import Store
from pipeline.training import found_clusters
from pipeline.training.train_options import make_options, options_from
from pipeline.words.vocabulary import Vocabulary
from tests.label_builders import add_labels
from tests.training_world import PROMPTS, copy_of, draw_store, go, labelled, metrics

SMALL = {
    "size": 32, "batch_size": 4, "channels": 4, "max_channels": 8, "style_dim": 8, "precision": "float32",
    "clusters": 3, "r1_every": 2, "log_every": 2, "sample_every": 0, "checkpoint_every": 2, "refresh_every": 2,
    "evaluate_images": 3,
    "keep": 10, "warm_up": 0.3,
}  # fmt: skip
METHODS = ("tunit", "style-aware")
WORDS = ("red", "green", "blue", "wall", "sky", "grass")


def options(method: str, **settings: Any) -> Any:
    return make_options(SMALL | {"method": method} | settings)


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_clusters, "read_vocabulary", lambda: Vocabulary("test", WORDS))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Any) -> Path:
    return draw_store(tmp_path_factory.mktemp("clusters"), tiny_clip)


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Store:
    return copy_of(original, tmp_path / "store")


@pytest.mark.parametrize("method", METHODS)
def test_a_store_without_labels_is_trained_on_and_a_run_goes_on_bit_for_bit(
    store: Store, tiny_clip: Any, tmp_path: Path, method: str
) -> None:
    go(tmp_path / "whole", tiny_clip, options(method, steps=8))
    go(tmp_path / "parts", tiny_clip, options(method, steps=8))
    for late in (tmp_path / "parts" / "checkpoints").glob("step-0000000[68]"):
        shutil.rmtree(late)  # as if it was killed after step 4
    report = go(tmp_path / "parts", tiny_clip, options(method, steps=8))
    assert (report.started_at, report.steps) == (4, 8)
    for name in ("networks", "average", "generative_optimiser", "discriminator_optimiser"):
        files = [next((tmp_path / run).rglob(f"step-00000008/{name}.safetensors")) for run in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    lines = metrics(tmp_path / "whole")
    assert next(line["step"] for line in lines if line["kind"] == "refresh") == 3, "as soon as the warm-up ends"
    learned = store.labels(report.label_revision)
    assert (learned.rule.kind, learned.rule.value) == ("learned", 3)
    assert learned.origin == "train:parts step 8"
    assert len(store.revisions()) == 8, "3, 4, 6 and 8 of each run: what is made again is written once"
    assert (learned.active.sum(axis=1) == 1).all()
    assert ((learned.margin > 0) == learned.active).all()
    named = set(learned.domains) - {"cluster 1", "cluster 2", "cluster 3"}
    assert named <= set(WORDS)
    assert named


@pytest.mark.parametrize("method", METHODS)
def test_the_model_labels_and_translates_without_a_clip(
    store: Store, tiny_clip: Any, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = go(tmp_path / "run", tiny_clip, options(method, steps=4))
    bundle, labels = load_bundle(tmp_path / "run"), store.labels(report.label_revision)
    assert bundle.prompt_set.domains == labels.domains
    assert bundle.exclusive.sum() == 6, "an image is of one cluster"
    assert (real_labels(store, bundle, None).active == labels.active).all()
    monkeypatch.setattr("pipeline.api.load_labeller", lambda *rest: pytest.fail("a CLIP was asked for"))
    model = Model(tmp_path / "run", device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    found = model.label_batch(list(images))
    assert all(len(each.active) == 1 for each in found)
    assert model.translate(images[0], add=labels.domains[0]).size == (32, 32)
    assert model.translate(images[0], reference=images[1]).size == (32, 32)
    card = model_card(bundle, read_metrics(bundle, tmp_path / "run" / "model")[0], None)
    runs = runs_page(list_runs([tmp_path / "run"]))
    play = margin_table(Reading(images[0], found[0], None), [], (), model.reader)
    for page in (card, runs, play):
        assert "guiding network" in page
        assert not re.search(r"by (the )?CLIP|CLIP sees|CLIP's judgement|given by this CLIP", page)


def test_people_keep_their_phrases_and_what_they_said(store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    active = rng.random((store.ok, 2)) < 0.5
    human = np.zeros_like(active)
    active[:3], human[:3] = [[True, False], [False, True], [True, False]], True
    prompts = PromptSet(("cat", "dog"), ("a {}.",), ("a.",), "test")
    margin = np.where(active, 0.1, -0.1).astype(np.float32)
    number = add_labels(store, active, margin, prompts=prompts, human=human)
    report = go(tmp_path / "run", tiny_clip, options("tunit", steps=4), revision=number)
    learned = store.labels(report.label_revision)
    assert learned.domains[:2] == ("cat", "dog")
    assert learned.human is not None
    assert learned.active[:3].tolist() == [[True, False, False], [False, True, False], [True, False, False]]
    assert (learned.human[:, :2] == human).all()
    losses = [line for line in metrics(tmp_path / "run") if line["kind"] == "losses"]
    assert max(line["known_classes"] for line in losses) > 0
    with pytest.raises(LanitError, match=f"was started with label revision {number}"):
        go(tmp_path / "run", tiny_clip, options("tunit", steps=6))


def test_what_cannot_be_is_refused_in_one_line(store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    with pytest.raises(LanitError, match="no labels to train on") as caught:
        go(tmp_path / "run", tiny_clip, make_options({"size": 32, "steps": 2}))
    assert "--method tunit" in str(caught.value.hint)
    with pytest.raises(UsageError, match="5 clusters cannot be told apart in a batch of 4 images"):
        options("tunit", clusters=5)
    with pytest.raises(UsageError, match="finds labels itself"):
        options("style-aware", balance="domain")
    assert options_from("paper", {"method": "tunit"}).batch_size == 40, "enough to tell ten clusters apart"
    assert options_from("small-32", {"method": "tunit"}).balance == "uniform"
    labelled(store)
    with pytest.raises(LanitError, match="nobody labelled an image"):
        go(tmp_path / "run", tiny_clip, options("tunit", steps=2), revision=1)
    assert len(PROMPTS.domains) == 3


def test_kinds_are_found_and_pictures_translated_to_them(tmp_path: Path, tiny_clip: Any) -> None:
    """The job: two kinds of pictures that nobody listed become two clusters, and any becomes the one asked for."""
    rng, truth = np.random.default_rng(0), np.arange(48) % 2
    inside = slice(8, 24)
    (tmp_path / "images").mkdir()
    for number, kind in enumerate(truth):
        picture = rng.integers(60, 190, (32, 32, 3)).astype(np.uint8)
        picture[inside, inside] = (40, 40, 210) if kind else (210, 40, 40)
        Image.fromarray(picture).save(tmp_path / "images" / f"{number:02d}.png")
    embed([tmp_path / "images"], tmp_path / "store", tiny_clip)
    asked = options(
        "tunit", clusters=2, steps=160, warm_up=0.25, batch_size=8, channels=8, max_channels=16, guide_rate=1e-3,
        learning_rate=5e-3, recolour=0.0, r1=0.0, ema=0.95, checkpoint_every=0, refresh_every=0, output="residual",
    )  # fmt: skip
    report = go(tmp_path / "run", tiny_clip, asked)
    labels = Store.open(tmp_path / "store").labels(report.label_revision)
    assert adjusted_mutual_info_score(truth, labels.active.argmax(axis=1)) > 0.9
    translator = Translator(load_bundle(tmp_path / "run"), torch.device("cpu"))
    pixels = np.stack([np.asarray(Image.open(tmp_path / "images" / f"{n:02d}.png")) for n in range(12)])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    codes = drawn_codes(translator.networks, torch.randn(1, 8, generator=torch.Generator().manual_seed(0)))
    for domain in range(2):
        add = (torch.arange(2) == domain).float()
        own = translator.labels(images, None)
        made = translate(translator.networks, images, edited(own, add, add < 0, translator.exclusive), codes)[0]
        red, _, blue = made[:, :, inside, inside].mean(dim=(0, 2, 3))
        is_blue = bool(truth[labels.active[:, domain]].mean() > 0.5)
        assert (blue > red) == is_blue, (domain, red, blue)
