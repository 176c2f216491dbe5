"""``lanit evaluate`` as it is typed: its tables, its JSON, its page in a browser, its refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli import app
from pipeline.evaluation.evaluate import Evaluation, Published
from pipeline.evaluation.examples import Cell, Examples
from pipeline.evaluation.figures import DomainFigures, ExtractorFacts, Figure, GuideFigures, Repeats, RunFigures
from pipeline.evaluation.options import EvaluationOptions
from pipeline.evaluation.page import evaluation_page
from pipeline.evaluation.summary import show_result
from pipeline.evaluation.table import short, show_evaluation, spread
from pipeline.store.store_images import thumbnail_of

HOSTILE = "runs/<script>alert(1)</script>&b"
DOMAINS = ("smiling", "<i>hat & scarf</i>", "a phrase that is rather longer than most phrases are")


def figures_of(domain: str, seed: int) -> DomainFigures:
    rng = np.random.default_rng(seed)

    def figure(value: float, highest: float = np.inf) -> Figure:
        return Figure(value, tuple(value + rng.normal(0, 0.02, 50)), highest)

    values = {
        "frechet": figure(0.2 + seed / 20), "frechet_before": Figure(0.9), "density": figure(0.9),
        "kid": Figure(0.001, tuple(0.001 + rng.normal(0, 0.001, 50)), lowest=-np.inf), "coverage": figure(0.6, 1.0),
        "accuracy": figure(0.99, 1.0), "accuracy_before": Figure(0.01), "kept": figure(0.95, 1.0),
        "identity": figure(0.3), "diversity": figure(0.0002), "judge_accuracy": figure(0.8, 1.0),
    }  # fmt: skip
    return DomainFigures(domain, 96, 80, 800, values, Repeats(0.0, 0.0, 0.0, 96, 800))


def evaluation(runs: tuple[str, ...] = ("runs/first",), pictures: int = 3) -> Evaluation:
    image = thumbnail_of(np.full((32, 32, 3), 90, np.uint8), 32)
    made = [
        RunFigures(
            run, "f" * 64, 32, 5000, DOMAINS, 0.7,
            tuple(
                GuideFigures(guide, tuple(figures_of(d, n + m) for n, d in enumerate(DOMAINS)), {"bald": "nobody is"})
                for guide in ("latent", "reference")
            ),
        )
        for m, run in enumerate(runs)
    ]  # fmt: skip
    examples = tuple(
        Examples(
            run,
            "latent",
            ((image, "smiling"),) * pictures,
            (tuple(Cell(image, n == 0) for n in range(len(DOMAINS))),) * pictures,
        )
        for run in runs
    )
    return Evaluation(
        store="manifests",
        images=900,
        options=EvaluationOptions(),
        extractor=ExtractorFacts("CLIP ViT-B-32, quick_gelu, fp32", "a" * 64, "shortest side to 224 px", 512),
        real_features="the store's, of whole images",
        judge="a judge",
        lpips="no weights",
        runs=tuple(made),
        labels=("label revision 1",) * len(runs),
        label_scores=None,
        published=(Published("celeba-hq-10", {"frechet": 27.96}, "not comparable"),),
        warnings=("96 real images: too few",),
        examples=examples,
    )


# ---------------------------------------------------------------- the terminal


def test_numbers_are_short() -> None:
    assert [short(v) for v in (None, 0.0, 0.029, 1.0, 12.345, 123.4, 4.69e-05)] == [
        "-", "0", "0.0290", "1.00", "12.3", "123", "4.69e-05",
    ]  # fmt: skip
    assert spread(Figure(1.0)) == "-"


def test_the_table_names_every_domain_and_puts_a_warning_beside_published_figures(capsys: Any) -> None:
    show_evaluation(evaluation())
    shown = capsys.readouterr().out
    for text in ("smiling", "latent styles", "reference styles", "mean (mFID)", "label revision 1", "not measured"):
        assert text in shown
    line = next(line for line in shown.splitlines() if "27.96" in line)
    assert "do not compare" in line
    assert max(map(len, shown.split("mFID      ")[0].splitlines())) <= 120


def test_a_summary_of_two_lines_a_guide_and_one_of_what_was_measured_comes_first(capsys: Any) -> None:
    shown_by = {}
    for tables in (False, True):
        show_result(evaluation(), tables=tables)
        shown_by[tables] = capsys.readouterr().out.splitlines()
    short_one, long_one = shown_by[False], shown_by[True]
    assert len(short_one) == 5
    assert long_one[:4] == short_one[:4]
    assert "--all" in short_one[4]
    assert "--all" not in long_one[4]
    figures = evaluation().runs[0].guides[0]
    least = min((domain["judge_accuracy"].value, domain.domain) for domain in figures.domains)
    assert f"(least: {least[1]}, {100 * least[0]:.1f} %), by the judge" in short_one[0]
    mean = np.mean([domain["frechet"].value for domain in figures.domains])
    assert f"mFID {short(float(mean))} (" in short_one[1]


def test_several_models_stand_side_by_side(capsys: Any) -> None:
    show_evaluation(evaluation(("runs/a", "runs/b")))
    shown = capsys.readouterr().out
    assert re.search(r"domain +runs/a +runs/b", shown)
    assert "Against runs/a" in shown


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded, labelled store of drawn faces, made by the commands."""
    folder = tmp_path_factory.mktemp("world")
    for words in (
        ["sample-faces", str(folder / "faces"), "--count", "60", "--size", "32", "--seed", "9"],
        ["embed", str(folder / "faces"), "--clip", "sample", "--store", str(folder / "store")],
        ["label", "--prompts", "sample-faces", "--store", str(folder / "store")],
    ):
        assert CliRunner().invoke(app, words).exit_code == 0
    return folder


SHORT = ["--styles", "2", "--sources", "6", "--guide", "latent", "--bootstrap", "20", "--device", "cpu"]


def test_the_command_prints_json_writes_a_page_and_repeats_itself(world: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    words = ["evaluate", "sample", "--store", str(world / "store"), *SHORT, "--html", str(page)]
    words += ["--truth", str(world / "faces" / "truth.csv"), "--judge", "sample-world", "--json"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    data = json.loads(first.stdout)
    assert data["options"]["seed"] == 0
    assert data["extractor"]["sha256"]
    assert data["extractor"]["resize"]
    (run,) = data["runs"]
    (domain, *_) = run["guides"]["latent"]["domains"]
    assert domain["translations"] == 2 * domain["sources"]
    assert domain["frechet"]["low"] <= domain["frechet"]["value"] <= domain["frechet"]["high"]
    assert domain["judge_accuracy"]["value"] <= 1
    assert data["label_scores"]["macro_f1"] > 0.9
    assert any("below 2,048" in warning for warning in data["warnings"])
    assert "below 2,048" in first.stderr
    assert "http" not in re.sub(r"data:[^\"]*", "", page.read_text(encoding="utf-8"))
    again = CliRunner().invoke(app, words)
    assert again.stdout == first.stdout


def test_folders_are_compared_by_the_command(world: Path, tmp_path: Path) -> None:
    page, faces = tmp_path / "folders.html", str(world / "faces")
    words = ["evaluate", "--real", faces, "--fake", faces, "--clip", "sample", "--html", str(page)]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["all"]["frechet"]["value"] == pytest.approx(0, abs=1e-6)
    assert "Fréchet" in page.read_text(encoding="utf-8")
    assert "Fréchet" in CliRunner().invoke(app, words).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to evaluate"),
        (["--real", "a"], "--real and --fake go together"),
        (["runs/a", "--real", "a", "--fake", "b"], "runs/a does not go with --real"),
        (["--real", "a", "--fake", "b", "--judge", "sample-world"], "--judge does not go with --real"),
        (["sample", "--html", "page.txt"], "is not the name of a page"),
        (["sample", "--bootstrap", "3"], "--bootstrap 100"),
        (["sample", "--styles", "0"], "styles"),
    ],
)
def test_contradictory_options_are_usage_errors(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["evaluate", *words])
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_missing_weights_and_models_are_one_line(world: Path, tmp_path: Path) -> None:
    store = ["--store", str(world / "store")]
    for words, said in (
        (
            ["sample", "--features", "inception", "--inception-weights", str(tmp_path / "none.pth")],
            "no Inception weights",
        ),
        (["sample", "--lpips-weights", str(tmp_path / "none.pth")], "no AlexNet weights"),
        ([str(tmp_path / "nothing")], "nothing"),
        (["sample", "--judge", "sample"], "the model learned from"),
    ):
        result = CliRunner().invoke(app, ["evaluate", *words, *store, *SHORT])
        assert result.exit_code == 1
        assert said in result.stderr
        assert len([line for line in result.stderr.splitlines() if line.startswith("error")]) == 1


# ---------------------------------------------------------------- the page


def test_the_page_escapes_what_it_is_given_and_says_every_figure() -> None:
    html = evaluation_page(evaluation((HOSTILE, "runs/b")))
    assert "<script>" not in html
    assert "<i>hat" not in html
    assert "&lt;i&gt;hat &amp; scarf" in html
    assert "Do not" in html
    assert "aaaaaaaaaaaaaaaa" in html
    assert evaluation_page(evaluation((HOSTILE, "runs/b"))) == html


def test_the_page_stands_without_intervals_examples_or_figures() -> None:
    bare = evaluation()
    run = bare.runs[0]
    empty = replace(run, guides=tuple(GuideFigures(guide.guide, (), {"smiling": "nobody"}) for guide in run.guides))
    still = replace(figures_of("smiling", 1), values={"frechet": Figure(0.3), "accuracy": Figure(1.0)})
    alone = replace(run, guides=(GuideFigures("latent", (still,), {}), GuideFigures("reference", (still,), {})))
    for runs in ((empty,), (alone,), (empty, alone)):
        result = replace(bare, runs=runs, labels=("r",) * len(runs), examples=(), warnings=(), published=())
        assert "</html>" in evaluation_page(result)
        show_evaluation(result)
        json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_screen_and_a_phone_in_light_and_dark(scheme: str, width: int, open_page: Any) -> None:
    page, said = open_page(evaluation_page(evaluation(("runs/first", "runs/a-second-one"))), scheme, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("summary").first.click()
    assert page.locator("details").first.get_attribute("open") is not None
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dots = page.locator(".track .point")
    assert dots.count() > 50
    outside = """() => [...document.querySelectorAll('.track')].filter(track => {
        const box = track.getBoundingClientRect();
        return [...track.querySelectorAll('i')].some(mark => {
            const at = mark.getBoundingClientRect();
            return at.left < box.left - 6 || at.right > box.right + 6;
        });
    }).length"""
    assert page.evaluate(outside) == 0
    assert said == []


@pytest.fixture
def open_page(tmp_path: Path, browser: Any) -> Iterator[Any]:
    opened: list[Any] = []

    def show(html: str, scheme: str, width: int) -> tuple[Any, list[str]]:
        file = tmp_path / "page.html"
        file.write_text(html, encoding="utf-8")
        page, said = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), []
        opened.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(file.as_uri())
        return page, said

    yield show
    for page in opened:
        page.close()


def test_the_help_names_what_users_look_for() -> None:
    shown = CliRunner().invoke(app, ["evaluate", "--help"]).output
    for text in ("mFID", "--styles", "--real", "lanit evaluate runs/a runs/b --html report.html"):
        assert text in shown
