"""Prompts that learn from two crops: taken where labels of other images become more stable, then usable everywhere."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score
from torch import nn
from typer.testing import CliRunner

import cli
from lanit.agreement import LEAST_GAIN
from lanit.errors import LanitError, UsageError
from lanit.rules import Rule
from pipeline.clip.models import load_clip
from pipeline.clip.text_towers import OpaqueText
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.inspection.label_report import label_and_report
from pipeline.prompts.learned_prompts import read_prompts
from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
from pipeline.sample_world.dataset import write_faces
from pipeline.sample_world.faces import ATTRIBUTES, draw_faces
from pipeline.stability import prompt_learning
from pipeline.stability.crops import make_views
from pipeline.stability.prompt_learning import learn_prompts
from pipeline.stability.views import Stabilise
from pipeline.store.store import Store

FACES, SEED = 240, 15
POOR = "a face with black hair and a mustache and {}."
ASKED = Stabilise(learn=True, least=100)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(each) for each in arguments])


def of_template(template: str) -> PromptSet:
    phrases = read_prompt_set("sample-faces").domains
    return PromptSet(phrases, (template,), (template.replace(" {}", ""),), "one template")


@pytest.fixture(scope="module")
def sample() -> Any:
    return load_clip("sample")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sample: Any) -> Store:
    """Drawn faces, with crops."""
    folder = tmp_path_factory.mktemp("world")
    write_faces(folder / "faces", FACES, SEED, 32)
    embed([str(folder / "faces")], folder / "store", sample, EmbedOptions())
    store = Store.open(folder / "store")
    make_views(store, sample, least=100)
    return store


@pytest.fixture
def store(world: Store, tmp_path: Path) -> Store:
    shutil.copytree(world.root, tmp_path / "store")
    return Store.open(tmp_path / "store")


def f1(store: Store) -> float:
    labels = store.labels()
    truth = draw_faces(SEED, range(FACES), 32)[1][:, [ATTRIBUTES.index(domain) for domain in labels.domains]]
    order = np.argsort(labels.paths)
    return float(f1_score(truth, labels.active[order], average="macro", zero_division=0))


def test_what_is_learned_is_better_kept_and_taken_back(store: Store, sample: Any) -> None:
    label_and_report(store, sample, of_template(POOR), Rule(), stabilise=Stabilise(views=False))
    before = f1(store)
    report = label_and_report(store, sample, of_template(POOR), Rule(), stabilise=ASKED)
    found = report.learning
    assert found is not None
    assert found.accepted
    assert found.after >= found.before + LEAST_GAIN
    assert found.images == (FACES // 2, FACES // 2)
    assert f1(store) > before + 0.05
    learned = store.labels().prompt_set
    assert learned.learned is not None
    assert report.learned, "the words that it is nearest to are told"
    read = read_prompts(str(store.root))
    assert not isinstance(read, PromptSet)
    read.check_model(store.fingerprint)
    assert read.prompts == learned
    again = label_and_report(store, sample, of_template(POOR), Rule(), stabilise=ASKED)
    assert not again.created, "equal arguments, equal labels"
    assert json.loads(json.dumps(report.to_json()))["learning"]["accepted"] is True


def test_what_is_not_more_stable_on_other_images_is_not_taken(
    store: Store, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, sharp = of_template(POOR), {"_STEPS": 2, "_OFFSET_RATE": 9.0}
    for name, value in sharp.items():  # offsets leap to where labels are chance
        monkeypatch.setattr(prompt_learning, name, value)
    report = label_and_report(store, sample, own, Rule(), stabilise=ASKED)
    assert report.learning is not None
    assert report.learning.after < report.learning.before + LEAST_GAIN
    assert not report.learning.accepted
    assert store.labels().prompt_set == own
    assert not (store.root / "prompts.safetensors").exists()


def test_phrases_that_come_to_say_the_same_are_not_taken(
    world: Store, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = of_template("a face with {}.")
    twice = PromptSet(("smiling", "eyeglasses"), good.templates, good.bases, "two")
    alike = PromptSet(("eyeglasses", "wearing eyeglasses"), good.templates, good.bases, "two")
    monkeypatch.setattr(prompt_learning, "_learned", lambda *rest: alike)
    monkeypatch.setattr(prompt_learning, "LEAST_GAIN", -2.0)
    found = learn_prompts(make_views(world, sample, least=100), sample, twice, Rule())
    assert found.alike == (("smiling", "eyeglasses"),)
    assert not found.accepted
    assert found.prompts == twice


def test_a_dry_run_keeps_nothing(store: Store, sample: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_learning, "_STEPS", 2)
    monkeypatch.setattr(prompt_learning, "LEAST_GAIN", -2.0)
    report = label_and_report(store, sample, of_template(POOR), Rule(), stabilise=ASKED, dry_run=True)
    assert report.learning is not None
    assert report.learning.accepted
    assert store.revisions() == []
    assert not (store.root / "prompts.safetensors").exists()


def test_where_prompts_cannot_learn_one_line_says_so(world: Store, sample: Any) -> None:
    views, phrases = make_views(world, sample, least=100), read_prompt_set("sample-faces").domains
    with pytest.raises(UsageError, match="adaptive rule, not under arg-max"):
        learn_prompts(views, sample, of_template(POOR), Rule("argmax"))
    bare = PromptSet(phrases, ("{}.",), (".",), "the phrase alone")
    with pytest.raises(LanitError, match="no template has a word before its phrase"):
        learn_prompts(views, sample, bare, Rule())
    opaque = copy.copy(sample)
    vars(opaque)["text"] = OpaqueText(nn.Identity(), "not causal")
    with pytest.raises(LanitError, match="not causal"):
        learn_prompts(views, opaque, of_template(POOR), Rule())


def test_options_that_contradict_learning_are_refused(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    embed([make_images(12)], tmp_path / "manifests", tiny_clip)
    for other in ("--choose-offsets", "--without-views"):
        refused = run("label", "red", "green", "--learn-prompts", other)
        assert refused.exit_code == 2, refused.output
    few = run("label", "red", "green", "--learn-prompts")
    assert few.exit_code == 1
    assert "from 500 images on" in few.stderr
