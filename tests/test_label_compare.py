"""Two revisions side by side: flips, and the images that flipped, by going through them one by one."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pipeline.store.label_revisions
from pipeline.inspection.compare import compare_labels, write_flips
from pipeline.store.label_revisions import LabelRevision

Make = Callable[..., LabelRevision]


def two_revisions(make_revision: Make, count: int, seed: int) -> tuple[LabelRevision, LabelRevision]:
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=(count, 3)).astype(np.float32)
    moved = (margin + rng.normal(0, 0.7, margin.shape)).astype(np.float32)
    return make_revision(margin, number=1), make_revision(moved, number=2)


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (40, 1), (333, 2)])
def test_flips_are_those_of_a_loop(count: int, seed: int, make_revision: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.store.label_revisions, "BLOCK_ROWS", 50)
    before, after = two_revisions(make_revision, count, seed)
    found = compare_labels(before, after, examples=4)
    assert (found.before, found.after, found.images, found.only_before, found.only_after) == (1, 2, count, 0, 0)
    assert (found.added, found.removed) == ((), ())
    for n, flips in enumerate(found.domains):
        on = [row for row in range(count) if after.active[row, n] and not before.active[row, n]]
        off = [row for row in range(count) if before.active[row, n] and not after.active[row, n]]
        assert (flips.on, flips.off) == (len(on), len(off))
        assert flips.share == pytest.approx((len(on) + len(off)) / count)
        assert (flips.count_before, flips.count_after) == (before.active[:, n].sum(), after.active[:, n].sum())
        for rows, images in ((on, flips.turned_on), (off, flips.turned_off)):
            rows.sort(key=lambda row, n=n: -abs(float(after.margin[row, n]) - float(before.margin[row, n])))
            assert [image.row for image in images] == rows[:4]
            for image in images:
                assert (image.path, image.image_id) == (after.paths[image.row], after.image_ids[image.row])
                assert image.margin_before == before.margin[image.row, n]
                assert image.margin_after == after.margin[image.row, n]
    assert found.coverage_after == pytest.approx(after.active.any(axis=1).mean())
    json.dumps(found.to_json(), allow_nan=False)


def test_every_flip_is_a_row_of_the_csv(make_revision: Make, tmp_path: Path) -> None:
    before, after = two_revisions(make_revision, 60, 4)
    write_flips(before, after, tmp_path / "flips.csv")
    with (tmp_path / "flips.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    expected = {
        (name, after.image_ids[row], after.paths[row], str(int(after.active[row, n])))
        for n, name in enumerate(after.domains)
        for row in range(60)
        if after.active[row, n] != before.active[row, n]
    }
    assert {(row["domain"], row["image_id"], row["path"], row["label"]) for row in found} == expected
    assert len(found) == len(expected) > 10
    row = int(found[0]["image_id"].removeprefix("id"))
    n = after.domains.index(found[0]["domain"])
    assert float(found[0]["margin_before"]) == pytest.approx(before.margin[row, n], abs=1e-6)
    assert float(found[0]["margin_after"]) == pytest.approx(after.margin[row, n], abs=1e-6)


def test_a_revision_against_itself_has_no_flip(make_revision: Make) -> None:
    before, _ = two_revisions(make_revision, 30, 3)
    assert all(flips.share == 0 and not flips.turned_on for flips in compare_labels(before, before).domains)


def test_images_and_domains_are_joined_by_name(make_revision: Make) -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(size=(20, 2))
    before = make_revision(margin, domains=("Smiling", "bald"), number=1)
    order = rng.permutation(20)[:15]
    after = make_revision(-margin[order], domains=("hat", "smiling"), number=2)
    ids = np.array([f"id{row}" for row in order], dtype=object)
    ids[3] = "new"
    after = LabelRevision(**(vars(after) | {"image_ids": ids}))
    found = compare_labels(before, after)
    assert (found.images, found.only_before, found.only_after) == (14, 6, 1)
    assert (found.added, found.removed) == (("hat",), ("bald",))
    (flips,) = found.domains
    both = np.delete(np.arange(15), 3)
    was, now = before.active[order[both], 0], after.active[both, 1]
    assert flips.domain == "smiling"
    assert (flips.on, flips.off) == ((now & ~was).sum(), (was & ~now).sum())


def test_nothing_in_common_is_no_flip(make_revision: Make) -> None:
    one, two = two_revisions(make_revision, 5, 0)
    others = compare_labels(one, make_revision(np.ones((5, 1)), domains=("hat",), number=2))
    assert (others.domains, others.images) == ((), 5)
    assert (others.added, others.removed) == (("hat",), one.domains)
    assert (others.coverage_before, others.coverage_after) == (one.active.any(axis=1).mean(), 1)
    elsewhere = LabelRevision(**(vars(two) | {"image_ids": np.array([f"x{row}" for row in range(5)], dtype=object)}))
    found = compare_labels(one, elsewhere)
    assert (found.images, found.only_before, found.only_after) == (0, 5, 5)
    assert all((flips.on, flips.off, flips.share) == (0, 0, 0) for flips in found.domains)
