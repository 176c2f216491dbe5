"""Learned prompts as a file: ``lanit label`` labels by it as training's refresh did, with that CLIP and no other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import cli
from lanit.errors import LanitError, UsageError
from lanit.labels import Rule
from lanit.prompts import PromptLearner
from pipeline.clip.models import load_clip
from pipeline.clip.text_towers import OpaqueText
from pipeline.embedding.embed import embed
from pipeline.inspection.label_report import label_and_report
from pipeline.labelling.label import label, relabel
from pipeline.labelling.label_sources import LabelRequest, label_source
from pipeline.prompts.embed_prompts import embed_prompts, with_texts
from pipeline.prompts.learned_context import LearnedContext
from pipeline.prompts.learned_prompts import (
    LearnedPrompts,
    learned_prompts_bytes,
    prompt_learner,
    read_learned_prompts,
    read_prompts,
    with_context,
)
from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
from pipeline.store.store import Store
from pipeline.words.word_directions import cached_directions, directions_of

PROMPTS = PromptSet(
    ("red", "a large green", "blue noise"),
    ("a photo of {}.", "{} in a picture", "the {} image."),
    ("a photo.", "in a picture", "the image."),
    "colours",
    (0.0, 0.01, 0.0),
)


def learned_context(clip: Any, prompts: PromptSet = PROMPTS, seed: int = 0) -> Tensor:
    """The context of ``prompts``, moved far."""
    learner = PromptLearner(clip.text, prompts.domains, prompts.templates, prompts.bases)
    moved = learner.context + 0.3 * torch.randn(learner.context.shape, generator=torch.Generator().manual_seed(seed))
    return moved.detach()


@pytest.fixture
def store(make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path) -> Store:
    embed([make_images(12)], tmp_path / "store", tiny_clip)
    return Store.open(tmp_path / "store")


@pytest.fixture
def file(tiny_clip: Any, tmp_path: Path) -> Path:
    path = tmp_path / "run" / "model" / "prompts.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(learned_prompts_bytes(PROMPTS, learned_context(tiny_clip), tiny_clip.fingerprint))
    return path


def test_labels_by_the_file_are_those_of_the_refresh(store: Store, tiny_clip: Any, file: Path) -> None:
    """Training holds the context as a tensor, and relabels by the text features of its own learner."""
    before = store.labels(label(store, tiny_clip, PROMPTS, Rule()).revision)
    learner = PromptLearner(tiny_clip.text, PROMPTS.domains, PROMPTS.templates, PROMPTS.bases)
    with torch.no_grad():
        texts = learner.text_features(learned_context(tiny_clip))
    refreshed = store.labels(relabel(store, before, with_texts(PROMPTS, *texts), "train:run step 7"))
    source = label_source(store, LabelRequest(prompts=str(file)))
    assert source is not None
    report = label(store, tiny_clip, *source)
    labelled = store.labels(report.revision)
    np.testing.assert_allclose(labelled.margin, refreshed.margin, atol=1e-6)
    np.testing.assert_allclose(labelled.similarity_base, refreshed.similarity_base, atol=1e-6)
    clear = np.abs(refreshed.margin - np.array(PROMPTS.offsets)) > 1e-5
    assert (labelled.active == refreshed.active)[clear].all()
    assert np.abs(labelled.margin - before.margin).max() > 1e-3, "they did learn something"
    ours = embed_prompts(tiny_clip, source[0])
    for found, expected in zip((ours.domains, ours.base), texts, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_text_embeddings_are_open_clips_own_with_the_tokens_replaced(tiny_clip: Any) -> None:
    """By hand: open_clip reads the whole sentence, whose embeddings before the phrase a hook replaces."""
    context = learned_context(tiny_clip)
    domains = embed_prompts(tiny_clip, with_context(PROMPTS, context)).domains
    lengths = [len(tiny_clip.tokenizer.encode(template.split("{}")[0])) for template in PROMPTS.templates]
    for n, domain in enumerate(PROMPTS.domains):
        features = []
        for m, template in enumerate(PROMPTS.templates):

            def replace(module: Any, inputs: Any, output: Tensor, m: int = m) -> Tensor:
                return torch.cat([output[:, :1], context[m : m + 1, : lengths[m]], output[:, 1 + lengths[m] :]], dim=1)

            hook = tiny_clip.model.token_embedding.register_forward_hook(replace)
            try:
                with torch.no_grad():
                    features.append(tiny_clip.model.encode_text(tiny_clip.tokenizer([template.format(domain)]))[0])
            finally:
                hook.remove()
        mean = torch.stack(features).mean(dim=0)
        torch.testing.assert_close(domains[n], mean / mean.norm(), rtol=1e-4, atol=1e-5)


def test_the_revision_says_that_prompts_were_learned_and_training_begins_from_them(
    store: Store, tiny_clip: Any, file: Path
) -> None:
    learned = read_learned_prompts(file).prompts
    report = label_and_report(store, tiny_clip, learned, Rule())
    revision = store.labels(report.revision)
    assert revision.prompt_set == learned
    assert revision.prompt_set.digest() == learned.digest() != PROMPTS.digest()
    assert not label(store, tiny_clip, learned, Rule()).created
    other = with_context(PROMPTS, learned_context(tiny_clip, seed=1))
    assert label(store, tiny_clip, other, Rule()).created
    torch.testing.assert_close(
        prompt_learner(tiny_clip.text, revision.prompt_set).context, learned_context(tiny_clip), rtol=0, atol=0
    )
    assert len(report.learned) == sum(
        len(tiny_clip.text.tokenize(template.split("{}")[0])) for template in PROMPTS.templates
    )
    json.dumps(report.to_json(), allow_nan=False)
    assert label(store, tiny_clip, PROMPTS, Rule()).learned == ()


def test_a_refresh_can_say_what_the_prompts_have_learned(store: Store, tiny_clip: Any) -> None:
    before = store.labels(label(store, tiny_clip, PROMPTS, Rule()).revision)
    learned = with_context(PROMPTS, learned_context(tiny_clip))
    after = store.labels(relabel(store, before, embed_prompts(tiny_clip, learned), "train:run step 3", learned))
    assert after.prompt_set == learned


def test_sets_that_learned_nothing_are_stored_as_ever(tiny_clip: Any) -> None:
    assert set(PROMPTS.to_json()) == {"name", "domains", "templates", "bases", "offsets"}
    assert PromptSet.from_json(PROMPTS.to_json()) == PROMPTS
    learned = with_context(PROMPTS, learned_context(tiny_clip))
    stored = json.loads(json.dumps(learned.to_json()))
    assert PromptSet.from_json(stored) == learned
    assert dataclasses.replace(learned, learned=None) == PROMPTS
    for damaged in ({"shape": [3, 1, 1], "float32": "AAAA"}, {"shape": [3, 2, 16]}, "?"):
        with pytest.raises(LanitError, match="learned prompts are damaged"):
            PromptSet.from_json(stored | {"learned": damaged})
    with pytest.raises(LanitError, match="incomplete"):
        PromptSet.from_json(stored | {"learned": learned.first_template().to_json()["learned"]})


def test_the_file_reads_back_and_equal_prompts_give_equal_bytes(tiny_clip: Any, file: Path) -> None:
    context = learned_context(tiny_clip)
    found = read_learned_prompts(file)
    assert found.prompts == with_context(PROMPTS, context)
    assert (found.fingerprint, found.source) == (tiny_clip.fingerprint, file)
    assert file.read_bytes() == learned_prompts_bytes(PROMPTS, context, tiny_clip.fingerprint)
    again = learned_prompts_bytes(with_context(PROMPTS, torch.zeros_like(context)), context, tiny_clip.fingerprint)
    assert file.read_bytes() == again, "what was learned before has no part in it"
    assert list(file.parent.iterdir()) == [file]
    for bad in (context.clone().fill_(torch.nan), context[0], context[:2]):
        with pytest.raises(LanitError):
            learned_prompts_bytes(PROMPTS, bad, tiny_clip.fingerprint)


def test_the_run_and_its_model_folder_name_the_file(file: Path, tmp_path: Path) -> None:
    for name in (file, file.parent, file.parent.parent):
        found = read_prompts(str(name))
        assert isinstance(found, LearnedPrompts)
        assert found.source == file
    assert read_prompts("sample-faces", "cat") == read_prompt_set("sample-faces", "cat")
    with pytest.raises(UsageError, match="--noun does not go with learned prompts"):
        read_prompts(str(file), "face")
    (tmp_path / "fixed").mkdir()
    with pytest.raises(LanitError, match="is a folder"):
        read_prompts(str(tmp_path / "fixed"))
    (tmp_path / "fixed" / "config.json").write_text("{}")
    with pytest.raises(LanitError, match="has no learned prompts"):
        read_prompts(str(tmp_path / "fixed"))


def test_damaged_and_other_files_are_refused_in_one_line(file: Path, tmp_path: Path, tiny_clip_folder: Path) -> None:
    whole = file.read_bytes()
    first = len(whole) - learned_size(whole)
    flipped = bytearray(whole)
    flipped[first + 5] ^= 1
    renamed = whole.replace(b"blue noise", b"blue house")
    for content in (b"", whole[:7], whole[: len(whole) // 2], whole[:-1], bytes(flipped), renamed, b"\xff" * 100):
        path = tmp_path / "damaged.safetensors"
        path.write_bytes(content)
        with pytest.raises(LanitError, match=r"learned prompts '.*damaged.safetensors' are damaged") as caught:
            read_prompts(str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(LanitError, match="is no file of learned prompts"):
        read_prompts(str(tiny_clip_folder / "open_clip_model.safetensors"))
    with pytest.raises(LanitError, match="there is no file of learned prompts"):
        read_prompts(str(tmp_path / "none.safetensors"))
    later = tmp_path / "later.safetensors"
    unsealed = whole.replace(b'\\"seal\\"', b'\\"note\\"').replace(b"sha256:", b"of-9999")  # as a later one may be
    later.write_bytes(unsealed.replace(b'\\"version\\": 1', b'\\"version\\": 9'))
    with pytest.raises(LanitError, match="version 9 of learned prompts; this lanit reads 1"):
        read_prompts(str(later))


def learned_size(content: bytes) -> int:
    """Bytes of the only tensor of a safetensors file: what its header does not take."""
    return len(content) - 8 - int.from_bytes(content[:8], "little")


def test_another_clip_is_refused_another_precision_is_not(
    store: Store, tiny_clip: Any, make_clip: Callable[..., Path], file: Path, tmp_path: Path
) -> None:
    found = read_learned_prompts(file)
    found.check_model(dataclasses.replace(tiny_clip.fingerprint, precision="bf16"))
    other = tmp_path / "other.safetensors"
    stranger = load_clip(str(make_clip(1)))
    other.write_bytes(learned_prompts_bytes(PROMPTS, learned_context(stranger), stranger.fingerprint))
    with pytest.raises(LanitError, match=r"were learned with .* not with .*: weights_sha256 differ"):
        label_source(store, LabelRequest(prompts=str(other)))
    wide = with_context(PROMPTS, torch.zeros(3, 4, 17))
    with pytest.raises(LanitError, match=r"the learned prompts are \(3, 4, 17\)"):
        label(store, tiny_clip, wide, Rule())
    opaque = dataclasses.replace(tiny_clip, make_text=lambda model, _: OpaqueText(model, "test"))
    with pytest.raises(LanitError, match="cannot be used with the text tower"):
        label(store, opaque, found.prompts, Rule())
    assert store.revisions() == []


def test_words_are_compared_as_the_learned_prompts_read_them(store: Store, tiny_clip: Any) -> None:
    learned = with_context(PROMPTS, learned_context(tiny_clip))
    embedded = embed_prompts(tiny_clip, learned)
    difference = (embedded.domains - embedded.base).numpy()
    np.testing.assert_allclose(directions_of(tiny_clip, learned, PROMPTS.domains), difference, atol=1e-6)
    plain = cached_directions(store, tiny_clip, PROMPTS, PROMPTS.domains)
    kept = cached_directions(store, tiny_clip, learned, PROMPTS.domains)
    assert np.abs(plain - kept).max() > 1e-3, "the cache tells them apart"
    one = learned.first_template()
    embedded = embed_prompts(tiny_clip, one)
    learner = PromptLearner(tiny_clip.text, PROMPTS.domains, PROMPTS.templates[:1], PROMPTS.bases[:1])
    expected, expected_base = learner.text_features(learned_context(tiny_clip)[:1, : learner.context.shape[1]])
    torch.testing.assert_close(embedded.domains, expected.detach())
    torch.testing.assert_close(embedded.base, expected_base.detach())


def test_templates_that_begin_with_the_phrase_have_nothing_to_learn(tiny_clip: Any, tmp_path: Path) -> None:
    prompts = PromptSet(("red",), ("{} image",), ("image",), "bare")
    path = tmp_path / "prompts.safetensors"
    path.write_bytes(learned_prompts_bytes(prompts, learned_context(tiny_clip, prompts), tiny_clip.fingerprint))
    found = read_learned_prompts(path).prompts
    assert found.learned == LearnedContext((1, 0, 16), b"")
    assert PromptSet.from_json(found.to_json()) == found
    ours, plain = embed_prompts(tiny_clip, found), embed_prompts(tiny_clip, prompts)
    torch.testing.assert_close((ours.domains, ours.base), (plain.domains, plain.base))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(each) for each in arguments])


def test_the_command_takes_a_run_and_shows_the_nearest_words(
    store: Store, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("label", "--prompts", "run", "--store", "store")
    assert done.exit_code == 0, done.output
    assert "Prompts as learned" in done.stdout
    assert "a photo of {}." in done.stdout
    report = json.loads(run("label", "--prompts", "run", "--store", "store", "--json").stdout)
    assert [word["initial"] for word in report["learned"]] == ["a", "photo", "of", "the"]
    assert (report["revision"], report["created"]) == (1, False)
    file.write_bytes(file.read_bytes()[:-3])
    refused = run("label", "--prompts", file, "--store", "store")
    assert refused.exit_code == 1
    assert len(refused.stderr.strip().splitlines()) == 1
