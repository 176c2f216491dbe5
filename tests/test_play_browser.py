"""``lanit play`` in a browser: drop a picture, tick a word, see it redrawn; by keyboard, on a phone, without a network.

Needs gradio, playwright and a Chromium of the system; nothing is downloaded.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cli
from pipeline.api import Model
from pipeline.sample_world.faces import draw_face, sample_face
from tests.browsing import visiting
from tests.children import fresh_child

# Importing it takes seconds, and every process that runs tests reads this file.
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed: the extra play"
)
pytestmark = [pytest.mark.slow, needs_gradio]

GRADIO_SAYS = "Method not implemented."  # a warning of Gradio's own, whenever it closes a stream of events


@dataclass
class Served:
    process: BaseProcess
    address: str
    folder: Path

    @property
    def reached_for(self) -> str:
        """What it tried to connect to besides this machine."""
        log = self.folder / "connections"
        return log.read_text() if log.exists() else ""

    @property
    def told(self) -> str:
        return (self.folder / "told").read_text()


def _play(folder: Path) -> None:
    """``lanit play`` in this process, which from now on connects to no other machine and writes into ``folder``."""

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(self: socket.socket, address: Any, *rest: Any) -> Any:
            if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "::1", "localhost")):
                with (folder / "connections").open("a") as log:
                    print(address, file=log)
                raise OSError("no network here")
            return method(self, address, *rest)

        return guarded

    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, watched(getattr(socket.socket, name)))
    tempfile.tempdir = str(folder / "temporary")
    os.chdir(folder)
    told = os.open(folder / "told", os.O_WRONLY | os.O_CREAT)
    os.dup2(told, 1)
    os.dup2(told, 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["lanit", "play", "--port", "0", "--device", "cpu"]
    cli.main()


def serve(folder: Path) -> Served:
    """``lanit play`` in a process of its own."""
    (folder / "temporary").mkdir()
    served = Served(fresh_child(_play, folder), "", folder)
    deadline = time.monotonic() + 300
    while not (found := re.search(r"http://127\.0\.0\.1:\d+/", served.told if (folder / "told").exists() else "")):
        assert served.process.is_alive(), served.told
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return replace(served, address=found[0])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = serve(tmp_path_factory.mktemp("play"))
    yield running
    running.process.terminate()
    running.process.join(20)
    assert running.reached_for == ""
    assert list((running.folder / "temporary").glob("lanit-play-*")) == []


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("sample", device="cpu")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, model: Model) -> list[Path]:
    """Of the sample world, without eyeglasses and with hair."""
    folder, found = tmp_path_factory.mktemp("faces"), []
    for number in range(20):
        path = folder / f"face {number}.png"
        Image.fromarray(draw_face(sample_face(77, number), 128)).save(path)
        if not {"eyeglasses", "bald"} & set(model.label(path).active):
            found.append(path)
    return found


@pytest.fixture
def visit(browser: Any, served: Served) -> Iterator[Callable[..., Any]]:
    """``visit(**options of a browser context)`` opens the page; at the end nothing may have gone wrong in any."""
    with visiting(browser, 60_000) as visits:

        def open_page(**options: Any) -> Any:
            page = visits.open(served.address, **options)
            page.locator("#words input").first.wait_for()
            return page

        yield open_page
    assert [text for text in visits.trouble if GRADIO_SAYS not in text] == []
    assert [url for url in visits.requests if not url.startswith((served.address, "data:", "blob:"))] == []


DROP = """([zone, data, name]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/png" }));
  const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
  for (const kind of ["dragenter", "dragover", "drop"])
    document.querySelector(zone).dispatchEvent(new DragEvent(kind, options));
}"""


def drop(page: Any, path: Path, zone: str = "#picture button") -> None:
    """As a hand does with the mouse."""
    page.evaluate(DROP, [zone, base64.b64encode(path.read_bytes()).decode(), path.name])


def give(page: Any, path: Path) -> None:
    page.locator("#picture input[type=file]").set_input_files(path)


def ticked(page: Any) -> set[str]:
    boxes = page.locator("#words label:has(input:checked)").all_inner_texts()
    return {text.strip() for text in boxes}


def wait_for(page: Any, condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never came")


def made(page: Any) -> list[str]:
    """Addresses of the redrawn pictures, which hold them; read at one moment, for they may be replaced at any."""
    return page.locator("#results .made img").evaluate_all("(images) => images.map((image) => image.src)")


def changes(page: Any, act: Callable[[], None]) -> list[str]:
    """The redrawn pictures after ``act``, which must change them."""
    before, now = made(page), list[str]()

    def changed() -> bool:
        now[:] = made(page)
        return bool(now) and now != before

    act()
    wait_for(page, changed)
    return now


def pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))


def row(page: Any, word: str) -> Any:
    return page.locator(f'#seen tr[data-word="{word}"]')


def test_a_dropped_face_shows_its_labels_and_a_ticked_word_appears_in_it(
    visit: Callable[..., Any], model: Model, faces: list[Path]
) -> None:
    page = visit()
    assert made(page) == []
    changes(page, lambda: drop(page, faces[0]))
    read = model.label(faces[0])
    wait_for(page, lambda: ticked(page) == set(read.active))
    for word, margin in read.margins.items():
        shown = row(page, word).locator(".number").first.inner_text().replace("\u2212", "-")
        assert float(shown) == pytest.approx(margin, abs=0.006)
    (after,) = changes(page, lambda: page.get_by_role("checkbox", name="eyeglasses").check())
    wanted = {*read.active, "eyeglasses"}
    wait_for(page, lambda: ticked(page) == wanted)
    expected = model.mix(faces[0], dict.fromkeys(wanted, 1.0), read.active)[0]
    assert np.abs(pixels(after).astype(int) - np.asarray(expected)).max() <= 1
    assert model.label(pixels(after)).margins["eyeglasses"] > 0 > read.margins["eyeglasses"]
    wait_for(page, lambda: "came" in row(page, "eyeglasses").locator(".verdict").inner_text())
    assert row(page, "eyeglasses").locator(".number.after").inner_text().startswith("+")
    changes(page, lambda: page.get_by_role("checkbox", name="eyeglasses").uncheck())
    wait_for(page, lambda: ticked(page) == set(read.active))


def test_words_that_exclude_each_other_are_not_ticked_together(visit: Callable[..., Any], faces: list[Path]) -> None:
    page = visit()
    for path in faces[:1]:
        changes(page, lambda path=path: give(page, path))
    for colour in ("red hair", "black hair", "blond hair"):
        if colour not in ticked(page):
            changes(page, lambda colour=colour: page.get_by_role("checkbox", name=colour).check())
        wait_for(page, lambda colour=colour: {word for word in ticked(page) if "hair" in word} == {colour})


def test_weights_styles_and_references_redraw(visit: Callable[..., Any], model: Model, faces: list[Path]) -> None:
    page = visit()
    changes(page, lambda: give(page, faces[0]))
    (plain,) = changes(page, lambda: page.get_by_role("checkbox", name="eyeglasses").check())
    page.get_by_role("button", name="How much of each word").click()
    slider = page.locator("#weights").get_by_role("slider", name="eyeglasses")
    slider.focus()
    (weighed,) = changes(page, lambda: [page.keyboard.press("ArrowLeft") for _ in range(12)])
    wait_for(page, lambda: slider.input_value() == "0.4")
    wait_for(page, lambda: page.locator("#weights").get_by_role("slider").count() == len(ticked(page)))
    read = model.label(faces[0]).active
    expected = np.asarray(model.mix(faces[0], dict.fromkeys(read, 1.0) | {"eyeglasses": 0.4}, read)[0])

    def as_expected() -> bool:
        return any(np.abs(pixels(one).astype(int) - expected).max() <= 1 for one in made(page))

    wait_for(page, as_expected)
    assert weighed != plain
    page.get_by_role("button", name="Style").click()
    changes(page, lambda: page.get_by_role("button", name="Draw another").click())
    style = page.get_by_role("slider", name="Styles side by side")
    style.focus()
    changes(page, lambda: page.keyboard.press("ArrowRight"))
    changes(page, lambda: page.keyboard.press("ArrowRight"))
    wait_for(page, lambda: len(set(made(page))) == 3)
    wait_for(page, lambda: "mean of 3 styles" in page.locator("#seen").inner_text())
    page.locator("#reference input[type=file]").set_input_files(faces[1])
    wait_for(page, lambda: len(made(page)) == 1)  # a reference gives one style
    page.get_by_role("button", name="Tick its words").click()
    wait_for(page, lambda: ticked(page) == set(model.label(faces[1]).active))


def test_the_keyboard_alone_picks_an_example_and_ticks_a_word(visit: Callable[..., Any]) -> None:
    page = visit()

    def tab_to(test: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(f"(() => {{ const e = document.activeElement; return {test}; }})()"):
                return
        raise AssertionError("out of reach")

    tab_to("e.textContent.trim() === 'Example 3'")
    changes(page, lambda: page.keyboard.press("Enter"))
    wait_for(page, lambda: bool(ticked(page)))
    had = ticked(page)
    tab_to("e.type === 'checkbox' && e.closest('label').innerText.trim() === 'smiling'")
    changes(page, lambda: page.keyboard.press("Space"))
    wait_for(page, lambda: ticked(page) == had ^ {"smiling"})
    assert page.evaluate("document.activeElement.type") == "checkbox", "the focus stays"


def test_a_picture_of_another_kind_is_remarked_on_and_a_broken_one_stops_nothing(
    visit: Callable[..., Any], faces: list[Path], tmp_path: Path
) -> None:
    page = visit()
    notice = page.locator("#notice")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    changes(page, lambda: give(page, tmp_path / "noise.png"))
    wait_for(page, lambda: "unlike those that the model knows" in notice.inner_text())
    page.get_by_role("button", name="Remove Image").first.click()
    wait_for(page, lambda: made(page) == [] and not ticked(page) and "unlike" not in notice.inner_text())
    cut = faces[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(cut[: len(cut) // 2])
    give(page, tmp_path / "cut.png")
    wait_for(page, lambda: "truncated" in notice.inner_text() or "damaged" in notice.inner_text())
    page.get_by_role("button", name="Remove Image").first.click()
    wait_for(page, lambda: notice.inner_text().strip() == "")
    changes(page, lambda: give(page, faces[1]))
    assert "unlike" not in notice.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(visit: Callable[..., Any], scheme: str, faces: list[Path]) -> None:
    page = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    changes(page, lambda: give(page, faces[0]))
    changes(page, lambda: page.get_by_role("checkbox", name="eyeglasses").tap())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for part in (".verdict", ".number.after"):
        box = row(page, "eyeglasses").locator(part).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    for name in ("How much of each word", "Style"):
        page.get_by_role("button", name=name).tap()
    page.get_by_role("button", name="Draw another").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def luminance(colour: str) -> float:
    """Relative luminance of an opaque CSS colour, from 0 to 1 (WCAG 2.2)."""
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


BEHIND = """(e) => {
  for (let x = e; x; x = x.parentElement) {
    const colour = getComputedStyle(x).backgroundColor;
    if (!/, 0\\)|transparent/.test(colour)) return colour;
  }
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_in_the_dark(visit: Callable[..., Any], scheme: str, faces: list[Path]) -> None:
    page = visit(color_scheme=scheme)
    changes(page, lambda: give(page, faces[0]))
    changes(page, lambda: page.get_by_role("checkbox", name="eyeglasses").check())
    assert (luminance(page.locator("h1").evaluate(BEHIND)) > 0.5) == (scheme == "light")
    for selector in ("h1", ".lead", ".remark", ".step p", "#words label span", "#results figcaption", "#results a",
                     "#seen thead th", "#seen .number", "#seen .verdict.good"):  # fmt: skip
        element = page.locator(selector).first
        ink, paper = (
            luminance(element.evaluate("(e) => getComputedStyle(e).color")),
            luminance(element.evaluate(BEHIND)),
        )
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, selector


def test_ctrl_c_ends_it_and_forgets_the_pictures(tmp_path: Path, browser: Any, faces: list[Path]) -> None:
    running = serve(tmp_path)
    page = browser.new_page()
    page.goto(running.address)
    page.locator("#words input").first.wait_for()
    changes(page, lambda: give(page, faces[0]))
    assert list((tmp_path / "temporary").rglob("face*.png")), "while it runs, the picture is there"
    assert running.process.pid is not None
    os.kill(running.process.pid, signal.SIGINT)
    running.process.join(20)
    assert running.process.exitcode == 0, running.told
    assert "Traceback" not in running.told
    assert list((tmp_path / "temporary").rglob("*.png")) == []
    page.close()
