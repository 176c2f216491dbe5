"""Statistics of a label revision, by counting."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline.store.label_revisions
from lanit.errors import UsageError
from lanit.rules import Rule
from pipeline.inspection.inspect_labels import InspectOptions, inspect_labels, inspect_store
from pipeline.inspection.label_statistics import LabelStatistics, NearSynonyms
from pipeline.inspection.statistics import MOST_PAIRS, MOST_TOGETHER
from pipeline.store.label_revisions import LabelRevision
from pipeline.store.store import Store
from tests.label_builders import add_labels

Make = Callable[..., LabelRevision]


def test_statistics_by_counting(make_revision: Make) -> None:
    margin = np.array([[0.2, -0.1, -0.3], [0.1, 0.4, -0.3], [-0.02, -0.2, -0.3], [0.3, 0.01, -0.3]])
    statistics = inspect_labels(make_revision(margin), epsilon=0.05)
    first, second, third = statistics.domains
    assert (first.count, first.share, first.ambiguous_share) == (3, 0.75, 0.25)
    assert first.mean_margin == pytest.approx(0.145)
    assert first.mean_margin_labelled == pytest.approx(0.2)
    assert (second.count, second.ambiguous_share) == (2, 0.25)
    assert (third.count, third.mean_margin_labelled, third.only_share, third.companion) == (0, None, None, None)
    assert (first.only_count, second.only_count) == (1, 0)
    assert first.only_share == pytest.approx(1 / 3)
    assert (statistics.coverage, statistics.slack_share, statistics.labels_per_image) == (0.75, 0.25, 1.25)
    assert statistics.label_counts == (1, 1, 2)
    assert sum(statistics.label_counts) == statistics.images == 4
    assert statistics.cooccurrence == ((3, 2, 0), (2, 2, 0), (0, 0, 0))
    assert (statistics.smallest, statistics.smallest_count) == ("eyeglasses", 0)
    assert sum(first.histogram) == 4
    assert json.loads(json.dumps(statistics.to_json(), allow_nan=False))["epsilon"] == 0.05


@pytest.mark.parametrize(("count", "domains", "seed"), [(5, 1, 0), (203, 4, 1), (1000, 6, 2)])
def test_pairs_by_definition(count: int, domains: int, seed: int, make_revision: Make) -> None:
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=(count, domains)) + rng.normal(size=(count, 1))
    if domains > 3:
        margin[:, 1] = margin[:, 0] + rng.normal(0, 0.01, count)  # nearly the same words
        margin[:, 3] = 1  # always
    names = tuple(f"domain {n}" for n in range(domains))
    revision = make_revision(margin, domains=names)
    statistics = inspect_labels(revision)
    active = revision.active
    with np.errstate(invalid="ignore", divide="ignore"):
        phi = np.nan_to_num(np.corrcoef(active.T.astype(float)).reshape(domains, domains))
    for n, d in enumerate(statistics.domains):
        assert d.only_count == sum(row[n] and row.sum() == 1 for row in active)
        others = [m for m in range(domains) if m != n and phi[n, m] > 1e-12]
        assert (d.companion is None) == (not others)
        if d.companion is not None:
            best = max(others, key=lambda m, n=n: phi[n, m])
            together = (active[:, n] & active[:, best]).sum()
            assert d.companion.domain == names[best]
            assert d.companion.phi == pytest.approx(phi[n, best])
            assert d.companion.share == pytest.approx(together / active[:, n].sum())
            assert d.companion.lift == pytest.approx(together * count / active[:, n].sum() / active[:, best].sum())
    expected = {(names[a], names[b]) for a in range(domains) for b in range(a + 1, domains) if phi[a, b] >= 0.8}
    assert {(pair.first, pair.second) for pair in statistics.near_synonyms} == expected
    if domains > 3:
        assert NearSynonyms(names[0], names[1], pytest.approx(phi[0, 1])) in statistics.near_synonyms


def test_blocks_and_files_make_no_difference(
    make_store: Callable[..., Store], make_revision: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(60, 4)).astype(np.float32)
    store = make_store(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), part_rows=17)
    margin = rng.normal(size=(60, 3)).astype(np.float32)
    memory = make_revision(margin, number=1)
    whole = inspect_labels(memory)
    monkeypatch.setattr(pipeline.store.label_revisions, "BLOCK_ROWS", 13)
    add_labels(store, memory.active, margin, prompts=memory.prompt_set)
    stored = inspect_labels(store.revision_file())
    assert flat(stored.to_json()) == {key: pytest.approx(value) for key, value in flat(whole.to_json()).items()}


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Every number and text of a nested report, by where it stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if inner is None:
        return {name: value}
    return {key: leaf for own, part in inner for key, leaf in flat(part, f"{name}/{own}").items()}


def test_default_epsilon_follows_the_spread_of_margins(make_revision: Make) -> None:
    margin = np.random.default_rng(0).normal(size=(500, 3))
    small, large = (inspect_labels(make_revision(margin * scale)) for scale in (0.01, 1))
    assert large.epsilon == pytest.approx(0.1 * margin.std(), rel=1e-5)
    for ours, theirs in zip(small.domains, large.domains, strict=True):
        assert ours.ambiguous_share == pytest.approx(theirs.ambiguous_share, abs=0.005)
        assert 0.04 < theirs.ambiguous_share < 0.13
    with pytest.raises(UsageError):
        inspect_labels(make_revision(margin), epsilon=-1.0)


def test_offsets_weights_and_people_are_shown(make_revision: Make) -> None:
    margin = np.array([[0.2, 0.1, 0.0], [0.3, -0.2, 0.0]])
    human = np.array([[True, False, False], [True, True, False]])
    revision = make_revision(margin, margin > 0.25, offsets=(0.25, 0, 0), weights=(1, 2, 1), human=human)
    statistics = inspect_labels(revision, epsilon=0.07)
    assert [d.offset for d in statistics.domains] == [0.25, 0, 0]
    assert [d.weight for d in statistics.domains] == [1, 2, 1]
    assert [d.human for d in statistics.domains] == [2, 1, 0]
    assert statistics.human == 3
    assert statistics.domains[0].ambiguous_share == 1, "a margin is ambiguous where it lies close to its offset"


# ---------------------------------------------------------------- warnings


def warned(statistics: LabelStatistics, *words: str) -> bool:
    return any(all(word in warning for word in words) for warning in statistics.warnings)


def test_warnings_name_the_prompt_and_the_next_thing_to_try(make_revision: Make) -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(size=(1000, 3)) - np.array([0.0, -2.5, 9.0])
    statistics = inspect_labels(make_revision(margin))
    never, always = statistics.domains[2], statistics.domains[1]
    assert warned(statistics, "'eyeglasses' labels no image", f"eyeglasses | offset={never.margin_p95:.3g}")
    assert warned(statistics, f"'smiling' labels {100 * always.share:.1f} %", "noun", "smiling | offset=")
    assert not warned(statistics, "'blond hair'")
    better = make_revision(margin, offsets=(0, always.margin_p50, never.margin_p95))
    moved = make_revision(margin, margin > np.array(better.prompt_set.offsets), offsets=better.prompt_set.offsets)
    again = inspect_labels(moved)
    assert not warned(again, "labels no image")
    assert not warned(again, "tells none of them")


def test_low_coverage_few_images_and_synonyms_are_warned_of(make_revision: Make) -> None:
    active = np.zeros((1000, 3), bool)
    active[:300, 0] = True
    active[:290, 1] = True
    active[:99, 2] = True
    statistics = inspect_labels(make_revision(active - 0.5))
    assert warned(statistics, "only 30.0 % of the images have a label", "suggest-prompts")
    assert warned(statistics, "below 100: 'eyeglasses' (99)")
    assert warned(statistics, "'blond hair' and 'smiling' label the same images", "keep one")
    active[:100, 2] = active[300:900, 0] = True
    fewer = inspect_labels(make_revision(active - 0.5))
    assert not warned(fewer, "have a label")
    assert not warned(fewer, "below 100")
    assert not warned(fewer, "label the same")


def test_words_that_do_not_separate_and_weights_that_do_nothing_are_warned_of(make_revision: Make) -> None:
    margin = np.random.default_rng(0).normal(size=(500, 3)) * np.array([1, 1, 0.01])
    statistics = inspect_labels(make_revision(margin, weights=(1, 2, 1)))
    assert warned(statistics, "'eyeglasses' is unsure on 100.0 %")
    assert warned(statistics, "the weight of 'smiling' changes no label", "top-2")
    ranked = inspect_labels(make_revision(margin, weights=(1, 2, 1), rule=Rule("top-k", 1)))
    assert not warned(ranked, "weight")


# ---------------------------------------------------------------- the stage


def labelled(make_store: Callable[..., Store], make_revision: Make, count: int = 50) -> Store:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(count, 4)).astype(np.float32)
    paths = [
        f"{'train' if row % 2 else 'test'}/{'smiling' if row % 3 else 'hat'}/{row:03d}.png" for row in range(count)
    ]
    store = make_store(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), paths=paths)
    for offset in (0.0, 0.5):
        margin = rng.normal(size=(count, 3)).astype(np.float32)
        revision = make_revision(margin, margin > offset, offsets=(offset,) * 3)
        add_labels(store, revision.active, margin, prompts=revision.prompt_set)
    return store


def test_one_call_gives_what_the_options_ask_for(make_store: Callable[..., Store], make_revision: Make) -> None:
    store = labelled(make_store, make_revision)
    plain = inspect_store(store, InspectOptions())
    assert plain.statistics == inspect_labels(store.labels())
    assert (plain.rules, plain.comparison, plain.truth) == ((), None, None)
    full = inspect_store(store, InspectOptions(truth="folders", rules="adaptive,top-1", compare=(1, 2)))
    assert full.statistics.revision == 2
    assert full.statistics.scores is not None
    assert [d.domain for d in full.statistics.scores.domains] == ["smiling"]
    assert [outcome.name for outcome in full.rules] == ["adaptive", "top-1"]
    assert full.comparison is not None
    assert (full.comparison.before, full.comparison.after) == (1, 2)
    json.dumps(full.to_json(), allow_nan=False)
    with pytest.raises(UsageError, match="names the revisions itself"):
        inspect_store(store, InspectOptions(revision=1, compare=(1, 2)))


def test_the_plain_report_imports_neither_torch_nor_clip(make_store: Callable[..., Store], make_revision: Make) -> None:
    store = labelled(make_store, make_revision)
    code = (
        "import sys, cli; sys.argv = ['lanit', 'inspect-labels', '--json', '--store', sys.argv[1]]\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'open_clip', 'faiss', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.root)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 50


def test_near_synonyms_are_grouped_with_the_first_that_they_are_like(make_revision: Make) -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(size=(400, 6))
    for copy, of in ((2, 0), (3, 0), (5, 4)):
        margin[:, copy] = margin[:, of] + rng.normal(0, 0.01, 400)
    names = tuple("abcdef")
    statistics = inspect_labels(make_revision(margin, domains=names))
    assert {group.prompts for group in statistics.alike} == {("a", "c", "d"), ("e", "f")}
    phi = np.corrcoef((margin > 0).T.astype(float))
    assert {group.prompts: group.phi for group in statistics.alike}["a", "c", "d"] == pytest.approx(phi[0, 2:4].min())
    assert warned(statistics, "'a', 'c', 'd' label the same images")
    assert warned(statistics, "'e' and 'f' label the same images")


def test_what_grows_with_the_square_of_the_phrases_is_bounded(make_revision: Make) -> None:
    count = MOST_TOGETHER + 7
    rng = np.random.default_rng(1)
    margin = np.repeat(rng.normal(size=(90, 1)), count, axis=1) + rng.normal(0, 0.01, (90, count))
    margin[:, 5:12] = -1  # seven that label nothing
    names = tuple(f"phrase {n}" for n in range(count))
    statistics = inspect_labels(make_revision(margin, domains=names))
    together = (margin > 0).astype(int)
    kept = [n for n in range(count) if not 5 <= n < 12]
    assert statistics.cooccurrence_of == tuple(kept)
    assert np.array_equal(statistics.cooccurrence, (together.T @ together)[np.ix_(kept, kept)])
    phi = np.corrcoef(together[:, kept].T)
    assert statistics.near_synonym_pairs == (np.tril(phi, -1) >= 0.8).sum()
    assert len(statistics.near_synonyms) == MOST_PAIRS
    assert statistics.near_synonyms[-1].phi == pytest.approx(np.sort(phi[np.tril_indices_from(phi, -1)])[-MOST_PAIRS])
    assert len(statistics.warnings) < 40


def test_labels_by_people_are_counted_against_the_rule(make_revision: Make) -> None:
    margin = np.array([[0.2, 0.1, -0.1], [0.3, -0.2, 0.1], [-0.1, -0.2, 0.3]])
    human = np.array([[True, False, False], [True, True, False], [False, True, False]])
    active = margin > 0
    active[0, 0], active[2, 1] = False, True  # against the rule; the others say the same
    statistics = inspect_labels(make_revision(margin, active, human=human))
    assert (statistics.human, statistics.human_differ) == (4, 2)
    assert [d.human_differ for d in statistics.domains] == [1, 1, 0]
    given = inspect_labels(make_revision(margin, active, human=human, rule=Rule("given")))
    assert (given.human, given.human_differ) == (4, None), "there the rule says nothing"
    assert inspect_labels(make_revision(margin)).human_differ is None
