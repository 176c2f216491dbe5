"""The page of labels without a browser: complete, valid, self-contained, and safe whatever files are called."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli import app
from lanit.errors import LanitError
from pipeline.inspection import page_data as label_page_data
from pipeline.inspection.charts import WIDTH, Axis, histogram, shown_axis
from pipeline.inspection.inspect_labels import Inspection, InspectOptions, inspect_store
from pipeline.inspection.page import label_page, render
from pipeline.inspection.page_data import PageData, gather
from pipeline.inspection.rows import Strip
from pipeline.inspection.statistics import MOST_TOGETHER
from pipeline.labelling.people_labels import PeopleCounts
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import Store
from pipeline.words import kmeans
from tests.html_reader import HtmlReader
from tests.label_builders import add_labels

HOSTILE = "</script><img src=x onerror=alert(1)>.png"
DOMAINS = ("smiling", "<i>hat & scarf</i>", 'eye"glasses')


@pytest.fixture
def store(tmp_path: Path, make_labelled_store: Callable[..., Store]) -> Store:
    """50 images in three folders, one of them hostile; the first phrase labels 20, the second 2, the third none."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    names = [*(f"a/{n:02d}.png" for n in range(30)), *(f"b/ü {n}.png" for n in range(19)), HOSTILE]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(folder / name)
    having = {DOMAINS[0]: {*names[:19], HOSTILE}, DOMAINS[1]: {*names[18:20]}, DOMAINS[2]: set()}
    return make_labelled_store(folder, having, part_rows=7)


@pytest.fixture
def truth(tmp_path: Path) -> str:
    """Of the first phrase alone: ten of those that it labels and five more."""
    lines = ["path,smiling", *(f"a/{n:02d}.png,{int(n < 10 or n > 24)}" for n in range(30))]
    path = tmp_path / "truth.csv"
    path.write_text("\n".join(lines))
    return str(path)


def inspect(store: Store, **options: Any) -> Inspection:
    return inspect_store(store, InspectOptions(**options))


def document(page: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    value: dict[str, Any] = json.loads(found[0])
    return value


def test_the_page_is_one_file_that_loads_nothing_and_runs_nothing_but_its_own_script(store: Store, truth: str) -> None:
    html = label_page(inspect(store, truth=truth), store)
    page = HtmlReader(html)
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("srcset", "action", "background")]
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"@import|url\(|https?://", html)
    policy = next(meta["content"] or "" for meta in page.all("meta") if meta.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_hostile_names_stay_text(store: Store) -> None:
    html = label_page(inspect(store), store)
    page = HtmlReader(html)
    assert HOSTILE not in html
    assert "<i>hat" not in html
    assert not page.all("img"), "thumbnails are added by the script, and nothing else may add images"
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    assert HOSTILE in [image["p"] for image in document(html)["images"]]
    assert any(HOSTILE in (button.get("aria-label") or "") for button in page.all("button"))
    assert document(html)["domains"] == list(DOMAINS)


def test_every_control_has_a_name_and_every_header_a_scope(store: Store, truth: str) -> None:
    html = label_page(inspect(store, truth=truth, compare=None), store)
    page = HtmlReader(html)
    assert page.all("html")[0]["lang"] == "en"
    assert all(head.get("scope") for head in page.all("th"))
    assert all(button.get("aria-label") for button in page.all("button") if "shot" in (button.get("class") or ""))
    assert all(group.get("aria-label") for group in page.all("div") if group.get("role") in ("group", "region", "img"))
    labelled = re.findall(r"<label>(.*?)</label>", html, re.DOTALL)
    assert sum("<input" in label or "<select" in label for label in labelled) == len(
        page.all("input") + page.all("select")
    )
    assert all(svg.get("aria-hidden") == "true" for svg in page.all("svg"))
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    targets = {(link["href"] or "").removeprefix("#") for link in page.all("a")}
    assert targets <= set(identities)


def test_figures_are_those_of_the_report(store: Store, truth: str) -> None:
    report = inspect(store, truth=truth)
    html = label_page(report, store)
    rows = re.findall(r'<tr data-n="(\d)">(.*?)</tr>', html, re.DOTALL)
    assert [int(n) for n, _ in rows] == [0, 1, 2]
    fields = ("count", "share", "mean_margin", "margin_p5", "margin_p95", "ambiguous_share", "only_share")
    scores = {each.domain: each for each in report.statistics.scores.domains}  # type: ignore[union-attr]
    for domain, (_, row) in zip(report.statistics.domains, rows, strict=True):
        cells = dict(re.findall(r'data-key="(\w+)" data-name="[^"]*" data-value="([^"]*)"', row))
        for name in fields:
            value = getattr(domain, name)
            assert cells[name] == ("" if value is None else str(value))
        assert cells["companion"] == ("" if domain.companion is None else str(domain.companion.share))
        score = scores.get(domain.domain)
        assert cells["f1"] == (str(score.f1) if score else "")
    advice = html[html.index('<h2 id="advice">') : html.index('id="tools"')]
    warnings = [unescape(text).strip() for text in re.findall(r"<li>([^<]*)", advice)]
    assert warnings == list(report.statistics.warnings) != []
    together = document(html)["together"]
    assert together == [list(row) for row in report.statistics.cooccurrence]
    shares = re.findall(r'<td role="gridcell"[^>]*><span>([^<]*)</span>', html)
    counts = np.array(together)
    expected = [
        "·" if i == j else f"{100 * counts[i, j] / max(counts[i, i], 1):.0f}" for i in range(3) for j in range(3)
    ]
    assert shares == expected


def test_an_image_carries_its_row_of_the_revision_and_its_truth(store: Store, truth: str) -> None:
    data = document(label_page(inspect(store, truth=truth), store))
    labels = store.labels()
    row_of = {path: row for row, path in enumerate(labels.paths)}
    table = store.ok_images().to_pylist()
    assert len(data["images"]) == len({image["p"] for image in data["images"]})
    for image in data["images"]:
        row = row_of[image["p"]]
        assert image["b"] == pytest.approx(labels.similarity_base[row], abs=1e-5)
        assert image["m"] == pytest.approx(labels.margin[row].tolist(), abs=1e-5)
        assert image["l"] == np.flatnonzero(labels.active[row]).tolist()
        assert image["z"] == [60, 40, table[row]["bytes"]]
        assert data["sources"][image["s"]] == table[row]["source"]
        number = re.fullmatch(r"a/(\d\d)\.png", image["p"])
        if number:
            assert image["t"] == ([0] if int(number[1]) < 10 or int(number[1]) > 24 else [])
            assert image["u"] == [1, 2]
        else:
            assert image["t"] is None


def test_thumbnails_are_small_jpegs_of_their_images(store: Store, tmp_path: Path) -> None:
    data = document(label_page(inspect(store), store))
    for image in data["images"]:
        picture = Image.open(io.BytesIO(base64.b64decode(data["thumbnails"][image["g"]])))
        original = np.asarray(Image.open(tmp_path / "photos" / image["p"]).convert("RGB"), np.float32)
        assert picture.format == "JPEG"
        assert picture.size == (60, 40)
        assert np.abs(np.asarray(picture, np.float32).mean((0, 1)) - original.mean((0, 1))).max() < 6


def test_equal_images_share_a_thumbnail(tmp_path: Path, make_labelled_store: Callable[..., Store]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (30, 30), (200, 40 * (number % 2), 0)).save(folder / f"{number}.png")
    store = make_labelled_store(folder, {"a": {"0.png", "1.png", "4.png"}, "b": {"2.png"}})
    data = document(label_page(inspect(store), store))
    assert len(data["images"]) == 6
    assert len(data["thumbnails"]) == 2
    assert len({(image["g"], int(image["p"][0]) % 2) for image in data["images"]}) == 2


def test_images_that_are_gone_stand_as_names(store: Store, tmp_path: Path) -> None:
    report = inspect(store)
    for path in (tmp_path / "photos" / "a").iterdir():
        path.unlink()
    data = gather(store, report.revision)
    html = render(report, data, "store")
    assert data.gone == sum(image.path.startswith("a/") for image in data.images) > 0
    assert all((image.thumbnail is None) == image.path.startswith("a/") for image in data.images)
    assert f"{data.gone} images could not be read any more" in html
    assert '<span class="missing">05.png</span>' in html
    HtmlReader(html)


def test_images_that_changed_stand_as_names_and_are_marked(store: Store, tmp_path: Path) -> None:
    report = inspect(store)
    for path in (tmp_path / "photos" / "a").iterdir():
        Image.new("RGB", (60, 40), "red").save(path)
    data = gather(store, report.revision)
    html = render(report, data, "store")
    assert data.gone == 0
    assert data.changed == sum(image.path.startswith("a/") for image in data.images) > 0
    assert all((image.thumbnail is None) == image.path.startswith("a/") for image in data.images)
    assert f"{data.changed} images changed since the embedding" in html
    assert '<span class="missing">05.png (changed)</span>' in html
    HtmlReader(html)


def test_thumbnails_beyond_the_budget_are_left_out_and_every_group_keeps_its_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = inspect(store)
    whole = gather(store, report.revision)
    monkeypatch.setattr(label_page_data, "THUMBNAIL_BYTES", sum(map(len, whole.thumbnails)) // 2)
    data = gather(store, report.revision)
    assert sum(map(len, data.thumbnails)) <= label_page_data.THUMBNAIL_BYTES
    assert data.left_out == sum(image.thumbnail is None for image in data.images) > 0
    assert data.gone == 0
    firsts = [strip.surest[:1] for strip in data.strips]
    assert all(data.images[i].thumbnail is not None for first in firsts for i in first)
    assert "found no room" in render(report, data, "store")


def test_many_domains_get_fewer_images_each(store: Store) -> None:
    domains = tuple(f"phrase {n}" for n in range(200))
    margin = np.random.default_rng(0).normal(size=(50, 200)).astype(np.float32)
    prompts = PromptSet(domains, ("a {}.",), ("a.",), "many", (0.0,) * 200, (1.0,) * 200)
    add_labels(store, margin > 0, margin, prompts=prompts)
    data = gather(store, store.revision_file())
    assert {len(strip.surest) for strip in data.strips} == {1}


def test_of_many_domains_the_largest_get_cards_and_all_get_figures(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = MOST_TOGETHER + 12
    margin = np.random.default_rng(0).normal(size=(50, count)).astype(np.float32) + 0.01 * np.arange(count)
    domains = tuple(f"phrase {n}" for n in range(count))
    prompts = PromptSet(domains, ("a {}.",), ("a.",), "many")
    add_labels(store, margin > 0, margin, prompts=prompts)
    monkeypatch.setattr("pipeline.inspection.page.MOST_OTHERS", 9)
    html = label_page(inspect(store), store)
    images = (margin > 0).sum(axis=0)
    by_images = sorted(range(count), key=lambda n: -images[n])
    shown = sorted(by_images[:MOST_TOGETHER])
    others = sorted(by_images[MOST_TOGETHER : MOST_TOGETHER + 9])
    assert f"What {count} phrases catch in 50 images" in html
    assert re.findall(r'<h3 id="name-\d+">([^<]*)</h3>', html) == [domains[n] for n in shown]
    listed = html[html.index('id="others"') : html.index("</details>")]
    rows = re.findall(r'<th scope="row">([^<]*)</th><td>(\d+)</td>', listed)
    assert rows == [(domains[n], str(images[n])) for n in others]
    assert "And 3 more" in listed
    data = document(html)
    assert data["domains"] == [domains[n] for n in shown]
    assert len(data["together"]) == len(shown)
    paths = store.ok_images()["path"].to_pylist()
    for image in data["images"]:
        row = margin[paths.index(image["p"])]
        assert image["m"] == [pytest.approx(row[n], abs=1e-5) for n in shown]
        assert image["l"] == [place for place, n in enumerate(shown) if row[n] > 0]
        assert image.get("x", 0) == sum(row[n] > 0 for n in by_images[MOST_TOGETHER:])


def test_labels_by_people_have_a_tile(store: Store) -> None:
    report = inspect(store)
    assert "By people" not in label_page(report, store)
    people = PeopleCounts(kept=9, waiting=4, not_in_revision=3)
    html = label_page(replace(report, statistics=replace(report.statistics, people=people)), store)
    tile = html[html.index("<dt>By people</dt>") :].split("</div>")[0]
    assert "3 not in this revision" in tile
    assert "4 for images that are not here" in tile


def test_labels_older_than_the_store_are_shown_by_what_the_store_still_has(
    store: Store, tmp_path: Path, make_labelled_store: Callable[..., Store]
) -> None:
    folder = tmp_path / "photos"
    (folder / "a" / "03.png").unlink()
    Image.new("RGB", (20, 20)).save(folder / "0 new.png")
    later = make_labelled_store(folder, None, name="later")
    (later.root / "labels").mkdir()
    (later.root / "labels" / "r0001.parquet").write_bytes((store.root / "labels" / "r0001.parquet").read_bytes())
    report = inspect(later)
    assert "other images than the store holds now" in report.statistics.warnings[0]
    assert not any("other images" in warning for warning in inspect(store).statistics.warnings)
    data = gather(later, report.revision)
    assert data.clusters == ()
    assert "lanit label" in data.clusters_note
    assert data.clusters_note in render(report, data, "store")
    dropped = {image.path for image in data.images if image.width is None}
    assert dropped == {image.path for image in data.images if image.thumbnail is None} <= {"a/03.png"}
    assert all(image.width == 60 for image in data.images if image.path not in dropped)


def test_without_faiss_the_page_lacks_groups_and_says_what_to_install(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise LanitError("faiss is not installed", "Run: pip install faiss-cpu")

    monkeypatch.setattr(kmeans, "load_faiss", missing)
    report = inspect(store)
    html = label_page(report, store)
    assert "pip install faiss-cpu" in html
    assert 'class="clusters"' in html
    assert "Group 1" not in html


def test_unlabelled_images_come_in_groups(store: Store) -> None:
    pytest.importorskip("faiss")
    report = inspect(store)
    data = gather(store, report.revision)
    labels = store.labels()
    none = set(np.asarray(labels.paths)[~labels.active.any(axis=1)])
    assert data.unlabelled == data.sampled == len(none) == 29
    assert data.clusters
    assert {data.images[i].path for cluster in data.clusters for i in cluster.rows} <= none
    assert "Group 1" in render(report, data, "store")


def test_flipped_images_are_shown_for_two_revisions(store: Store) -> None:
    before = store.labels()
    active, margin = before.active.copy(), before.margin.copy()
    paths = before.paths.tolist()
    on, off = paths.index("a/25.png"), paths.index("a/02.png")
    active[on, 0], active[off, 0] = True, False
    margin[on, 0], margin[off, 0] = 0.2, -0.3
    add_labels(store, active, margin, before.similarity_base, prompts=before.prompt_set)
    html = label_page(inspect(store, compare=(1, 2)), store)
    section = html[html.index('id="changes"') : html.index('id="search"')]
    names = [image["p"] for image in document(html)["images"]]
    shown = [names[int(i)] for i in re.findall(r'data-i="(\d+)"', section)]
    assert shown == ["a/25.png", "a/02.png"]
    assert "1 gained the label, 1 lost it" in section
    same = label_page(inspect(store, compare=(1, 1)), store)
    assert "No label of a phrase that both have has changed" in same


def test_the_same_store_gives_the_same_page(store: Store, truth: str) -> None:
    report = inspect(store, truth=truth)
    assert label_page(report, store) == label_page(report, store)


def test_a_report_without_anything_unusual_still_says_what_to_look_at(store: Store) -> None:
    report = inspect(store)
    calm = replace(report, statistics=replace(report.statistics, warnings=()))
    assert "Nothing stands out" in label_page(calm, store)
    assert "What to change" in label_page(report, store)


def test_a_revision_without_images_to_show_still_gives_a_page(store: Store) -> None:
    report = inspect(store)
    strips = tuple(Strip((), (), (), ()) for _ in DOMAINS)
    empty = PageData((), strips, (), 0, 0, "", (), (), 0, 0)
    html = render(report, empty, "store")
    HtmlReader(html)
    assert document(html)["images"] == []


def bars(svg: str, side: str) -> Iterator[tuple[float, float, float]]:
    """x, width and height of the bars of one side."""
    path = re.search(rf'<path class="{side}" d="([^"]*)"', svg)
    for x, tall, width in re.findall(r"M([\d.]+) \d+v-([\d.]+)h([\d.]+)v[\d.]+z", path[1] if path else ""):
        yield float(x), float(width), float(tall)


def test_histogram_bars_are_as_high_as_their_counts_and_change_colour_at_the_threshold() -> None:
    edges, counts = (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2), (0, 50, 100, 25, 1)
    axis = shown_axis(edges, [counts, (0, 0, 1, 0, 0)])
    assert (axis.low, axis.high) == (-0.2, 0.2)
    svg = histogram(counts, edges, axis, threshold=0.1, height=40)
    below, above = list(bars(svg, "below")), list(bars(svg, "above"))
    unit = WIDTH / 4
    assert below == [(0, unit, 20), (unit, unit, 40), (2 * unit, unit, 10)]
    assert above == [(3 * unit, unit, 1)], "a single image must be seen"
    assert axis.percent(0.1) == "75.00%"
    assert Axis(-1, 1).percent(-7) == "0.00%"


def test_the_command_writes_the_page_beside_its_figures(store: Store, tmp_path: Path) -> None:
    page = tmp_path / "out" / "labels.html"
    arguments = ["inspect-labels", "--store", str(store.root), "--html"]
    result = CliRunner().invoke(app, [*arguments, str(page), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == 50
    assert "labels.html" in result.stderr
    HtmlReader(page.read_text(encoding="utf-8"))
    refused = CliRunner().invoke(app, [*arguments, str(tmp_path / "labels.txt")])
    assert refused.exit_code == 2
    assert "--html page.html" in refused.stderr
