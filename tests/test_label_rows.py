"""Which images a page of labels shows: what sorting everything would choose, in one pass, whatever the blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lanit.rules import Rule
from pipeline.clip.fingerprint import Fingerprint
from pipeline.inspection import clusters as label_clusters
from pipeline.inspection.clusters import cluster_rows, rows_of_some_parts
from pipeline.inspection.rows import ChosenRows, KnownRows, Strip, choose_rows
from pipeline.labelling.known_labels import Truth
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store import label_revisions
from pipeline.store.label_revisions import LabelBlock, RevisionFile, RevisionHeader, write_revision

FINGERPRINT = Fingerprint("made-up", "0" * 64, {}, "gelu", "fp32", 8)
OFFSETS = (0.0, 0.02, -0.05)
ROWS = 1003


def write(path: Path, margin: np.ndarray, active: np.ndarray, base: np.ndarray, block: int) -> RevisionFile:
    """A revision whose row groups have ``block`` rows."""
    count, domains = margin.shape
    prompts = PromptSet(tuple("abcdefg"[:domains]), ("a {}.",), ("a.",), "made up", OFFSETS[:domains], (1.0,) * domains)
    header = RevisionHeader(FINGERPRINT, prompts, Rule(), "label", None, "")

    def blocks() -> list[LabelBlock]:
        cut = [slice(start, min(start + block, count)) for start in range(0, count, block)]
        return [
            LabelBlock(rows.start, rows.stop - rows.start, active=active[rows], margin=margin[rows],
                       similarity_base=base[rows],
                       image_ids=pa.array([f"{row:016x}" for row in range(rows.start, rows.stop)]),
                       paths=pa.array([f"{row}.jpg" for row in range(rows.start, rows.stop)]))
            for rows in cut
        ]  # fmt: skip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_revisions, "BLOCK_ROWS", block)
        write_revision(path, header, blocks())
    return RevisionFile.open(path, 1, FINGERPRINT)


@pytest.fixture
def labels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins with many ties, labels that people changed here and there, and f_base, all different."""
    rng = np.random.default_rng(3)
    margin = rng.normal(-0.03, 0.05, (ROWS, len(OFFSETS))).round(2).astype(np.float32)
    active = (margin > np.array(OFFSETS, np.float32)) ^ (rng.random(margin.shape) < 0.05)
    return margin, active, rng.permutation(ROWS).astype(np.float32) / ROWS


def by(keys: np.ndarray, among: np.ndarray, count: int, but: tuple[int, ...] = ()) -> tuple[int, ...]:
    """The rows of the lowest keys, of equal keys the lower row."""
    rows = sorted((row for row in np.flatnonzero(among) if row not in but), key=lambda row: (keys[row], row))
    return tuple(int(row) for row in rows[:count])


@pytest.mark.parametrize("block", [97, 1003, 4000])
@pytest.mark.parametrize("each", [1, 6])
def test_strips_are_what_sorting_every_row_would_choose(
    tmp_path: Path, labels: tuple[np.ndarray, np.ndarray, np.ndarray], block: int, each: int
) -> None:
    margin, active, base = labels
    chosen = choose_rows(write(tmp_path / "r.parquet", margin, active, base, block), each, 10, seed=0)
    for n, strip in enumerate(chosen.strips):
        on, values = active[:, n], margin[:, n]
        near = np.abs(values - np.float32(OFFSETS[n]))
        surest, least = by(-values, on, each), by(values, ~on, each)
        assert strip == Strip(surest, by(near, on, each, surest), by(near, ~on, each, least), least)


def test_few_labelled_images_are_shared_between_surest_and_just_above(tmp_path: Path) -> None:
    margin = np.array([[0.5, -0.3], [0.1, -0.4], [0.3, 0.1], [-0.2, -0.9], [-0.1, -0.8]], np.float32)
    revision = write(tmp_path / "r.parquet", margin, margin > 0, np.arange(5, dtype=np.float32), 2)
    first, second = choose_rows(revision, 4, 10, seed=0).strips
    assert (first.surest, first.above, first.below, first.least) == ((0, 2), (1,), (4,), (3,))
    assert (second.surest, second.above) == ((2,), ())


def test_a_copy_is_shown_once(tmp_path: Path) -> None:
    margin = np.linspace(0.01, 0.5, 60, dtype=np.float32)[:, None].repeat(3, 0)
    base = np.zeros(180, np.float32)
    revision = write(tmp_path / "r.parquet", margin, margin > 0, base, 64)
    strip = choose_rows(revision, 5, 10, seed=0).strips[0]
    assert strip.surest == (177, 174, 171, 168, 165)
    assert strip.above == (0, 3, 6, 9, 12)


def test_wrong_and_missed_are_told_by_the_truth_where_there_is_one(
    tmp_path: Path, labels: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    margin, active, base = labels
    revision = write(tmp_path / "r.parquet", margin, active, base, 97)
    rows = np.random.default_rng(1).permutation(ROWS)[:400]
    actual = np.random.default_rng(2).random((400, 2)) < 0.3
    truth = Truth("path", tuple(f"{row}.jpg" for row in rows), ("c", "a"), actual)  # b is not known
    chosen = choose_rows(revision, 6, 10, 0, KnownRows(revision, truth))
    for n, column in ((0, 1), (2, 0)):
        true, false = np.zeros(ROWS, bool), np.zeros(ROWS, bool)
        true[rows], false[rows] = actual[:, column], ~actual[:, column]
        assert chosen.strips[n].wrong == by(-margin[:, n], active[:, n] & false, 6)
        assert chosen.strips[n].missed == by(margin[:, n], ~active[:, n] & true, 6)
    assert chosen.strips[1].wrong == chosen.strips[1].missed == ()


def test_unlabelled_rows_are_counted_and_drawn_by_the_seed_whatever_the_blocks(
    tmp_path: Path, labels: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    margin, active, base = labels
    none = np.flatnonzero(~active.any(axis=1))

    def draw(block: int, sample: int, seed: int) -> ChosenRows:
        return choose_rows(write(tmp_path / f"{block}.parquet", margin, active, base, block), 1, sample, seed)

    first = draw(97, 50, 0)
    assert first.unlabelled_count == len(none) > 50
    assert len(set(first.unlabelled.tolist())) == 50
    assert set(first.unlabelled.tolist()) <= set(none.tolist())
    assert np.array_equal(first.unlabelled, draw(1003, 50, 0).unlabelled)
    assert not np.array_equal(first.unlabelled, draw(97, 50, 1).unlabelled)
    assert np.array_equal(draw(97, 5000, 0).unlabelled, none)


class MadeUpStore:
    """Embeddings around as many directions as there are groups of rows."""

    def __init__(self, groups: np.ndarray, parts: int = 1) -> None:
        noise = np.random.default_rng(0).normal(0, 0.05, (len(groups), 8)).astype(np.float32)
        vectors = np.eye(8, dtype=np.float32)[groups] + noise
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        sizes = [len(part) for part in np.array_split(groups, parts)]
        self.manifest = type("Manifest", (), {"parts": [type("Part", (), {"ok": size}) for size in sizes]})

    def embeddings_of(self, rows: np.ndarray) -> np.ndarray:
        return self.vectors[rows]


def test_clusters_are_the_groups_with_the_phrase_that_comes_nearest(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    groups = np.array([0] * 60 + [1] * 40 + [2] * 20)
    margin = np.full((120, 3), -0.2, np.float32)
    margin[groups == 0, 1], margin[groups == 1, 2], margin[groups == 2, 0] = -0.01, -0.02, -0.03
    order = np.random.default_rng(5).permutation(120)
    groups, margin = groups[order], margin[order]
    revision = write(tmp_path / "r.parquet", margin, margin > 0, np.zeros(120, np.float32), 50)
    rows = np.arange(120)
    clusters = cluster_rows(MadeUpStore(groups), revision, rows, 5, seed=0)  # type: ignore[arg-type]
    assert sum(cluster.share for cluster in clusters) == pytest.approx(1)
    assert list(clusters) == sorted(clusters, key=lambda cluster: -cluster.share)
    for cluster in clusters:
        shown = {int(groups[row]) for row in cluster.rows}
        assert len(shown) == 1, "more clusters than groups may split one, but none may join two"
        assert cluster.closest == {0: "b", 1: "c", 2: "a"}[shown.pop()]
        assert cluster.margin == pytest.approx({"b": -0.01, "c": -0.02, "a": -0.03}[cluster.closest], abs=1e-6)
    again = cluster_rows(MadeUpStore(groups), revision, rows, 5, seed=0)  # type: ignore[arg-type]
    assert again == clusters


def test_no_more_embeddings_are_read_than_a_sample_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MadeUpStore(np.zeros(3000, int), parts=300)  # of ten images
    rows = np.arange(0, 3000, 2)
    assert np.array_equal(rows_of_some_parts(store, rows, seed=0), rows)  # type: ignore[arg-type]
    for most, parts in ((705, 70), (3, 1)):
        monkeypatch.setattr(label_clusters, "MOST_READ", most)
        kept = rows_of_some_parts(store, rows, seed=0)  # type: ignore[arg-type]
        assert len(np.unique(kept // 10)) == parts
        assert np.array_equal(kept, rows[np.isin(rows // 10, kept // 10)]), "of a part all or none"
