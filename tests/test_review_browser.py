"""``lanit review`` in a browser: by keys alone, on a phone, in the dark, by names that a screen reader says.

Needs the extra review, playwright and a Chromium of the system; nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.labelling.people import read_people
from pipeline.review.server import ReviewOptions, build_app
from pipeline.serving.listening import address, listening
from pipeline.store.store import Store
from tests.browsing import visiting

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("starlette") is None, reason="starlette is not installed: the extra review"
)

DOMAINS = ("smiling", "eyeglasses", "<b>hat</b>")


@pytest.fixture
def store(tmp_path: Path, make_labelled_store: Callable[..., Store]) -> Store:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"{n:03d}.png" for n in range(60)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / name)
    labels = {"smiling": {*names[:24]}, "eyeglasses": {*names[20:31]}, "<b>hat</b>": {*names[:6]}}
    return make_labelled_store(folder, labels, part_rows=25)


@pytest.fixture
def served(store: Store) -> Iterator[str]:
    import uvicorn

    with listening("127.0.0.1", 0) as listener:
        app = build_app(ReviewOptions(store=store.root))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        yield address(listener)
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def visit(browser: Any, served: str) -> Iterator[Callable[..., Any]]:
    """``visit(**options of a browser context)`` opens the page; at the end nothing may have gone wrong in any."""
    with visiting(browser, 30_000) as visits:

        def open_page(**options: Any) -> Any:
            page = visits.open(served, **options)
            page.wait_for_function("document.getElementById('shown').dataset.row !== ''")
            page.wait_for_function("document.querySelectorAll('.chip').length === 3")
            return page

        yield open_page
    assert visits.trouble == []
    assert [url for url in visits.requests if not url.startswith((served, "blob:"))] == []


def at(page: Any) -> int:
    """The row under the cursor, once it is shown."""
    return int(page.locator("#shown").get_attribute("data-row"))


def press(page: Any, key: str, moves: bool = True) -> None:
    before = page.locator("#shown").get_attribute("data-row")
    page.keyboard.press(key)
    if moves:
        page.wait_for_function("row => document.getElementById('shown').dataset.row !== row", arg=before)


def said(store: Store) -> dict[tuple[int, str], bool | None]:
    return {(int(row["path"][:3]), row["phrase"]): row["label"] for row in read_people(store).table.to_pylist()}


def eventually(store: Store, expected: dict[tuple[int, str], bool | None]) -> None:
    deadline = time.monotonic() + 20
    while said(store) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    assert said(store) == expected


def test_the_keyboard_alone_answers_undoes_and_moves(visit: Callable[..., Any], store: Store) -> None:
    page, labels = visit(), store.labels().active
    nearness = np.abs(store.labels().margin[:, 0])
    order = np.argsort(nearness, kind="stable").tolist()
    first, second, third, fourth = order[:4]
    page.locator("#queue").select_option("near")
    page.wait_for_function("row => document.getElementById('shown').dataset.row === row", arg=str(first))
    page.locator("#grid").focus()
    assert at(page) == first
    press(page, "x")
    assert at(page) == second, "on to the next"
    press(page, "Space")
    expected: dict[tuple[int, str], bool | None] = {
        (first, "smiling"): not labels[first, 0], (second, "smiling"): bool(labels[second, 0])
    }  # fmt: skip
    assert said(store) == expected, "what the page shows as done is on the disk"
    press(page, "2", moves=False)
    eventually(store, expected | {(third, "eyeglasses"): not labels[third, 1]})
    press(page, "u", moves=False)
    eventually(store, expected | {(third, "eyeglasses"): None})
    press(page, "j")
    press(page, "ArrowRight")
    press(page, "k")
    assert at(page) == fourth
    press(page, "Shift+J")
    press(page, "x", moves=False)
    fifth = order[4]
    both = {(row, "smiling"): not labels[row, 0] for row in (fourth, fifth)}
    eventually(store, expected | {(third, "eyeglasses"): None} | both)
    press(page, "]", moves=False)
    page.wait_for_function("document.getElementById('phrase').value === '1'")
    press(page, "?", moves=False)
    assert page.locator("#help").is_visible()
    press(page, "Escape", moves=False)
    assert not page.locator("#help").is_visible()
    press(page, "/", moves=False)
    page.keyboard.press("Enter")  # the words left empty: like the image under the cursor
    page.wait_for_function("document.getElementById('queue').value === 'found'")
    assert page.locator("#trouble").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_answers_by_touch_and_nothing_is_wider(visit: Callable[..., Any], store: Store, scheme: str) -> None:
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, color_scheme=scheme)
    row = at(page)
    page.locator("#wrong").tap()
    page.wait_for_function("row => document.getElementById('shown').dataset.row !== row", arg=str(row))
    assert said(store) == {(row, "smiling"): not store.labels().active[row, 0]}
    page.locator("#undo").tap()
    eventually(store, {(row, "smiling"): None})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#shown").bounding_box()["y"] < page.locator("#figures-of").bounding_box()["y"]
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in paper[4:-1].split(",")) < 200) == (scheme == "dark")
    for name in ("open-map", "open-try", "open-help"):
        assert page.locator(f"#{name}").bounding_box()["width"] > 30


def test_every_control_has_a_name_and_images_of_a_list_say_what_they_are(visit: Callable[..., Any]) -> None:
    page = visit()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, [role=option], dialog, section, svg, canvas')]
        .filter((e) => !(e.getAttribute('aria-label') || e.labels?.length || e.getAttribute('aria-labelledby')
                         || e.textContent.trim()))
        .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    options = page.locator("[role=option]").evaluate_all("all => all.map((e) => e.getAttribute('aria-label'))")
    assert all(text.startswith("Image ") and "smiling, margin" in text for text in options)
    assert page.locator("#grid").get_attribute("aria-activedescendant") == "at-0"
    assert page.locator("#chips b").count() == 0, "a phrase is text, whatever it looks like"


def test_dragging_selects_many_and_two_pages_see_each_others_answers(visit: Callable[..., Any], store: Store) -> None:
    page, other = visit(), visit()
    cells = [page.locator(f"#at-{n}").bounding_box() for n in (0, 2)]
    page.mouse.move(cells[0]["x"] + 10, cells[0]["y"] + 10)
    page.mouse.down()
    page.mouse.move(cells[1]["x"] + 20, cells[1]["y"] + 30, steps=4)
    page.mouse.up()
    assert page.locator(".cell.selected").count() == 3
    page.keyboard.press("x")
    deadline = time.monotonic() + 20
    while len(said(store)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(said(store)) == 3
    other.wait_for_function("document.querySelectorAll('.cell.people').length === 3")


def test_the_map_is_drawn_and_what_is_in_view_becomes_the_list(visit: Callable[..., Any], store: Store) -> None:
    """Points as the command would keep them: laying out is tested without a browser."""
    import hashlib

    from pipeline.store.caches import keep_array

    key = hashlib.sha256(store.parts_array().tobytes()).hexdigest()[:12]
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (store.ok, 2)).astype(np.float32)
    (store.root / "cache").mkdir(exist_ok=True)
    keep_array(store.root / "cache" / f"map-{key}.npy", points)
    context = visit().context
    page = context.new_page()  # software rendering remarks on itself in the console
    page.goto(context.pages[0].url)
    page.wait_for_function("document.getElementById('shown').dataset.row !== ''")
    page.keyboard.press("m")
    page.wait_for_function("document.getElementById('canvas').dataset.drawn === '60'")
    page.locator("#colours").select_option("margin")
    page.locator("#take-view").click()
    page.wait_for_function("document.getElementById('queue').value === 'found'")
    assert page.locator("#left").inner_text().startswith("1 of 60")
