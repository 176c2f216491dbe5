"""Phrases that are no domain: what stands in for them in the sample world, and what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

import cli
from lanit.errors import LanitError
from pipeline.clip.models import ClipModel, load_clip
from pipeline.models.bundle import load_bundle
from pipeline.models.translator import Translator
from pipeline.sample_world.faces import ATTRIBUTES
from pipeline.store.store import Store
from pipeline.translating.phrases import NEAR, stand_in
from pipeline.translating.recipe import Resolver
from pipeline.translating.requests import TranslateRequest
from tests.test_docs import PAGES, blocks
from tests.translation_world import table


@pytest.fixture(scope="module")
def clip() -> ClipModel:
    return load_clip("sample")


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator(load_bundle("sample"), torch.device("cpu"))


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("hat", {"wearing hat"}),
        ("lipstick", {"wearing lipstick"}),
        ("a smiling face", {"smiling"}),
        ("gray", {"gray hair"}),
        ("hat and eyeglasses", {"wearing hat", "eyeglasses"}),
        ("black hat", {"black hair", "wearing hat"}),
        ("bangs and smiling and mustache", {"bangs", "smiling", "mustache"}),
    ],
)
def test_a_phrase_is_a_mix_of_the_domains_that_it_means(
    translator: Translator, clip: ClipModel, phrase: str, expected: set[str]
) -> None:
    """The nearest counts in full, the others by their cosine, which is taken here sentence by sentence."""
    mix = stand_in(phrase, translator, clip)
    assert {name for name, _ in mix.domains} == expected
    prompts = translator.bundle.prompt_set

    def text(words: str) -> torch.Tensor:
        sentences = [template.replace("{}", words) for template in prompts.templates]
        return F.normalize(clip.encode_texts(sentences).mean(dim=0), dim=0)

    base = F.normalize(clip.encode_texts(list(prompts.bases)).mean(dim=0), dim=0)
    cosine = {name: float(F.cosine_similarity(text(phrase) - base, text(name) - base, dim=0)) for name in ATTRIBUTES}
    nearest = max(cosine.values())
    assert mix.cosine == pytest.approx(nearest, abs=1e-3)
    for name, weight in mix.domains:
        assert weight == pytest.approx(cosine[name] / nearest, abs=2e-3)
    assert phrase in str(mix)


@pytest.mark.parametrize("phrase", ["photo", "face", "good quality", "high quality image", "the", "photo of a face"])
def test_where_no_domain_is_near_the_phrase_is_refused(translator: Translator, clip: ClipModel, phrase: str) -> None:
    with pytest.raises(LanitError, match=f"'{phrase}' is not a domain of this model, and none is near it") as caught:
        stand_in(phrase, translator, clip)
    assert f"{NEAR:g} is needed" in caught.value.message
    assert "eyeglasses" in caught.value.hint


def test_words_that_clip_never_saw_and_slips_of_the_pen_are_refused(translator: Translator, clip: ClipModel) -> None:
    with pytest.raises(LanitError, match="never saw the word 'snow'"):
        stand_in("snow leopard", translator, clip)
    with pytest.raises(LanitError, match="'blond hairs' is not a domain of this model") as caught:
        stand_in("blond hairs", translator, clip)
    assert "Did you mean 'blond hair'?" in caught.value.hint


def test_what_stands_in_is_said_once_and_used_everywhere(translator: Translator, clip: ClipModel) -> None:
    told: list[str] = []
    resolver = Resolver(translator, lambda: clip, told.append)
    recipe = resolver.resolve(TranslateRequest(to=(("hat and eyeglasses", 0.5), ("smiling", 1.0))))
    mix = dict(resolver.mixes["hat and eyeglasses"])
    assert recipe.to is not None
    found = {name: float(value) for name, value in zip(ATTRIBUTES, recipe.to, strict=True) if value > 0}
    assert found == pytest.approx({"smiling": 1.0} | {name: weight / 2 for name, weight in mix.items()})
    edit = resolver.resolve(TranslateRequest(add=("hat and eyeglasses",), remove=("lipstick",)))
    assert {ATTRIBUTES[n] for n in torch.nonzero(edit.add).flatten()} == set(mix)
    assert [ATTRIBUTES[n] for n in torch.nonzero(edit.remove).flatten()] == ["wearing lipstick"]
    assert len(told) == 2
    assert all("taken as" in text for text in told)


def run(*words: object) -> Any:
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def test_the_command_shows_the_mix_before_it_is_used(tmp_path: Path) -> None:
    run("sample-faces", tmp_path / "faces", "--count", 3)
    words = ["translate", tmp_path / "faces", "--model", "sample", "--to", "hat", "--out", tmp_path / "out"]
    result = run(*words, "--device", "cpu")
    assert "taken as wearing hat" in result.stderr
    assert {row["requested"] for row in table(tmp_path / "out")} == {"wearing hat"}
    refused = CliRunner().invoke(cli.app, [*map(str, words[:5]), "photo", "--out", str(tmp_path / "no")])
    assert refused.exit_code == 1
    assert "none is near it" in refused.stderr
    assert not (tmp_path / "no").exists()


def test_every_option_reaches_the_library(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    run("sample-faces", faces, "--count", 3)
    way = run("translate", faces, "--model", "sample", "--interpolate", "black hair", faces / "face-00001.png",
              "--steps", 3, "--as", "gif", "--out", tmp_path / "way", "--device", "cpu", "--json")  # fmt: skip
    assert json.loads(way.stdout)["results"] == 3
    assert sorted(path.name for path in (tmp_path / "way").glob("*.gif")) == [f"face-0000{n}.gif" for n in range(3)]
    reference = f"wearing hat, bangs={faces / 'face-00002.png'}"
    made = run("translate", faces / "face-00000.png", faces / "face-00001.png", "--model", "sample", "--add",
               "wearing hat, bangs", "--remove", "smiling", "--reference", reference, "--styles", 2, "--format", "jpeg",
               "--no-margins", "--workers", 1, "--batch-size", 1, "--out", tmp_path / "made", "--json")  # fmt: skip
    report = json.loads(made.stdout)
    assert (report["found"], report["ok"], report["results"]) == (2, 2, 4)
    names = {f"face-0000{n}-style{k}.jpg" for n in (0, 1) for k in (1, 2)}
    assert {path.name for path in (tmp_path / "made").glob("*.jpg")} == names
    assert all("wearing hat" in row["requested"] for row in table(tmp_path / "made"))
    again = run("translate", faces, "--model", "sample", "--to", "bald", "--out", tmp_path / "way", "--overwrite")
    assert "images/s on" in again.stdout
    assert "of the labels asked for" in again.stdout
    assert not list((tmp_path / "way").glob("*.gif"))


@pytest.mark.slow
def test_the_recipe_of_the_page_augments_a_training_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its commands, with the sample world for what only its reader has: names stay, and labels too."""
    (block,) = (block for block in blocks(PAGES["TRANSLATE.md"], "sh") if "augmented/" in block)
    monkeypatch.chdir(tmp_path)
    run("sample-faces", "photos", "--count", 24, "--seed", 8)
    shutil.move("photos/truth.csv", "truth.csv")
    lines = [shlex.split(line, comments=True) for line in block.splitlines() if line.strip()]
    given = {"runs/first": "sample", "prompts.txt": "sample-faces"}
    for program, *words in lines:
        assert program == "lanit"
        words = [given.get(word, word) for word in words]
        run(*words, *(["--clip", "sample"] if words[0] == "embed" else []))
    photos = {path.name for path in Path("photos").glob("*.png")}
    assert {path.name for path in Path("augmented").glob("*.png")} == photos
    store = Store.open(Path("manifests"))
    revision, sources = store.labels(), store.images(["source", "path", "status"]).to_pylist()
    asked = {row["path"]: row for row in table(Path("augmented"), "labels.csv")}
    assert len(sources) == 48
    hat = ATTRIBUTES.index("wearing hat")
    for row, image in enumerate(sources):
        labels = {name for name, on in zip(revision.domains, revision.active[row], strict=True) if on}
        if image["source"].endswith("augmented"):
            assert labels == {name for name in ATTRIBUTES if asked[image["path"]][name] == "1"}
            assert revision.active[row, hat]
            assert image["path"] in photos
