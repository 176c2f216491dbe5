"""Stage label: labels are a pure function of stored embeddings, prompts and rule; revisions stand side by side."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

import pipeline.labelling.label_decisions
from lanit.errors import LanitError
from lanit.labels import Rule
from pipeline.clip.models import load_clip
from pipeline.clip.text_towers import OpaqueText
from pipeline.embedding.embed import embed
from pipeline.inspection.label_report import label_and_report
from pipeline.labelling.known_labels import Truth
from pipeline.labelling.label import HowToLabel, label, relabel
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import Store

PROMPTS = PromptSet(
    ("red", "a large green", "blue noise"),
    ("a photo of {}.", "{} in a picture", "the {} image."),
    ("a photo.", "in a picture", "the image."),
    "colours",
)


@pytest.fixture
def store(make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path) -> Store:
    """Eleven images, one of them broken."""
    folder = make_images(10)
    (folder / "broken.png").write_bytes(b"no picture")
    embed([folder], tmp_path / "store", tiny_clip)
    return Store.open(tmp_path / "store")


def _by_hand(clip_folder: Path, prompts: PromptSet, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Similarities (n×N) and to the base (n), by open_clip's own text path and NumPy."""
    model = open_clip.create_model(f"local-dir:{clip_folder}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip_folder}")
    rows = []
    for sentences in [[t.replace("{}", d) for t in prompts.templates] for d in prompts.domains] + [[*prompts.bases]]:
        with torch.no_grad():
            mean = model.encode_text(tokenizer(sentences)).double().numpy().mean(axis=0)
        rows.append(mean / np.linalg.norm(mean))
    similarities = embeddings.astype(np.float64) @ np.array(rows).T
    return similarities[:, :-1], similarities[:, -1]


def test_every_rule_against_open_clip_and_numpy(store: Store, tiny_clip: Any, tiny_clip_folder: Path) -> None:
    similarities, base = _by_hand(tiny_clip_folder, PROMPTS, store.embeddings())
    middle = round(float(np.median(similarities)), 5)
    expected = {
        Rule(): similarities > base[:, None],
        Rule("fixed", middle): similarities > middle,
        Rule("top-k", 2): similarities >= np.sort(similarities, axis=1)[:, -2:-1],
        Rule("argmax"): similarities >= similarities.max(axis=1, keepdims=True),
    }
    for rule, active in expected.items():
        report = label(store, tiny_clip, PROMPTS, rule)
        revision = store.labels(report.revision)
        clear = np.abs(similarities - (base[:, None] if rule.kind == "adaptive" else middle)) > 1e-5
        assert (revision.active == active)[clear].all(), rule
        np.testing.assert_allclose(revision.margin, similarities - base[:, None], atol=1e-5)
        np.testing.assert_allclose(revision.similarity_base, base, atol=1e-5)
        assert revision.rule == rule
    assert store.revisions() == [1, 2, 3, 4]


def test_counts_add_up_and_statistics_are_the_revisions_own(store: Store, tiny_clip: Any) -> None:
    report = label_and_report(store, tiny_clip, PROMPTS, Rule())
    assert report.images == 11 == report.labelled + report.unlabelled + report.failed
    assert report.failed == 1
    assert report.statistics.images == 10
    assert report.statistics.coverage == pytest.approx(report.labelled / 10)
    assert [d.count for d in report.statistics.domains] == store.labels().active.sum(axis=0).tolist()
    json.dumps(report.to_json(), allow_nan=False)


def test_no_image_is_opened_and_blocks_do_not_matter(
    store: Store, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = store.labels(label(store, tiny_clip, PROMPTS, Rule()).revision)
    shutil.rmtree(tmp_path / "images")
    monkeypatch.setattr(pipeline.labelling.label_decisions, "_ROWS", 3)
    calls: list[tuple[int, int]] = []
    prompts = dataclasses.replace(PROMPTS, name="another name, so another revision")
    report = label(store, tiny_clip, prompts, Rule(), lambda done, total: calls.append((done, total)))
    in_blocks = store.labels(report.revision)
    assert report.created
    np.testing.assert_array_equal(in_blocks.active, whole.active)
    np.testing.assert_allclose(in_blocks.margin, whole.margin, atol=1e-6)
    assert calls[-1] == (10, 10)
    assert len(calls) == 4


def test_labelling_leaves_the_threads_of_torch_as_they_were(store: Store, tiny_clip: Any) -> None:
    usual = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        label(store, tiny_clip, PROMPTS, Rule())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)


def test_the_same_again_writes_nothing_and_old_revisions_never_change(store: Store, tiny_clip: Any) -> None:
    first = label(store, tiny_clip, PROMPTS, Rule())
    path = store.root / "labels" / "r0001.parquet"
    content = path.read_bytes()
    again = label(store, tiny_clip, PROMPTS, Rule())
    assert (first.revision, first.created) == (1, True)
    assert (again.revision, again.created) == (1, False)
    other = label(store, tiny_clip, PROMPTS, Rule("top-k", 1))
    assert (other.revision, other.created) == (2, True)
    assert path.read_bytes() == content


def test_a_tower_that_reads_only_whole_sentences_gives_the_same(tiny_clip: Any) -> None:
    ours = embed_prompts(tiny_clip, PROMPTS)
    opaque = dataclasses.replace(tiny_clip, make_text=lambda model, _: OpaqueText(model, "test"))
    theirs = embed_prompts(opaque, PROMPTS)
    for a, b in ((ours.domains, theirs.domains), (ours.base, theirs.base)):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_offsets_raise_the_bar_of_their_prompt(store: Store, tiny_clip: Any, tiny_clip_folder: Path) -> None:
    similarities, base = _by_hand(tiny_clip_folder, PROMPTS, store.embeddings())
    margin = similarities - base[:, None]
    offsets = tuple(float(value) for value in np.median(margin, axis=0))
    report = label(store, tiny_clip, dataclasses.replace(PROMPTS, offsets=offsets), Rule())
    revision = store.labels(report.revision)
    clear = np.abs(margin - offsets) > 1e-5
    assert (revision.active == (margin > np.array(offsets)))[clear].all()
    np.testing.assert_allclose(revision.margin, margin, atol=1e-5)
    assert revision.prompt_set.offsets == offsets


def _given(store: Store) -> Truth:
    """What a person says of three images: of one everything, of two one phrase each; and of an image elsewhere."""
    paths = store.ok_images()["path"].to_pylist()
    labels = np.array([[True, False, True], [True] * 3, [False] * 3, [True] * 3])
    known = np.array([[True] * 3, [False, True, False], [True, False, False], [True] * 3])
    return Truth("path", (paths[4], paths[0], paths[9], "elsewhere.png"), PROMPTS.domains, labels, known)


def test_labels_by_people_win_and_are_marked(store: Store, tiny_clip: Any) -> None:
    plain = store.labels(label(store, tiny_clip, PROMPTS, Rule()).revision)
    report = label_and_report(store, tiny_clip, PROMPTS, HowToLabel(answers=_given(store)))
    merged = store.labels(report.revision)
    assert (report.human, report.not_in_store, report.created) == (5, 1, True)
    assert merged.human is not None
    expected, marks = plain.active.copy(), np.zeros((10, 3), bool)
    expected[4], marks[4] = (True, False, True), True
    expected[0, 1], marks[0, 1] = True, True
    expected[9, 0], marks[9, 0] = False, True
    np.testing.assert_array_equal(merged.active, expected)
    np.testing.assert_array_equal(merged.human, marks)
    np.testing.assert_array_equal(merged.margin, plain.margin)
    assert [d.human for d in report.statistics.domains] == [2, 2, 1]
    assert not label(store, tiny_clip, PROMPTS, HowToLabel(answers=_given(store))).created
    assert not label(store, tiny_clip, PROMPTS, Rule()).created, "what people said stays"


def test_given_labels_alone_leave_the_rest_without_one(store: Store, tiny_clip: Any) -> None:
    report = label_and_report(store, tiny_clip, PROMPTS, HowToLabel(Rule("given"), given=_given(store)))
    revision = store.labels(report.revision)
    assert revision.active.sum() == 3
    assert report.labelled == 2
    assert revision.rule == Rule("given")


def test_relabelling_keeps_rule_offsets_and_what_people_said(store: Store, tiny_clip: Any) -> None:
    prompts = dataclasses.replace(PROMPTS, offsets=(0.01, 0.0, -0.01))
    before = store.labels(
        label(store, tiny_clip, prompts, HowToLabel(Rule("top-k", 2), answers=_given(store))).revision
    )
    embedded = embed_prompts(tiny_clip, prompts)
    noise = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    learned = embedded.moved(torch.nn.functional.normalize(embedded.domains + noise), embedded.base)
    number = relabel(store, before, learned, "train:run step 3")
    after = store.labels(number)
    assert (after.origin, after.parent, after.rule) == ("train:run step 3", before.number, before.rule)
    assert after.prompt_set == prompts
    margin = store.embeddings() @ (learned.domains - learned.base).numpy().T - np.array(prompts.offsets)
    expected = margin >= np.sort(margin, axis=1)[:, -2:-1]
    assert before.human is not None
    expected[before.human] = before.active[before.human]
    np.testing.assert_array_equal(after.active, expected)
    np.testing.assert_array_equal(after.human, before.human)
    assert (after.active != before.active).any()
    assert relabel(store, before, learned, "train:run step 3") == number, "a resumed run finds its own revision"
    assert relabel(store, before, learned, "train:run step 4") == number + 1


def test_a_dry_run_reports_the_same_and_writes_nothing(store: Store, tiny_clip: Any) -> None:
    label(store, tiny_clip, PROMPTS, Rule())
    files = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    other = dataclasses.replace(PROMPTS, domains=("red", "A LARGE green", "violet"))
    dry = label_and_report(store, tiny_clip, other, Rule("top-k", 1), dry_run=True)
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == files
    assert (dry.revision, dry.created, dry.dry_run) == (0, False, True)
    before = store.labels(1)
    real = label_and_report(store, tiny_clip, other, Rule("top-k", 1))
    after = store.labels(real.revision)
    assert dataclasses.replace(dry.statistics, revision=2) == real.statistics
    assert dry.comparison is not None
    assert (dry.comparison.before, dry.comparison.after, dry.comparison.images) == (1, 0, 10)
    assert [d.domain for d in dry.comparison.domains] == ["red", "A LARGE green"]
    assert (dry.comparison.added, dry.comparison.removed) == (("violet",), ("blue noise",))
    for n, flips in enumerate(dry.comparison.domains):
        assert flips.on == (after.active[:, n] & ~before.active[:, n]).sum()
        assert flips.off == (before.active[:, n] & ~after.active[:, n]).sum()
    json.dumps(dry.to_json(), allow_nan=False)


def test_a_dry_run_needs_no_earlier_labels(store: Store, tiny_clip: Any) -> None:
    report = label_and_report(store, tiny_clip, PROMPTS, Rule(), dry_run=True)
    assert report.comparison is None
    assert store.revisions() == []


def test_words_the_model_never_saw_are_named(tiny_clip_folder: Path, store: Store, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_clip_folder, tmp_path / "clip")
    words = ["a", "photo", "of", "in", "picture", "the", "image", "red", "large", "green", "blue"]
    (folder / "vocabulary.json").write_text(json.dumps(words))
    report = label(store, load_clip(str(folder)), PROMPTS, Rule())
    assert report.unknown_words == ("noise",)


def test_refusals_leave_the_store_as_it_was(store: Store, tiny_clip: Any, make_clip: Callable[..., Path]) -> None:
    with pytest.raises(LanitError, match="not of"):
        label(store, load_clip(str(make_clip(1))), PROMPTS, Rule())
    long = dataclasses.replace(PROMPTS, domains=("red", "a phrase " + "much too long " * 10))
    with pytest.raises(LanitError, match="a phrase much too long"):
        label(store, tiny_clip, long, Rule())
    assert store.revisions() == []
