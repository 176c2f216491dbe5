"""The page of labels in a browser: by mouse, by keyboard, on a phone, in the dark, and without a word on the console.

Needs playwright and a Chromium of the system; nothing is downloaded.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.inspection.inspect_labels import Inspection, InspectOptions, inspect_store
from pipeline.inspection.page import label_page
from pipeline.labelling.known_labels import fitted, image_keys, read_truth
from pipeline.labelling.people_labels import answers_of
from pipeline.showing.pages import Picture
from pipeline.showing.pages import _picture as pages_filter
from pipeline.store.store import Store
from tests.browsing import visiting

HOSTILE = "</script><img src=x onerror=alert(1)>.png"
DOMAINS = ("smiling", "<i>hat & scarf</i>", "bald", "eyeglasses")


@pytest.fixture
def store(tmp_path: Path, make_labelled_store: Callable[..., Store]) -> Store:
    """90 images, the last of a hostile name; shares of 4/9, 1/3, 1/9 and 1/90."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    names = [*(f"a/{n:02d}.png" for n in range(89)), HOSTILE]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / name)
    having = {
        "smiling": {*names[:39], HOSTILE},
        DOMAINS[1]: {*names[20:50]},
        "bald": {*names[45:55]},
        "eyeglasses": {HOSTILE},
    }
    return make_labelled_store(folder, having, part_rows=40)


@pytest.fixture
def report(store: Store, tmp_path: Path) -> Inspection:
    """With a truth that half agrees."""
    lines = ["path,smiling,bald", *(f"a/{n:02d}.png,{int(n < 20)},{int(45 <= n < 60)}" for n in range(89))]
    truth = tmp_path / "truth.csv"
    truth.write_text("\n".join(lines))
    return inspect_store(store, InspectOptions(truth=str(truth)))


@pytest.fixture
def address(store: Store, report: Inspection, tmp_path: Path) -> str:
    path = tmp_path / "labels page.html"
    path.write_text(label_page(report, store), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """``visit(**options of a browser context)`` opens the page; at the end nothing may have gone wrong in any."""
    with visiting(browser, 10_000) as visits:
        yield partial(visits.open, address)
    assert not visits.trouble
    assert {url for url in visits.requests if not url.startswith("data:")} <= {address}


def order(page: Any, selector: str) -> list[int]:
    """The domains that the elements stand for, those shown, from top to bottom."""
    elements = page.locator(f"{selector} [data-n]:visible").all()
    return [int(element.get_attribute("data-n")) for element in elements]


def focused(page: Any, attribute: str) -> str | None:
    value: str | None = page.evaluate("(name) => document.activeElement.getAttribute(name)", attribute)
    return value


def test_phrases_are_sorted_by_any_column_with_mouse_and_keyboard(
    visit: Callable[..., Any], report: Inspection
) -> None:
    page = visit()
    assert order(page, "#table tbody") == order(page, "#cards") == [0, 1, 2, 3]
    counts = [d.count for d in report.statistics.domains]
    by_count = sorted(range(4), key=lambda n: counts[n])
    head = page.locator('#table th[data-key="count"]')
    head.locator("button").click()
    assert order(page, "#table tbody") == order(page, "#cards") == by_count[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert order(page, "#table tbody") == by_count
    assert head.get_attribute("aria-sort") == "ascending"
    page.locator("#sort").select_option("f1")
    assert set(order(page, "#table tbody")[2:]) == {1, 3}, "domains without truth have no F1 and come last"
    assert head.get_attribute("aria-sort") is None
    page.locator("#direction").click()
    assert set(order(page, "#table tbody")[2:]) == {1, 3}
    page.locator('#table th[data-key="name"] button').click()
    names = [DOMAINS[n] for n in order(page, "#cards")]
    assert names == [DOMAINS[1], "bald", "eyeglasses", "smiling"]
    page.locator("#sort").select_option("")
    assert order(page, "#cards") == [0, 1, 2, 3]


def test_phrases_are_filtered_by_name(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("#filter").press_sequentially("L")
    assert order(page, "#table tbody") == order(page, "#cards") == [0, 2, 3]
    assert page.locator("#counted").inner_text() == "3 of 4 phrases"
    page.locator("#filter").fill("no such phrase")
    assert order(page, "#table tbody") == []
    page.locator("#filter").fill("")
    assert order(page, "#cards") == [0, 1, 2, 3]
    page.locator("#filter").fill("bald")
    page.locator(".advice").get_by_role("link", name="smiling").first.click()
    assert order(page, "#cards") == [0, 1, 2, 3], "a link to a phrase that is filtered out shows it"
    assert focused(page, "id") == "phrase-0"


def test_a_thumbnail_opens_its_row_by_mouse(visit: Callable[..., Any], store: Store) -> None:
    page = visit()
    shot = page.locator("#phrase-1 .group.surest .shot").nth(2)
    label = shot.get_attribute("aria-label")
    shot.click()
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    path = dialog.locator("h2").inner_text()
    assert label.startswith(path + ", margin")
    labels = store.labels()
    row = labels.paths.tolist().index(path)
    shown = {}
    for line in dialog.locator("tbody tr").all():
        cells = line.locator("td").all_inner_texts()
        shown[line.locator("th").inner_text()] = (
            *(float(text.replace("\u2212", "-")) for text in cells[:2]),
            cells[3].startswith("✓"),
        )
    assert set(shown) == set(DOMAINS)
    for n, name in enumerate(DOMAINS):
        similarity, margin, labelled = shown[name]
        assert margin == pytest.approx(labels.margin[row, n], abs=6e-5)
        assert similarity == pytest.approx(labels.similarity_base[row] + labels.margin[row, n], abs=6e-5)
        assert labelled == labels.active[row, n]
    assert list(shown) == [DOMAINS[n] for n in np.argsort(-labels.margin[row])]
    facts = dialog.locator("dl").inner_text()
    assert "40 × 30 px" in facts
    assert "photos" in facts
    assert dialog.locator("img").evaluate("(image) => image.complete && image.naturalWidth") == 40
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()
    assert focused(page, "aria-label") == label
    shot.click()
    page.mouse.click(5, 5)
    assert not dialog.is_visible()


def test_the_keyboard_reaches_every_image_and_its_row(visit: Callable[..., Any]) -> None:
    page = visit()
    groups = page.locator("#phrase-0 .shots")
    for group in groups.all():
        assert group.locator('[tabindex="0"]').count() == 1, "a group is one stop of the tab key"
    shots = groups.first.locator(".shot")
    names = [shot.get_attribute("aria-label") for shot in shots.all()]
    shots.first.focus()
    page.keyboard.press("ArrowRight")
    assert focused(page, "aria-label") == names[1]
    page.keyboard.press("ArrowDown")
    assert focused(page, "aria-label") == names[4], "three stand side by side"
    page.keyboard.press("End")
    assert focused(page, "aria-label") == names[-1]
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    title = page.locator("#row-name")
    assert names[0].startswith(title.inner_text())
    assert page.locator("#earlier").is_disabled()
    page.keyboard.press("ArrowRight")
    assert names[1].startswith(title.inner_text())
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('dialog').contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    # The browser tells of a closed dialog a moment later; the image that was shown last then has the focus.
    page.wait_for_function("name => document.activeElement.ariaLabel === name", arg=names[1])
    page.keyboard.press("Tab")
    assert focused(page, "aria-label") == groups.nth(1).locator(".shot").first.get_attribute("aria-label")


def test_the_heat_map_tells_each_pair_by_mouse_and_arrow_keys(visit: Callable[..., Any], report: Inspection) -> None:
    page = visit()
    counts = report.statistics.cooccurrence
    cells = page.locator("#heat tbody td")
    told = page.locator("#pair")
    cells.nth(1).hover()
    both, first, second = counts[0][1], counts[0][0], counts[1][1]
    lift = both * report.statistics.images / (first * second)
    for text in (f"smiling and {DOMAINS[1]}: {both} images", f"{100 * both / first:.1f}", f"{100 * both / second:.1f}",
                 f"{lift:.2f} times"):  # fmt: skip
        assert text in told.inner_text()
    page.mouse.move(0, 0)
    cells.first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert f"{DOMAINS[1]} and bald: {counts[1][2]} images" in told.inner_text()
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    assert "eyeglasses and bald: 0 images" in told.inner_text()
    assert page.locator('#heat [tabindex="0"]').count() == 1
    assert cells.nth(1).inner_text() == f"{100 * both / first:.0f}"
    page.get_by_label("times as often as chance").check()
    assert cells.nth(1).inner_text() == f"{lift:.1f}"


def test_images_are_searched_by_path_phrase_and_state(visit: Callable[..., Any], store: Store) -> None:
    page = visit()
    shots, found = page.locator("#results .shot"), page.locator("#found")
    every = int(re.sub(r"\D", "", found.inner_text()))
    assert shots.count() == 60 < every
    page.get_by_role("button", name="Show more").click()
    assert shots.count() == every
    assert focused(page, "aria-label") == shots.nth(60).get_attribute("aria-label")
    page.locator("#text").fill("A/1")
    assert {shot.get_attribute("aria-label")[:3] for shot in shots.all()} == {"a/1"}
    page.locator("#text").fill("onerror")
    assert [shot.get_attribute("aria-label") for shot in shots.all()] == [HOSTILE]
    page.locator("#text").fill("")
    labels = store.labels()
    margins = dict(zip(labels.paths, labels.margin[:, 2], strict=True))
    page.locator("#phrase").select_option(label="bald")
    page.locator("#state").select_option("on")
    page.locator("#order").select_option("low")
    shown = [shot.get_attribute("aria-label").split(",")[0] for shot in shots.all()]
    assert shown == sorted(shown, key=lambda path: margins[path])
    assert set(shown) <= {f"a/{n:02d}.png" for n in range(45, 55)}
    page.locator("#state").select_option("wrong")
    wrong = [shot.get_attribute("aria-label").split(",")[0] for shot in shots.all()]
    assert wrong
    assert set(wrong) <= {f"a/{n:02d}.png" for n in range(55, 60)}
    shots.first.click()
    assert "✓ yes" in page.locator("dialog tr.wrong").inner_text()


def test_thumbnails_are_decoded_when_they_come_near(visit: Callable[..., Any]) -> None:
    page = visit()
    last = page.locator("#phrase-3 .shot").last
    assert last.locator("img").count() == 0
    last.scroll_into_view_if_needed()
    last.locator("img").wait_for()
    assert last.locator("img").evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") == 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(visit: Callable[..., Any], scheme: str) -> None:
    page = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 390
    row = page.locator("#table tbody tr").first
    for cell in row.locator("td[data-name]").all():
        box = cell.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    page.locator("#sort").select_option("share")
    page.locator("#phrase-0 .shot").first.tap()
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert dialog.evaluate("(d) => d.scrollWidth <= d.clientWidth && d.getBoundingClientRect().right <= 390")
    page.keyboard.press("Escape")
    page.locator("#heat tbody td").nth(1).tap()
    assert "smiling and" in page.locator("#pair").inner_text()
    assert page.evaluate(width) == 390


def luminance(colour: str) -> float:
    """Relative luminance of an opaque CSS colour, from 0 to 1 (WCAG 2.2)."""
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_in_the_dark(visit: Callable[..., Any], scheme: str) -> None:
    page = visit(color_scheme=scheme)
    paper = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (paper > 0.5) == (scheme == "light")
    for selector in ("h1", ".lead", "#table td.number", "#table small", ".toolbar nav a", ".axis span", "h4 .note"):
        colour = luminance(page.locator(selector).first.evaluate("(e) => getComputedStyle(e).color"))
        light, dark = max(colour, paper), min(colour, paper)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, selector


def test_motion_stops_where_it_is_not_wanted(visit: Callable[..., Any]) -> None:
    still, moving = visit(reduced_motion="reduce"), visit(reduced_motion="no-preference")
    for page, wanted in ((still, False), (moving, True)):
        page.locator("#phrase-0 .shot").first.click()
        page.locator("dialog img").wait_for()
        assert page.evaluate("getComputedStyle(document.querySelector('dialog')).animationName !== 'none'") == wanted
        image = page.locator("#phrase-0 .shot img").first
        assert image.evaluate("(e) => getComputedStyle(e).transitionDuration !== '0s'") == wanted
        assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior === 'smooth'") == wanted


def test_figures_can_be_read_without_a_script(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("#table tbody tr").count() == 4
    assert page.locator("#heat tbody td").count() == 16
    assert page.locator("noscript").is_visible()
    assert not page.locator("#searching").is_visible()
    context.close()


def test_answers_by_keys_become_a_table_that_lanit_label_takes(
    visit: Callable[..., Any], store: Store, tmp_path: Path
) -> None:
    page = visit(accept_downloads=True)
    first, second = (
        page.locator("#phrase-0 .group.surest .shot").nth(n).get_attribute("aria-label").split(", margin")[0]
        for n in (0, 1)
    )
    page.locator("#phrase-0 .group.surest .shot").first.click()
    assert page.locator("#mark-asked").inner_text() == "smiling: is that right?"
    page.keyboard.press("x")
    page.keyboard.press("Space")
    page.keyboard.press("3")
    page.keyboard.press("4")
    page.keyboard.press("u")
    page.keyboard.press("Escape")
    assert page.locator("#marks").inner_text().startswith("3 answers")
    with page.expect_download() as caught:
        page.locator("#download").click()
    assert caught.value.suggested_filename == "labels.csv"
    file = tmp_path / "labels.csv"
    caught.value.save_as(file)
    third = page.locator("#phrase-0 .group.surest .shot").nth(2).get_attribute("aria-label").split(", margin")[0]
    truth = read_truth(file, DOMAINS, blanks=True)
    answers, left = answers_of(fitted(truth, store, *image_keys(store)), store, DOMAINS)
    said = {(row["path"], row["phrase"]): row["label"] for row in answers.to_pylist()}
    shown = store.labels()
    bald = not shown.active[shown.paths.tolist().index(third), 2]
    assert said == {(first, "smiling"): False, (second, "smiling"): True, (third, "bald"): bald}
    assert left == 0


def test_the_page_holds_every_image_of_a_small_store(visit: Callable[..., Any], store: Store) -> None:
    page = visit()
    assert page.evaluate("JSON.parse(document.getElementById('data').textContent).images.length") == store.ok
    assert "holds all 90 images" in page.inner_text("#searching")


def test_images_come_before_figures_on_a_phone(visit: Callable[..., Any]) -> None:
    page = visit(viewport={"width": 390, "height": 844})
    top = {name: page.locator(f"#{name}").bounding_box()["y"] for name in ("images", "figures")}
    assert top["images"] < top["figures"]
    wide = visit()
    assert wide.locator("#images").bounding_box()["y"] > wide.locator("#figures").bounding_box()["y"]


def test_every_thumbnail_is_printed(browser: Any, address: str, tmp_path: Path) -> None:
    """Of this page, which decodes them as they come near, and of one of 200 pictures, far beyond the window."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)) for _ in range(200)]
    data = []
    for picture in pictures:
        sink = io.BytesIO()
        picture.save(sink, "JPEG")
        data.append(Picture(sink.getvalue(), "picture"))
    long = tmp_path / "long.html"
    long.write_text("".join(f"<p style='height:150px'>{pages_filter(each)}</p>" for each in data))
    page = browser.new_page()
    page.goto(long.as_uri())
    assert page.pdf().count(b"/Subtype /Image") == 200
    page.goto(address)
    wanted = page.evaluate("new Set([...document.querySelectorAll('.shot')].map((shot) => shot.dataset.i)).size")
    assert page.pdf().count(b"/Subtype /Image") == wanted
    page.close()
