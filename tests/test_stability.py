"""Labels that check themselves: agreement of two crops beyond chance, and what is chosen by it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, f1_score

from cli import app
from lanit.agreement import Agreement, mean_score
from lanit.errors import LanitError, UsageError
from lanit.labels import EmbeddedPrompts, Rule
from lanit.linear_head import LinearHead
from pipeline.clip.models import load_clip
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.inspection.inspect_labels import InspectOptions, inspect_store
from pipeline.inspection.label_report import label_and_report
from pipeline.labelling.label import HowToLabel
from pipeline.prompts.prompt_sets import PromptSet, prompt_set_of, read_prompt_set
from pipeline.sample_world.dataset import write_faces
from pipeline.stability import choices
from pipeline.stability.agreements import agreements_of, label_views, read_view_labels
from pipeline.stability.choices import (
    Candidate,
    TemplateChoice,
    candidate_templates,
    choose_offsets,
    compare_templates,
    shortened,
    with_offsets,
    with_templates,
)
from pipeline.stability.crops import make_views, two_crops
from pipeline.stability.views import Stabilise, Views, read_views
from pipeline.store.store import Store

FACES = 160
ENOUGH = Stabilise(least=100)
POOR = "a face with gray hair and {}."


@pytest.fixture(scope="module")
def sample() -> Any:
    return load_clip("sample")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sample: Any) -> tuple[Path, Store]:
    """A folder of drawn faces, with their truth, and a store of them that has crops."""
    folder = tmp_path_factory.mktemp("world")
    write_faces(folder / "faces", FACES, 11, 32)
    embed([str(folder / "faces")], folder / "store", sample, EmbedOptions())
    store = Store.open(folder / "store")
    make_views(store, sample, least=100)
    return folder, store


@pytest.fixture
def store(world: tuple[Path, Store], tmp_path: Path) -> Store:
    shutil.copytree(world[1].root, tmp_path / "store")
    return Store.open(tmp_path / "store")


@pytest.fixture
def bare(store: Store) -> Store:
    """Without crops."""
    for path in (store.root / "cache").glob("views-*"):
        path.unlink()
    return store


@pytest.fixture(scope="module")
def phrases() -> PromptSet:
    return prompt_set_of(read_prompt_set("sample-faces").domains, "here", "here")


def test_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    first = rng.random((300, 40)) < rng.random(40)
    second = np.where(rng.random((300, 40)) < rng.random(40), first, rng.random((300, 40)) < rng.random(40))
    first[:, 0] = second[:, 0] = False  # never on: undefined
    first[:, 1], second[:, 1] = True, True
    found = agreements_of(first, second)
    assert [each.kappa for each in found[:2]] == [None, None]
    assert [each.score for each in found[:2]] == [0, 0]
    for n in range(2, 40):
        assert found[n].kappa == pytest.approx(cohen_kappa_score(first[:, n], second[:, n]), abs=1e-9)
        assert found[n].images == 300


def test_the_interval_of_kappa_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    for shares in ([0.3, 0.02, 0.02, 0.66], [0.04, 0.01, 0.01, 0.94], [0.25, 0.2, 0.15, 0.4], [0.5, 0.0, 0.001, 0.499]):
        true = Agreement(*(round(share * 1_000_000) for share in shares)).kappa
        assert true is not None
        ends = [Agreement(*map(int, rng.multinomial(600, shares))).interval for _ in range(400)]
        held = [low <= true <= high for low, high in filter(None, ends)]
        assert np.mean(held) >= 0.93, shares


def test_full_agreement_of_few_images_is_not_taken_for_certainty() -> None:
    few, many = Agreement(5, 0, 0, 15), Agreement(500, 0, 0, 1500)
    assert few.kappa == many.kappa == 1
    assert few.interval is not None
    assert many.interval is not None
    assert few.interval[0] < 0.8 < 0.99 < many.interval[0]
    assert few.interval[1] == many.interval[1] == 1


def test_a_label_that_is_hardly_ever_on_is_not_chosen_for_it() -> None:
    rare = Agreement(3, 0, 0, 997)
    assert rare.kappa == 1
    assert rare.score < 0.4
    assert mean_score([rare, Agreement(500, 0, 0, 500)]) == pytest.approx((rare.score + 1) / 2)


def test_crops_are_made_once_and_then_only_of_new_images(store: Store, sample: Any, tmp_path: Path) -> None:
    views = read_views(store)
    assert views is not None
    assert views.crops.shape == (2, FACES, store.embedding_dim)
    assert np.allclose(np.linalg.norm(views.crops, axis=2), 1, atol=1e-5)
    whole = store.embeddings()
    apart = np.linalg.norm(views.crops[0] - views.crops[1], axis=1)
    assert 0 < apart.mean() < np.linalg.norm(whole[1:] - whole[:-1], axis=1).mean() / 2

    write_faces(tmp_path / "more", 20, 12, 32)
    embed([str(tmp_path / "more")], store.root, sample, EmbedOptions())
    grown, counted = Store.open(store.root), []
    assert read_views(grown) is None
    more = make_views(grown, sample, lambda done, total, detail="": counted.append(total), least=100)
    assert set(counted) == {20}
    assert len(more) == FACES + 20
    kept = {crop.tobytes() for crop in more.crops[0]}
    assert all(crop.tobytes() in kept for crop in views.crops[0])
    assert len(list((store.root / "cache").glob("views-*"))) == 1
    assert len(make_views(grown, sample, least=10, most=50)) == 50


def test_damaged_crops_are_made_again(store: Store, sample: Any) -> None:
    [path] = (store.root / "cache").glob("views-*")
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    assert read_views(store) is None
    make_views(store, sample, least=100)
    assert path.read_bytes() == whole


def test_equal_pictures_get_equal_crops_and_an_image_two_that_differ() -> None:
    pixels = torch.arange(3 * 20 * 20).reshape(3, 20, 20).remainder(256).byte()
    first, second = two_crops(pixels, 5)
    assert torch.equal(torch.stack([first, second]), two_crops(pixels, 5))
    assert not torch.equal(first, second)
    assert not torch.equal(two_crops(pixels, 6)[0], first)
    assert float(first.min()) >= -1
    assert float(first.max()) <= 1


def test_candidates_are_all_that_deleting_a_run_of_words_leaves() -> None:
    assert shortened("a face with {}.") == ["face with {}.", "with {}.", "{}.", "a with {}.", "a {}.", "a face {}."]
    assert shortened("{} on a face") == ["{} a face", "{} face", "{} on face", "{} on", "{} on a"]
    own = PromptSet(("x",), ("one {}.", "two {}."), ("one.", "two."), "own")
    titles = [title for title, _, _ in candidate_templates(own)]
    assert titles == ["as given", "one {}.", "two {}.", "{}.", "the general templates"]


def test_a_poor_template_is_told_and_mended(
    world: tuple[Path, Store], store: Store, sample: Any, phrases: PromptSet
) -> None:
    poor = PromptSet(phrases.domains, (POOR,), ("a face with gray hair.",), "poor")
    truth = np.genfromtxt(world[0] / "faces" / "truth.csv", delimiter=",", skip_header=1, usecols=range(1, 13))
    plain = label_and_report(store, sample, poor, Rule(), stabilise=ENOUGH)
    assert plain.templates is not None
    assert plain.templates.is_worth_a_word
    assert not plain.template_chosen
    assert store.labels().prompt_set == poor
    mended = label_and_report(store, sample, poor, Rule(), stabilise=Stabilise(template=True, least=100))
    assert mended.template_chosen
    assert mended.templates is not None
    assert store.labels().prompt_set.templates == mended.templates.best.templates
    before, after = (
        f1_score(truth, store.labels(number).active, average="macro", zero_division=0)
        for number in (plain.revision, mended.revision)
    )
    assert after > before + 0.05
    assert after > 0.95
    assert mended.statistics.stability is not None
    assert plain.statistics.stability is not None
    assert mended.statistics.stability.mean > plain.statistics.stability.mean + 0.02


def test_of_equal_templates_the_users_own_stays(sample: Any, phrases: PromptSet) -> None:
    same = np.tile(np.eye(sample.embedding_dim, dtype=np.float32)[:4], (2, 1, 1))
    choice = compare_templates(Views(same, "none"), sample, phrases, Rule())
    scores = [candidate.score for candidate in choice.candidates]
    assert scores == sorted(scores, reverse=True)
    if choice.best.score == choice.own.score:
        assert choice.best is choice.own
    assert with_templates(phrases, choice.own) is phrases


@pytest.mark.parametrize(
    ("own", "best", "taken", "told"),
    [(0.985, 0.999, True, True), (0.70, 0.80, True, True), (0.80, 0.82, False, False), (0.997, 0.999, True, False)],
)
def test_templates_are_taken_where_crops_disagree_clearly_less(
    own: float, best: float, taken: bool, told: bool
) -> None:
    """On photographs two templates of nearly the same κ are as often worse as better."""
    given, other = (Candidate(f"{score}", (f"{score} {{}}.",), ("a",), score) for score in (own, best))
    choice = TemplateChoice(given, (other, given), 3)
    assert choice.taken is (other if taken else given)
    assert choice.is_worth_a_word == told


def test_an_offset_is_looked_for_where_margins_are_thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups of images with a valley at 0.3, and noise between crops: 0 lies within the lower group."""
    rng = np.random.default_rng(3)
    centre = np.where(rng.random(800) < 0.3, 0.6, 0.0)
    shifted = centre + rng.normal(0, 0.05, (2, 800))
    fine = centre - 0.3 + rng.normal(0, 0.05, (2, 800))
    crops = np.stack([shifted, fine], axis=2).astype(np.float32)
    prompts = PromptSet(("shifted", "fine"), ("{}.",), (".",), "made up")
    embedded = EmbeddedPrompts(torch.eye(2), torch.zeros(2), torch.zeros(2), torch.ones(2))
    monkeypatch.setattr(choices, "prompt_vectors", lambda clip, prompts: embedded)
    found = choose_offsets(Views(crops, "made up"), None, prompts, Rule())  # type: ignore[arg-type]
    assert [choice.domain for choice in found] == ["shifted"]
    assert 0.15 < found[0].offset < 0.45
    assert found[0].before < 0.5 < 0.95 < found[0].after
    assert with_offsets(prompts, found).offsets == (found[0].offset, 0)
    with pytest.raises(UsageError, match="adaptive rule"):
        choose_offsets(Views(crops, "made up"), None, prompts, Rule("top-k", 1))  # type: ignore[arg-type]


def test_an_offset_is_not_looked_for_where_margins_have_no_valley(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bell, as of many words on photographs: κ is best in its middle, whatever share a word is true of."""
    rng = np.random.default_rng(4)
    bell = rng.normal(0, 1, 1000)[:, None] - [1.2, 0.5, 0.0]
    crops = (bell + rng.normal(0, 0.2, (2, 1000, 3))).astype(np.float32)
    prompts = PromptSet(("rare", "third", "half"), ("{}.",), (".",), "made up")
    embedded = EmbeddedPrompts(torch.eye(3), torch.zeros(3), torch.zeros(3), torch.ones(3))
    monkeypatch.setattr(choices, "prompt_vectors", lambda clip, prompts: embedded)
    views = Views(crops, "made up")
    assert choose_offsets(views, None, prompts, Rule()) == ()  # type: ignore[arg-type]
    tempted = choose_offsets(views, None, prompts, Rule(), gain=0.02)  # type: ignore[arg-type]
    assert "rare" in [choice.domain for choice in tempted]


def test_reports_show_stability_without_opening_an_image(
    world: tuple[Path, Store], store: Store, sample: Any, phrases: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = label_and_report(store, sample, phrases, Rule(), stabilise=ENOUGH)
    monkeypatch.setattr("pipeline.store.store_images.StoreImages.__init__", None)
    report = inspect_store(store, InspectOptions(rules="adaptive,argmax"))
    assert report.statistics.stability == made.statistics.stability
    for domain in report.statistics.domains:
        if domain.stability is not None:
            assert domain.stability_low is not None
            assert domain.stability_high is not None
            assert domain.stability_low <= domain.stability <= domain.stability_high
    crops = read_view_labels(store, report.revision)
    assert crops is not None
    adaptive, single = report.rules
    assert adaptive.stability == report.statistics.stability.mean  # type: ignore[union-attr]
    one_hot = np.eye(len(phrases.domains), dtype=bool)[(crops.margins + 0.0).argmax(axis=2)]
    kappas = [cohen_kappa_score(*one_hot[:, :, n]) for n in range(len(phrases.domains))]
    frequent = [n for n in range(len(kappas)) if 0.05 < one_hot[:, :, n].mean() < 0.95]
    scores = [each.score for each in crops.by_rule(Rule("argmax"), phrases)]
    assert [scores[n] for n in frequent] == pytest.approx([kappas[n] for n in frequent], abs=1e-9)
    assert single.stability == pytest.approx(np.mean(scores))


def test_the_page_shows_stability_with_its_interval(store: Store, sample: Any, phrases: PromptSet) -> None:
    from pipeline.inspection.page import label_page

    label_and_report(store, sample, phrases, Rule(), stabilise=Stabilise(views=False))
    assert "Stable" not in label_page(inspect_store(store, InspectOptions()), store)
    label_and_report(store, sample, phrases, Rule(), stabilise=ENOUGH)
    report = inspect_store(store, InspectOptions())
    page = label_page(report, store)
    shown = next(d for d in report.statistics.domains if d.stability is not None)
    assert f"{shown.stability_low:.2f} to {shown.stability_high:.2f}" in page
    assert f"by {FACES} images, two crops of each" in " ".join(page.split())


def test_without_images_labels_are_written_and_a_note_says_what_is_missing(
    bare: Store, sample: Any, phrases: PromptSet, world: tuple[Path, Store], capsys: pytest.CaptureFixture[str]
) -> None:
    away = world[0] / "faces-away"
    (world[0] / "faces").rename(away)
    try:
        report = label_and_report(bare, sample, phrases, Rule(), stabilise=ENOUGH)
        assert report.created
        assert report.statistics.stability is None
        assert "not looked at" in capsys.readouterr().err
        with pytest.raises(LanitError, match="can be read again"):
            label_and_report(bare, sample, phrases, Rule(), stabilise=Stabilise(offsets=True, least=100))
        assert bare.revisions() == [report.revision]
    finally:
        away.rename(world[0] / "faces")


def test_crops_that_would_take_long_are_left_until_they_are_asked_for(
    bare: Store, sample: Any, phrases: PromptSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.stability.crops._TRIED", -1.0)
    monkeypatch.setattr("pipeline.inspection.label_report.PATIENCE", 1e-6)
    report = label_and_report(bare, sample, phrases, Rule(), stabilise=ENOUGH)
    assert report.created
    assert report.statistics.stability is None
    assert "would take about 1 minutes here. Add --views" in " ".join(capsys.readouterr().err.split())
    asked = label_and_report(bare, sample, phrases, Rule(), stabilise=Stabilise(views=True, least=100))
    assert asked.statistics.stability is not None


def test_too_few_images_are_said_where_they_are_to_choose_by(bare: Store, sample: Any, phrases: PromptSet) -> None:
    quiet = label_and_report(bare, sample, phrases, Rule(), stabilise=Stabilise())
    assert quiet.statistics.stability is None
    assert not list((bare.root / "cache").glob("views-*"))
    with pytest.raises(LanitError, match="shows from 500 images on"):
        label_and_report(bare, sample, phrases, Rule(), stabilise=Stabilise(template=True))
    with pytest.raises(UsageError, match="--without-views"):
        Stabilise(views=False, offsets=True)


def test_labels_as_given_have_no_stability_and_clusters_do(store: Store, sample: Any, phrases: PromptSet) -> None:
    given = label_and_report(store, sample, phrases, HowToLabel(Rule("given")), stabilise=ENOUGH)
    assert given.statistics.stability is None
    centres = torch.from_numpy(store.embeddings()[[0, 60]])
    two = PromptSet(("first", "second"), ("{}.",), (".",), "two")
    how = HowToLabel(Rule("clusters", 2), head=LinearHead(centres, torch.zeros(2), one_hot=True))
    report = label_and_report(store, sample, two, how, stabilise=ENOUGH)
    assert report.statistics.stability is not None
    assert report.statistics.stability.mean > 0.5
    views = read_views(store)
    assert views is not None
    nearest = (views.crops @ centres.numpy().T).argmax(axis=2)
    expected = cohen_kappa_score(*nearest)
    assert [d.stability for d in report.statistics.domains] == pytest.approx([expected] * 2, abs=1e-9)


def test_fail_under_takes_stability(store: Store, sample: Any, phrases: PromptSet) -> None:
    from typer.testing import CliRunner

    def run(*more: str) -> Any:
        return CliRunner().invoke(app, ["inspect-labels", "--store", str(store.root), *more])

    label_and_report(store, sample, phrases, Rule(), stabilise=Stabilise(views=False))
    unknown = run("--fail-under", "stability=0.5")
    assert unknown.exit_code == 1
    assert "stability is undefined" in unknown.stderr
    label_and_report(store, sample, phrases, Rule(), stabilise=ENOUGH)
    stable = run("--fail-under", "stability=0.5", "--json")
    assert stable.exit_code == 0
    mean = json.loads(stable.stdout)["stability"]["mean"]
    assert 0.5 < mean <= 1
    assert not math.isnan(mean)
    assert run("--fail-under", "stability=1.01").exit_code == 1
    assert "stable" in run().stdout


def test_the_labels_of_crops_are_those_of_the_rule(store: Store, sample: Any, phrases: PromptSet) -> None:
    views = make_views(store, sample, least=100)
    rng = np.random.default_rng(4)
    domains, base = (torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in ((3, 64), (64,)))
    domains, base = domains[:, : store.embedding_dim], base[: store.embedding_dim]
    embedded = EmbeddedPrompts(domains, base, torch.tensor([0.0, 0.1, 0.0]), torch.ones(3))
    labels = label_views(views, embedded, Rule())
    expected = views.crops @ (domains - base).numpy().T > np.array([0.0, 0.1, 0.0])
    assert (labels.active == expected).mean() > 0.999
