"""Rules side by side: from margins alone, what labelling anew by each rule would give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics

import pipeline.store.label_revisions
from benchmarks.naive_step import plain_prompts
from lanit.errors import UsageError
from lanit.labels import Rule, assign
from pipeline.inspection.rules_table import compare_rules, parse_rules
from pipeline.labelling.known_labels import Truth
from pipeline.store.label_revisions import LabelRevision

RULES = parse_rules("adaptive, top-2,fixed=0.05,argmax")
Make = Callable[..., LabelRevision]


def test_rules_are_read_as_they_are_written() -> None:
    assert list(RULES) == [Rule(), Rule("top-k", 2), Rule("fixed", 0.05), Rule("argmax")]
    assert parse_rules("fixed=-0.5") == (Rule("fixed", -0.5),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "best",
        "top-",
        "top-x",
        "top-1.5",
        "top-0",
        "fixed=2",
        "fixed",
        "fixed=",
        "given",
        "clusters=3",
        "top-inf",
        "fixed=nan",
    ],
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rules(text)
    assert caught.value.hint


@pytest.mark.parametrize(("offsets", "weights"), [((), ()), ((0.1, 0.0, -0.2), (1.0, 3.0, 0.5))])
def test_each_rule_is_that_of_labelling_anew(
    offsets: tuple[float, ...], weights: tuple[float, ...], make_revision: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.store.label_revisions, "BLOCK_ROWS", 33)
    random = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(104, 8, generator=random))
    images, domains, base = unit[:100], unit[100:103], unit[103]
    _, margin, similarity_base = assign(Rule(), images, plain_prompts(domains, base))
    human = np.ones((100, 3), bool)  # people's labels take no part
    revision = make_revision(
        margin.numpy(), human.copy(), base=similarity_base.numpy(), human=human, offsets=offsets, weights=weights
    )
    actual = np.random.default_rng(0).random((80, 3)) < 0.4
    truth = Truth("path", tuple(revision.paths[:80]), ("eyeglasses", "smiling", "blond hair"), actual)
    given = zip(("offsets", "weights"), (offsets, weights), strict=True)
    prompts = replace(plain_prompts(domains, base), **{name: torch.tensor(values) for name, values in given if values})
    outcomes = compare_rules(revision, RULES, truth)
    for rule, outcome in zip(RULES, outcomes, strict=True):
        active = assign(rule, images, prompts)[0].numpy()
        assert outcome.counts == tuple(active.sum(axis=0))
        assert outcome.coverage == pytest.approx(active.any(axis=1).mean())
        assert outcome.labels_per_image == pytest.approx(active.sum() / 100)
        expected = metrics.f1_score(actual[:, ::-1], active[:80], average=None, zero_division=0)
        assert outcome.f1 == pytest.approx(expected, abs=1e-6)
        for average, ours in (("macro", outcome.macro_f1), ("micro", outcome.micro_f1)):
            reference = metrics.f1_score(actual[:, ::-1], active[:80], average=average, zero_division=0)
            assert ours == pytest.approx(reference, abs=1e-6)


def test_without_truth_there_are_no_scores_and_a_domain_without_truth_has_none(make_revision: Make) -> None:
    revision = make_revision(np.random.default_rng(0).normal(size=(10, 3)))
    (plain,) = compare_rules(revision, (Rule(),))
    assert (plain.f1, plain.macro_f1, plain.micro_f1) == (None, None, None)
    truth = Truth("path", ("folder/1.png", "folder/2.png"), ("smiling",), np.array([[True], [False]]))
    (scored,) = compare_rules(revision, (Rule(),), truth)
    assert scored.f1 is not None
    assert [value is None for value in scored.f1] == [True, False, True]
    assert scored.macro_f1 == scored.f1[1]
