"""Words that a store's CLIP has read before load no CLIP, and change nothing about the labels."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import cli
from lanit.errors import LanitError
from lanit.labels import EmbeddedPrompts, assign, decide
from lanit.linear_head import LinearHead
from lanit.rules import Rule
from pipeline.embedding.embed import embed
from pipeline.prompts.embed_prompts import prompt_vectors, sentence_vector
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store import kept_texts
from pipeline.store.kept_texts import StoreTexts
from pipeline.store.store import Store
from pipeline.store.store_clip import StoreClip, clip_of

ROOT = Path(__file__).parent.parent
PROMPTS = PromptSet(("red", "large green hat", "blue"), ("a photo of {}.", "{} in it"), ("a photo.", "in it"), "three")
COMMANDS = (
    ("label", "red", "large green hat", "--noun", "thing"), ("search", "red hat"), ("inspect-labels",),
    ("inspect-labels", "--rules", "adaptive,top-1,fixed=0.1"), ("suggest-prompts", "--vocabulary", "words.txt"),
)  # fmt: skip


@pytest.fixture
def store(make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path) -> Store:
    embed([make_images(12)], tmp_path / "store", tiny_clip)
    (tmp_path / "words.txt").write_text("red\nred hat\nviolet and a longer phrase than the others\n")
    return Store.open(tmp_path / "store")


def lanit(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, [*arguments])


def revisions(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((root / "labels").glob("r*.parquet"))]


def without_clip(clip: StoreClip) -> StoreClip:
    """The same, which must not be loaded."""
    vars(clip)["loaded"] = None
    return clip


@pytest.fixture
def opened(store: Store) -> Callable[[], Any]:
    return lambda: clip_of(store, None, None)


def test_commands_on_known_words_import_neither_torch_nor_open_clip(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ("--store", str(store.root))
    for command in COMMANDS:
        first = lanit(*command, *base)
        assert first.exit_code == 0, first.output
        assert ("loading CLIP" in first.stderr) == (command[0] != "inspect-labels")
    script = (
        "import sys; from typer.testing import CliRunner; from cli import app\n"
        f"for command in {COMMANDS!r}:\n"
        f"    done = CliRunner().invoke(app, [*command, *{base!r}])\n"
        "    assert done.exit_code == 0 and 'loading' not in done.stderr, done.output\n"
        "print(sorted({'torch', 'open_clip', 'torchvision', 'transformers', 'PIL'} & set(sys.modules)))"
    )
    again = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True,
                           check=False, env={"PYTHONPATH": str(ROOT), "PATH": ""})  # fmt: skip
    assert again.stdout.strip().splitlines()[-1:] == ["[]"], again.stderr
    assert len(store.revisions()) == 1


def test_labels_are_the_same_bytes_whatever_was_read_before(store: Store, tmp_path: Path) -> None:
    cold, other = (shutil.copytree(store.root, tmp_path / name) for name in ("cold", "other"))
    for root, commands in (
        (cold, [["red", "large green hat", "blue"]]),
        (store.root, [["red", "large green hat", "blue"]] * 2),
        (
            other,
            [["blue", "a phrase of more words than any other"], ["hat", "red"], ["red", "large green hat", "blue"]],
        ),
    ):
        for phrases in commands:
            assert lanit("label", *phrases, "--store", str(root)).exit_code == 0
    assert len(revisions(store.root)) == 1, "the second time the same labels were there"
    assert revisions(store.root) == revisions(cold)
    newest, alone = Store.open(other).labels(), Store.open(cold).labels()
    np.testing.assert_array_equal(newest.margin, alone.margin)
    np.testing.assert_array_equal(newest.similarity_base, alone.similarity_base)


def test_a_vector_is_that_of_the_loaded_clip(store: Store, tiny_clip: Any, opened: Callable[[], Any]) -> None:
    made = prompt_vectors(opened(), PROMPTS)
    sentence = sentence_vector(opened(), "red hat")
    for each in (tiny_clip, without_clip(opened())):
        again = prompt_vectors(each, PROMPTS)
        assert again.scale == tiny_clip.logit_scale
        for ours, theirs in zip(
            (made.domains, made.base, sentence), (again.domains, again.base, sentence_vector(each, "red hat")),
            strict=True,
        ):  # fmt: skip
            np.testing.assert_array_equal(ours, theirs)
    mixed = prompt_vectors(without_clip(opened()), replace(PROMPTS, domains=("blue", "red"), offsets=(), weights=()))
    np.testing.assert_array_equal(mixed.domains, made.domains[[2, 0]])
    assert not (made.domains == prompt_vectors(opened(), PROMPTS.first_template()).domains).any()


def test_a_damaged_cache_is_made_again_and_of_another_model_removed(
    store: Store, opened: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prompt_vectors(opened(), PROMPTS)
    [path] = (store.root / "cache").glob("texts-*.npy")
    whole = path.read_bytes()
    for damaged in (whole[:200], whole[:300] + b"x" + whole[301:], b""):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(prompt_vectors(opened(), PROMPTS).domains, made.domains)
        assert path.read_bytes() == whole
    other = StoreTexts(store.root, replace(store.fingerprint, weights_sha256="0" * 64))
    assert not other.read()
    monkeypatch.setattr(kept_texts, "MOST_TEXTS", 2)
    vectors = np.eye(3, store.embedding_dim, dtype=np.float32)
    other.keep(dict(zip(("a" * 64, "b" * 64, "c" * 64), vectors, strict=True)), 10.0, 7)
    assert not path.exists(), "a store has one model"
    again = StoreTexts(store.root, replace(store.fingerprint, weights_sha256="0" * 64, precision="bf16"))
    assert [*again.read()] == ["b" * 64, "c" * 64]
    assert (again.logit_scale, again.context_length) == (10.0, 7)


def test_known_words_do_without_a_clip_that_is_gone_and_new_ones_say_so(
    store: Store, tiny_clip_folder: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_clip_folder, tmp_path / "clip")
    document = json.loads((store.root / "store.json").read_text())
    document = {key: value for key, value in document.items() if key != "seal"} | {"clip_spec": str(folder)}
    (store.root / "store.json").write_text(json.dumps(document))
    base = ("--store", str(store.root))
    assert lanit("label", "red", "blue", *base).exit_code == 0
    shutil.rmtree(folder)
    assert lanit("label", "blue", *base).exit_code == 0
    gone = lanit("label", "blue", "violet", *base)
    assert gone.exit_code != 0
    shutil.copytree(make_clip(seed=3), folder)
    stranger = lanit("search", "violet", *base)
    assert stranger.exit_code == 1
    assert "weights_sha256" in stranger.stderr
    with pytest.raises(LanitError, match="weights_sha256"):
        clip_of(Store.open(store.root), str(folder), None)


@pytest.mark.parametrize("rule", [Rule(), Rule("fixed", 0.1), Rule("top-k", 2), Rule("argmax"), Rule("given")])
def test_arrays_and_tensors_decide_alike(rule: Rule) -> None:
    """The one rule, on the margins of both: NumPy's labels are those of torch, ties among them."""
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 0.1, (500, 7)).astype(np.float32)
    margins[:, 3] = margins[:, 5]
    base, offsets, weights = (rng.normal(size=n).astype(np.float32) for n in (500, 7, 7))
    offsets[2] = margins[0, 2]
    given = (margins, base, offsets, weights)
    ours, theirs = decide(rule, *given), decide(rule, *map(torch.from_numpy, given))
    assert (ours.dtype, theirs.dtype) == (np.dtype(bool), torch.bool)
    np.testing.assert_array_equal(ours, theirs.numpy())
    images = rng.normal(size=(40, 9)).astype(np.float32)
    prompts = EmbeddedPrompts(*(rng.normal(size=s).astype(np.float32) for s in ((7, 9), (9,), (7,), (7,))))
    for head in (
        None,
        LinearHead(images[:2], base[:2], columns=np.array([1, 4])),
        LinearHead(images[:7], base[:7], True),
    ):
        of_tensors = None if head is None else LinearHead(
            torch.from_numpy(head.weights), torch.from_numpy(head.bias), head.one_hot,
            None if head.columns is None else torch.from_numpy(head.columns),
        )  # fmt: skip
        results = (
            assign(rule, images, prompts, head),
            assign(rule, torch.from_numpy(images), prompts.tensors(), of_tensors),
        )
        for array, tensor in zip(*results, strict=True):
            np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-5, atol=1e-5)
