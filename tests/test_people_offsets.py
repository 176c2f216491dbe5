"""Offsets of phrases fitted to what people said: found, measured on other answers, and taken only where they help."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from lanit.errors import UsageError
from lanit.rules import Rule
from pipeline.labelling.people import Answer, add_answers
from pipeline.labelling.people_offsets import LEAST_ANSWERS, refit, refit_offsets, with_refitted
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import Store
from tests.label_builders import add_labels
from tests.store_builders import store_of_embeddings

PROMPTS = PromptSet(("smiling", "hat", "bald"), ("a {}.",), ("a.",), "made up", offsets=(0.0, 0.02, 0.0))


def answered(count: int, bar: float, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Margins, float32, and answers that begin at a bar, as people of some noise give them."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(0, 0.02, count).astype(np.float32)
    return margins, margins + rng.normal(0, noise, count) > bar


def test_the_offset_is_the_best_of_all_cuts_between_two_answers() -> None:
    margins, yes = answered(83, 0.012, 0.005)
    found = refit("smiling", margins, yes, 0.0)
    assert found.fit is not None
    cuts = np.unique(margins)
    scores = [f1_score(yes, margins > (a + b) / 2) for a, b in itertools.pairwise(cuts)]
    assert f1_score(yes, margins > found.fit.offset) == pytest.approx(max(scores))
    assert found.fit.f1_before == pytest.approx(f1_score(yes, margins > 0))
    assert found.fit.f1_after <= max(scores), "measured on answers that were left out"
    assert found.fit.low <= found.fit.offset <= found.fit.high
    assert found.fit.taken
    assert found.offset == found.fit.offset
    assert refit("smiling", margins, yes, 0.0) == found


def test_more_answers_leave_less_doubt() -> None:
    widths, gains = [], []
    for count in (60, 600, 6000):
        fit = refit("smiling", *answered(count, 0.012, 0.005), 0.0).fit
        assert fit is not None
        widths.append(fit.high - fit.low)
        gains.append(fit.gain_high - fit.gain_low)
    assert widths[0] > widths[1] > widths[2]
    assert gains[0] > gains[1] > gains[2]


def test_an_offset_that_is_right_stays_though_another_fits_these_answers_better() -> None:
    taken = [refit("smiling", *answered(100, 0.0, 0.01, seed), 0.0) for seed in range(40)]
    fitted = [each.fit for each in taken if each.fit is not None]
    assert len(fitted) == 40
    assert sum(fit.offset != 0 for fit in fitted) > 30
    assert sum(fit.taken for fit in fitted) <= 4


@pytest.mark.parametrize("yes", [0, LEAST_ANSWERS - 1])
def test_few_answers_of_a_kind_fit_nothing(yes: int) -> None:
    margins, _ = answered(50, 0, 0)
    for few in (np.arange(50) < yes, np.arange(50) >= yes):
        found = refit("smiling", margins, few, 0.01)
        assert found.fit is None
        assert found.offset == 0.01
        assert "5 answers of yes" in found.text


def test_answers_to_wrong_labels_alone_fit_nothing() -> None:
    margins, yes = answered(400, 0.0, 0.03)
    wrong = yes != (margins > 0)
    found = refit("smiling", margins[wrong], yes[wrong], 0.0)
    assert found.fit is None
    assert "labels that are right" in found.text


def test_answers_on_the_bar_itself_and_equal_margins_are_no_trouble() -> None:
    margins = np.repeat(np.float32([0.0, 0.01, 0.02]), 20)
    found = refit("smiling", margins, margins > 0.015, 0.0)
    assert found.fit is not None
    assert found.fit.offset == pytest.approx(0.015)
    assert refit("smiling", np.zeros(30, np.float32), np.arange(30) < 15, 0.0).fit is None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    vectors = np.random.default_rng(1).normal(size=(300, 8)).astype(np.float32)
    store = store_of_embeddings(tmp_path, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    margins = np.random.default_rng(2).normal(0, 0.02, (300, 3))
    add_labels(store, margins > PROMPTS.offsets, margins, prompts=PROMPTS)
    return store


def test_answers_that_the_store_keeps_fit_the_offsets_of_a_revision(store: Store) -> None:
    revision, ids = store.revision_file(), store.ok_images()["image_id"].to_pylist()
    margins = store.labels().margin
    rows = np.random.default_rng(3).permutation(300)[:120]
    add_answers(store, [Answer("Smiling", bool(margins[row, 0] > 0.013), ids[row]) for row in rows])
    add_answers(store, [Answer("hat", bool(margins[row, 1] > 0.02), ids[row]) for row in rows[:60]])
    smiling, hat = refit_offsets(store, revision)
    assert (smiling.domain, hat.domain) == ("smiling", "hat")
    assert (smiling.answers, hat.answers) == (120, 60)
    assert smiling.fit is not None
    assert smiling.fit.taken
    assert smiling.fit == refit("smiling", margins[np.sort(rows), 0], margins[np.sort(rows), 0] > 0.013, 0.0).fit
    assert hat.fit is not None
    assert not hat.fit.taken
    assert with_refitted(PROMPTS, [smiling, hat]).offsets == (smiling.fit.offset, 0.02, 0.0)


def test_offsets_under_rules_in_which_phrases_compete_are_refused(store: Store) -> None:
    margins = store.labels().margin
    number = add_labels(store, margins > 0, margins, prompts=PROMPTS, rule=Rule("argmax"))
    with pytest.raises(UsageError, match="adaptive rule, not under arg-max"):
        refit_offsets(store, store.revision_file(number))
