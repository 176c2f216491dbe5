"""The demo's page: self-contained, accessible, and each generator's pictures and figures under its own heading."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lanit.rules import Rule
from pipeline.inspection.label_statistics import DomainStatistics, LabelStatistics
from pipeline.inspection.scores import DomainScores
from pipeline.inspection.scores import Scores as LabelScores
from pipeline.sample_world.demo_page import DemoResults, ModelResult, Sample, large_pairs, render
from pipeline.sample_world.judge import Scores
from pipeline.showing.line_charts import Chart, Series
from tests.html_reader import HtmlReader

DOMAINS = ("smiling", "<i>hat & scarf</i>", "bald")


def model(name: str, level: int, size: int, steps: int) -> ModelResult:
    count = len(DOMAINS)
    scores = Scores(np.full(count, level / 100), np.full(count, 0.5 + level / 200), np.arange(40, 40 + count))
    sources = np.full((2, size, size, 3), level, np.uint8)
    translations = np.full((2, count, size, size, 3), level + 1, np.uint8)
    return ModelResult(name, "origin of " + name, steps, steps * 16, size, 6.2, "a CPU", scores, sources, translations)


@pytest.fixture(scope="module")
def results() -> DemoResults:
    counted = [
        DomainStatistics(
            domain=name,
            count=10 * n,
            share=0.2 * n,
            mean_margin=0.1,
            mean_margin_labelled=0.2 if n else None,
            ambiguous_share=0.03,
            margin_p5=-0.1,
            margin_p50=0.1,
            margin_p95=0.3,
            histogram=(20, 30),
            only_count=0,
            only_share=None,
            companion=None,
        )
        for n, name in enumerate(DOMAINS)
    ]
    scored = tuple(DomainScores(name, 9, 0.91, 0.92, 0.93, 0.9) for name in DOMAINS)
    labels = LabelStatistics(
        revision=1,
        origin="label",
        rule=Rule(),
        images=50,
        domains=tuple(counted),
        coverage=0.98,
        slack_share=0.02,
        labels_per_image=2.4,
        label_counts=(1, 49),
        epsilon=0.01,
        warnings=(),
        histogram_edges=(-0.5, 0.0, 0.5),
        cooccurrence=((0, 0, 0), (0, 10, 5), (0, 5, 20)),
        near_synonyms=(),
        smallest=DOMAINS[0],
        smallest_count=0,
        scores=LabelScores(
            images=50,
            without_truth=0,
            not_in_store=0,
            domains=scored,
            domains_without_truth=(),
            micro_precision=0.94,
            micro_recall=0.94,
            micro_f1=0.94,
            micro_average_precision=0.9,
            macro_precision=0.95,
            macro_recall=0.95,
            macro_f1=0.951,
            mean_average_precision=0.9,
            subset_accuracy=0.8,
            confusions=(),
        ),
    )
    face = np.full((64, 64, 3), 200, np.uint8)
    return DemoResults(
        domains=DOMAINS,
        faces=4321,
        face_size=64,
        labels=labels,
        samples={
            DOMAINS[0]: (Sample(face, True), Sample(face, False)),
            DOMAINS[1]: (),
            DOMAINS[2]: (Sample(face, True),),
        },
        charts=(Chart("Accuracy", (Series("recognised", [0, 10], [0.0, 0.4]),), "by CLIP", (0, 1)), Chart("Cycle", ())),
        source_captions=("blond hair, smiling", "bald"),
        models=(model("This run", 20, 32, 1234), model("The shipped one", 90, 64, 98_765)),
        commands=("lanit embed 'my faces' --clip sample", "lanit label --prompts x"),
        seed=7,
        machine="2 CPU cores",
    )


def test_nothing_is_loaded_from_anywhere(results: DemoResults) -> None:
    page = HtmlReader(render(results))
    addresses = [
        value or "" for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not page.all("script")
    assert not re.search(r"@import|url\(", render(results))


def test_pictures_have_texts_tables_have_headers_and_texts_are_escaped(results: DemoResults) -> None:
    html = render(results)
    page = HtmlReader(html)
    assert all(image["alt"] for image in page.all("img"))
    assert all(header.get("scope") for header in page.all("th"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert page.all("html")[0]["lang"] == "en"
    assert "<i>hat" not in html
    assert "&lt;i&gt;hat &amp; scarf&lt;/i&gt;" in html


def test_each_panel_shows_the_pictures_of_its_own_model_and_says_what_it_cost(results: DemoResults) -> None:
    panels = re.findall(r'<figure class="panel model.*?</figure>', render(results), re.DOTALL)
    assert len(panels) == 2
    for panel, shown, other in zip(panels, results.models, reversed(results.models), strict=True):
        assert shown.name in panel
        assert other.name not in panel
        for fact in (f"{shown.steps:,}", f"{shown.images_seen:,}"):
            assert fact.replace(",", "\u202f") in panel
        assert f"{shown.size} × {shown.size}" in panel
        pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', panel)
        assert len(pictures) == 2 * (1 + len(DOMAINS))
        levels = [int(np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).mean()) for text in pictures]
        level = int(shown.sources[0].mean())
        assert levels == [level, *[level + 1] * len(DOMAINS)] * 2


def test_the_page_begins_with_large_pictures_of_each_model_of_attributes_that_a_source_lacks(
    results: DemoResults,
) -> None:
    html = render(results)
    panels = re.findall(r'<figure class="panel large.*?</figure>', html, re.DOTALL)
    assert html.index('class="tiles"') > html.rindex('class="panel large')
    for panel, shown, other in zip(panels, results.models, reversed(results.models), strict=True):
        assert shown.name in panel
        assert other.name not in panel
        pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', panel)
        levels = [int(np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).mean()) for text in pictures]
        assert levels == [int(shown.sources[0].mean()), int(shown.sources[0].mean()) + 1] * 2
    for row, column in large_pairs(results):
        assert DOMAINS[column] not in results.source_captions[row]
    assert [row for row, _ in large_pairs(results, 1)] == [0]


def test_figures_are_those_of_the_results(results: DemoResults) -> None:
    html = render(results)
    table = re.search(r'<section aria-labelledby="figures">.*?</section>', html, re.DOTALL)
    assert table
    values = re.findall(r">(\d\.\d\d\d)<", table[0])
    assert values == ["0.200", "0.600", "0.900", "0.950"] * (len(DOMAINS) + 1)
    assert "4\u202f321" in html
    assert "for 6.2 minutes" in html
    assert "0.951 <small>macro F1" in html
    assert html.count(", which it is not") == 2  # alt and title of the one wrong sample
    assert "no face has this label" in html
    for command in results.commands:
        assert command.replace("'", "&#39;") in html


def test_pictures_smaller_than_shown_stay_crisp(results: DemoResults) -> None:
    images = HtmlReader(render(results)).all("img")
    assert {image["width"] for image in images if "upscaled" in (image["class"] or "")} == {"32", "64"}


def test_one_model_alone_is_not_compared(results: DemoResults) -> None:
    html = render(replace(results, models=results.models[:1]))
    HtmlReader(html)
    assert "mistaken" not in html
    assert "The shipped one" not in html
