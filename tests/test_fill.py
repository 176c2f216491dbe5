"""Known labels to labels of all images: from those of the words, where nothing is known, to the given ones."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from typer.testing import CliRunner

import cli
from lanit.errors import LanitError
from lanit.heads import KnownLabels, bars, cross_validate, fit
from lanit.labels import EmbeddedPrompts
from lanit.linear_head import LinearHead
from lanit.rules import Rule
from pipeline.embedding.embed import embed
from pipeline.labelling.fill import LEAST_KNOWN, Filled, fill
from pipeline.labelling.fill_request import Fill, kept_rows
from pipeline.store.store import Store
from tests.store_builders import store_of_embeddings

WIDTH, DOMAINS = 12, ("smiling", "hat", "bald", "bangs")


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(each) for each in arguments])


class World:
    """Images whose labels are linear in their embeddings, and words that point there only roughly."""

    def __init__(self, place: Path, count: int = 900, astray: float = 1.0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        vectors = rng.normal(size=(count, WIDTH)) + 1
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        right = rng.normal(size=(4, WIDTH)) - 0.3
        scores = vectors @ right.T
        bar = np.quantile(scores, [0.5, 0.7, 0.85, 0.93], axis=0).diagonal()
        self.truth = scores > bar
        words = right + astray * rng.normal(size=right.shape)
        base = rng.normal(size=WIDTH)
        self.prompts = EmbeddedPrompts(
            torch.tensor(0.05 * words + base, dtype=torch.float32), torch.tensor(base, dtype=torch.float32),
            torch.tensor([0.01, 0.0, 0.02, 0.0]), torch.ones(4), 20.0,
        )  # fmt: skip
        self.store = store_of_embeddings(place, vectors, f"store-{seed}-{astray}")
        self.images = torch.from_numpy(vectors)

    def known(self, rows: np.ndarray) -> np.ndarray:
        values = np.full(self.truth.shape, -1, np.int8)
        values[rows] = self.truth[rows]
        return values

    def fill(self, known: np.ndarray, rule: str = "adaptive", left_out: np.ndarray | None = None) -> Filled:
        return fill(self.store, self.prompts, DOMAINS, Rule(rule), known, left_out, Fill())

    def labels(self, head: LinearHead | None) -> np.ndarray:
        labels = self.prompts.labels(self.images)
        if head is not None and head.columns is not None:
            labels[:, head.columns] = torch.from_numpy(head.labels(self.images.numpy()))
        return labels.numpy()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_without_known_labels_the_words_decide(world: World) -> None:
    nothing = world.known(np.empty(0, np.int64))
    found = world.fill(nothing, left_out=world.known(np.arange(900)))
    assert found.head is None
    assert (found.figures.images, found.figures.learned) == (0, 0)
    by_words = world.prompts.labels(world.images).numpy()
    assert found.figures.f1_left_out == pytest.approx(f1_score(world.truth, by_words, average="macro"))


def test_a_head_is_the_most_probable_one_whatever_solver_finds_it(world: World) -> None:
    """With a, c held and the words as the mean: sklearn fits the difference, its images scaled by σ."""
    known = KnownLabels(
        world.images - world.images.mean(dim=0), torch.zeros(900, 4), torch.tensor(world.truth, dtype=torch.float32),
        torch.ones(900, 4),
    )  # fmt: skip
    found = fit(known, 8.0)
    for n in range(4):
        images = np.hstack([8 * known.images.numpy(), np.full((900, 1), 2.0)])  # the shift has a prior, too
        other = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(
            images, world.truth[:, n]
        )
        np.testing.assert_allclose(found.delta[:, n], 8 * other.coef_[0, :-1], rtol=5e-3, atol=5e-3)
        np.testing.assert_allclose(found.shift[n], 2 * other.coef_[0, -1], rtol=5e-3, atol=5e-3)


def test_a_search_that_begins_elsewhere_ends_at_the_same_head(world: World) -> None:
    images, on = world.images - world.images.mean(dim=0), torch.tensor(world.truth, dtype=torch.float32)
    known = KnownLabels(images, world.prompts.margins(world.images), on, torch.ones(900, 4))
    cold, near = fit(known, 8.0), fit(known, 0.05)
    for tolerance in (1e-8, 1e-9):  # of the comparison, and of the head
        warm = fit(known, 8.0, near, tolerance)
        torch.testing.assert_close(warm.delta, cold.delta, rtol=0.01, atol=0.01)
    assert (cold.delta - near.delta).abs().max() > 1


def test_labels_that_are_not_known_pull_at_nothing(world: World) -> None:
    said = torch.rand(900, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    images, prior = world.images - world.images.mean(dim=0), world.prompts.margins(world.images)
    on = torch.tensor(world.truth, dtype=torch.float32)
    masked = fit(KnownLabels(images, prior, torch.where(said, on, 1 - on), said.float()), 4.0)
    for n in range(4):
        rows = said[:, n]
        alone = fit(
            KnownLabels(images[rows], prior[rows, n : n + 1], on[rows, n : n + 1], torch.ones(int(rows.sum()), 1)), 4.0
        )
        torch.testing.assert_close(masked.delta[:, n : n + 1], alone.delta, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("astray", [0.5, 3.0])
def test_more_known_labels_are_better_ones_and_words_help_where_few_are_known(tmp_path: Path, astray: float) -> None:
    scores = []
    for seed in range(2):
        world = World(tmp_path, 500, astray, seed)
        rows = np.random.default_rng(seed).permutation(500)
        each = [f1_score(world.truth, world.labels(None), average="macro")]
        for count in (25, 100, 400):
            head = world.fill(world.known(rows[:count])).head
            each.append(f1_score(world.truth[rows[400:]], world.labels(head)[rows[400:]], average="macro"))
        scores.append(each)
    words, few, more, most = np.mean(scores, axis=0)
    assert few > words
    assert more > few
    assert most > more - 0.01
    assert most > 0.85


def test_the_f1_it_tells_is_that_of_labels_that_nobody_knew(tmp_path: Path) -> None:
    apart, held = [], 0
    for seed in range(3):
        world = World(tmp_path, astray=2.0, seed=seed)
        rows = np.random.default_rng(seed).permutation(900)
        left_out = world.known(rows[200:])
        figures = world.fill(world.known(rows[:200]), left_out=left_out).figures
        assert figures.f1 is not None
        assert figures.f1_low is not None
        assert figures.f1_high is not None
        assert figures.f1_left_out is not None
        assert figures.f1_low < figures.f1 < figures.f1_high
        apart.append(figures.f1 - figures.f1_left_out)
        held += figures.f1_low - 0.02 <= figures.f1_left_out <= figures.f1_high + 0.02
    assert abs(np.mean(apart)) < 0.04
    assert held >= 2


def test_phrases_of_which_too_little_is_known_keep_their_words(world: World) -> None:
    known = world.known(np.arange(200))
    on = np.flatnonzero(known[:, 3] == 1)
    known[on[LEAST_KNOWN - 1 :], 3] = -1
    known[:, 0] = -1
    found = world.fill(known)
    assert [domain.learned for domain in found.figures.domains] == [False, True, True, False]
    assert found.figures.domains[3].on == LEAST_KNOWN - 1
    assert found.figures.domains[0].f1 is None
    assert found.head is not None
    assert found.head.columns is not None
    assert found.head.columns.tolist() == [1, 2]


def test_mistakes_among_the_known_labels_hold_the_head_back_and_are_counted(world: World) -> None:
    known = world.known(np.arange(300))
    rng = np.random.default_rng(1)
    wrong = known.copy()
    flipped = rng.random(known.shape) < 0.1
    wrong[flipped & (known >= 0)] = 1 - wrong[flipped & (known >= 0)]
    right, mistaken = world.fill(known), world.fill(wrong)
    assert right.figures.spread is not None
    assert mistaken.figures.spread is not None
    assert mistaken.figures.spread <= right.figures.spread
    assert mistaken.figures.doubted > 5 + 2 * right.figures.doubted
    scores = [f1_score(world.truth[300:], world.labels(each.head)[300:], average="macro") for each in (right, mistaken)]
    assert scores[1] > scores[0] - 0.15


def test_classes_that_exclude_each_other_stay_so(world: World) -> None:
    classes = np.eye(4, dtype=bool)[world.prompts.margins(world.images).argmax(dim=1).numpy()]
    world.truth = classes
    found = world.fill(world.known(np.arange(150)), rule="argmax")
    assert found.figures.one_hot
    labels = world.labels(found.head)
    assert (labels.sum(axis=1) == 1).all()
    assert (labels == classes).all(axis=1).mean() > 0.85
    with pytest.raises(LanitError, match="not by top-k"):
        fill(world.store, world.prompts, DOMAINS, Rule("top-k", 2), world.known(np.arange(9)), None, Fill())


def test_the_bar_is_the_best_of_all_in_expectation_and_labels_no_flood() -> None:
    logits = torch.randn(400, 3, generator=torch.Generator().manual_seed(1)) * 2 - 2
    probability = torch.sigmoid(logits.double()).numpy()
    found = bars(logits)
    for n in range(3):
        p = probability[:, n]
        best = max(2 * p[p >= bar].sum() / ((p >= bar).sum() + p.sum()) for bar in p)
        on = logits[:, n].numpy() > float(found[n])
        assert 2 * p[on].sum() / (on.sum() + p.sum()) == pytest.approx(best, rel=1e-6)
    alike = torch.full((400, 1), -3.0) + torch.rand(400, 1, generator=torch.Generator().manual_seed(2)) * 1e-3
    assert (alike > bars(alike)).sum() <= 2 * torch.sigmoid(alike).sum() + 1


def test_the_strength_is_chosen_on_images_left_out(world: World) -> None:
    images = world.images - world.images.mean(dim=0)
    noise = torch.randint(2, (900, 4), generator=torch.Generator().manual_seed(0)).float()
    fold = torch.arange(900) % 5
    senseless = cross_validate(KnownLabels(images, torch.zeros(900, 4), noise, torch.ones(900, 4)), fold)
    on = torch.tensor(world.truth, dtype=torch.float32)
    telling = cross_validate(KnownLabels(images, torch.zeros(900, 4), on, torch.ones(900, 4)), fold)
    assert senseless.spread < 2 < telling.spread


def test_kept_shares_are_nested_and_follow_the_seed() -> None:
    values = np.where(np.arange(500)[:, None] % 5 == 0, -1, 1).astype(np.int8)
    ids = [f"{number:016x}" for number in range(500)]
    shares = [kept_rows(values, ids, Fill(keep)) for keep in (0.0, 0.05, 0.2, 1.0)]
    assert [int(share.sum()) for share in shares] == [0, 20, 80, 400]
    for few, more in itertools.pairwise(shares):
        assert not (few & ~more).any()
    assert (kept_rows(values, ids, Fill(0.2, 1)) != shares[2]).any()
    assert (kept_rows(values[::-1], ids[::-1], Fill(0.2))[::-1] == shares[2]).mean() == 1


@pytest.fixture
def folder(tmp_path: Path, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of sixty images and a table that knows some of their labels, and one name that is no image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "images").mkdir()
    lines = ["file,red,green"]
    for n in range(60):
        pixels = np.random.default_rng(n).integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{n:02d}.png")
        if n < 40:
            lines.append(f"{n:02d}.png,{n % 2},{n % 3 == 0 if n < 25 else ''}")
    (tmp_path / "some.csv").write_text("\n".join([*lines, "gone.png,1,"]).replace("True", "1").replace("False", "0"))
    embed([str(tmp_path / "images")], tmp_path / "manifests", tiny_clip)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_known_labels_stay_and_the_report_is_kept_with_the_revision() -> None:
    shown = run("label", "--from-table", "some.csv", "--fill")
    assert shown.exit_code == 0, shown.output
    assert "Filled in from what is known of 40 images" in shown.stdout
    labels = Store.open(Path("manifests")).labels()
    assert labels.rule == Rule("filled")
    assert labels.human is not None
    known = {path: row for row, path in enumerate(labels.paths)}
    for n in range(60):
        row = known[f"{n:02d}.png"]
        assert labels.human[row].tolist() == [n < 40, n < 25]
        assert n >= 40 or labels.active[row, 0] == n % 2
        assert n >= 25 or labels.active[row, 1] == (n % 3 == 0)
    report = json.loads(run("inspect-labels", "--json").stdout)
    assert report["fill"]["images"] == 40
    assert [(d["domain"], d["on"], d["off"]) for d in report["fill"]["domains"]] == [("red", 20, 20), ("green", 9, 16)]
    assert run("label", "--from-table", "some.csv", "--fill", "--json").stdout.count('"created": false')
    assert (
        json.loads(run("label", "--from-table", "some.csv", "--fill", "--keep", 0.5, "--json").stdout)["statistics"][
            "fill"
        ]["left_out"]
        == 20
    )


@pytest.mark.usefixtures("folder")
def test_with_nothing_kept_the_labels_are_those_of_the_words() -> None:
    assert run("label", "--from-table", "some.csv", "--fill", "--keep", 0).exit_code == 0
    Path("words.txt").write_text("red\ngreen\n")
    assert run("label", "--prompts", "words.txt", "--without-people").exit_code == 0
    filled, words = (Store.open(Path("manifests")).labels(number) for number in (1, 2))
    assert (filled.active == words.active).all()
    assert filled.rule == words.rule == Rule("adaptive")


@pytest.mark.usefixtures("folder")
def test_phrases_are_filled_from_labels_by_people_given_now_or_before() -> None:
    Path("words.txt").write_text("red\ngreen\nblue\n")
    refused = run("label", "--prompts", "words.txt", "--fill")
    assert refused.exit_code == 2
    assert "needs labels by people" in refused.stderr
    assert run("label", "--prompts", "words.txt", "--labels", "some.csv", "--fill").exit_code == 0
    report = json.loads(run("label", "--prompts", "words.txt", "--fill", "--json").stdout)
    assert [d["on"] for d in report["statistics"]["fill"]["domains"]] == [20, 9, 0]
    assert [d["learned"] for d in report["statistics"]["fill"]["domains"]] == [True, True, False]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "words",
    [
        "--clusters 2 --fill",
        "--from-table some.csv --fill --rule top-2",
        "--from-table some.csv --keep 0.5",
        "--from-table some.csv --fill --rule filled",
        "--prompts words.txt --fill --without-people",
    ],
)
def test_what_makes_no_sense_is_refused(words: str) -> None:
    refused = run("label", *words.split())
    assert refused.exit_code == 2
    assert Store.open(Path("manifests")).revisions() == []
