"""The page beside the ONNX files computes what torch does, on pictures of its user; by keyboard, on a phone, from disk.

Needs the extra onnx, playwright and a Chromium of the system; nothing is downloaded.
"""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.api import Model
from pipeline.decoding.squares import fit_square
from pipeline.model_exports import browser_page
from pipeline.model_exports.browser_page import RUNTIME_VERSION, write_browser_page
from pipeline.model_exports.export_model import ExportModelReport, export_model
from pipeline.model_exports.terminal_tables import show_export_model
from pipeline.models.bundle import load_bundle, save_bundle
from tests.browsing import Visits, visiting
from tests.model_builders import DOMAINS, random_bundle

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.slow
SIZE = 32
ASSETS = Path(browser_page.__file__).parents[1] / "assets" / "onnxruntime-web"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, shape in (("a wide one", (47, 61, 3)), ("tall", (300, 200, 3)), ("tiny", (20, 23, 3))):
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    save_bundle(folder / "model", random_bundle(SIZE))
    export_model(folder / "model", folder / "out", onnx=True)
    return folder / "out"


@pytest.fixture
def visits(browser: Any) -> Iterator[Visits]:
    """Nothing is said on the console, nothing raised, nothing asked for but the page and what it holds."""
    with visiting(browser, 60_000) as found:
        yield found
    assert found.trouble == []
    assert [each for each in found.requests if not each.startswith(("file:", "blob:", "data:"))] == []


def opened(visits: Visits, export: Path, **options: Any) -> Any:
    page = visits.open((export / "onnx" / "translate.html").as_uri(), **options)
    page.wait_for_selector("#bench:not([inert])")
    return page


def pixels_of(page: Any, canvas: str) -> np.ndarray:
    """uint8 (S×S×3)."""
    address = page.locator(canvas).evaluate("canvas => canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB"))


@torch.no_grad()
def test_the_difference_to_torch_is_at_most_a_thousandth(visits: Visits, export: Path) -> None:
    page, networks = opened(visits, export), load_bundle(export).networks
    image, other = torch.rand(2, 1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    drawn = networks.mapping(torch.randn(1, 16, generator=torch.Generator().manual_seed(7)))[0]
    own, taken = networks.style_encoder(image)[0], networks.style_encoder(other)[0]
    for words, seed, reference, style in (
        ([(1, 1.0, False)], 7, None, drawn[1]),
        ([(0, 0.25, False), (2, 0.5, True)], 7, None, (drawn[0] * 0.25 + own[2] * 0.5) / 0.75),
        ([(0, 1.0, False), (1, 0.5, False)], 7, other, (taken[0] + taken[1] * 0.5) / 1.5),
    ):
        expected = networks.generator(image, style[None])[0].numpy()
        made = page.evaluate(
            """async ([image, words, seed, reference]) => Array.from(await lanit.translate(
                 Float32Array.from(image), words, seed, reference && Float32Array.from(reference)))""",
            [
                image.flatten().tolist(),
                [{"index": index, "weight": weight, "keep": keep} for index, weight, keep in words],
                seed,
                None if reference is None else reference.flatten().tolist(),
            ],
        )
        difference = np.abs(np.array(made).reshape(expected.shape) - expected).max()
        assert difference <= 1e-3, words
        assert expected.std() > 0.05


def test_a_seed_draws_what_torch_draws(visits: Visits, export: Path) -> None:
    page = opened(visits, export)
    for seed in (0, 7, 2**31, 2**32 - 1):
        for length in (1, 5, 6, 16, 20, 33, 64):
            expected = torch.randn(1, length, generator=torch.Generator().manual_seed(seed))[0].numpy()
            made = page.evaluate("([seed, length]) => Array.from(lanit.latent(seed, length))", [seed, length])
            np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6, err_msg=f"{seed}, {length}")


def test_pictures_are_cut_and_resized_to_the_last_bit_as_training_does_it(visits: Visits, export: Path) -> None:
    page, random = opened(visits, export), np.random.default_rng(3)
    for height, width in ((47, 61), (101, 66), (20, 23), (32, 32), (32, 40), (33, 31), (1, 7)):
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        data = np.concatenate([image, np.full((height, width, 1), 255, np.uint8)], axis=2)
        made = page.evaluate(
            """([width, height, data]) =>
              Array.from(lanit.square({ width, height, data: Uint8ClampedArray.from(data) }))""",
            [width, height, data.flatten().tolist()],
        )
        found = np.array(made, np.uint8).reshape(SIZE, SIZE, 4)[..., :3]
        np.testing.assert_array_equal(found, fit_square(image, SIZE), err_msg=f"{height}×{width}")


def test_a_picture_of_the_user_becomes_what_python_makes_of_it(visits: Visits, export: Path, pictures: Path) -> None:
    page, model, picture = opened(visits, export), Model(export, device="cpu"), pictures / "a wide one.png"
    page.set_input_files("#picture", picture)
    page.get_by_text("Now tick what it shall show.").wait_for()
    page.get_by_label(DOMAINS[0], exact=True).check()
    page.get_by_text(f"{DOMAINS[0]}: in").wait_for()
    (expected,) = model.mix(picture, {DOMAINS[0]: 1}, own=[])
    assert np.abs(pixels_of(page, "#made").astype(int) - np.asarray(expected)).max() <= 1
    page.get_by_label(DOMAINS[2], exact=True).check()
    page.get_by_label(f"{DOMAINS[2]}: as in the picture").check()
    page.get_by_label(f"How much of {DOMAINS[0]}").fill("0.5")
    page.get_by_label("Seed").fill("4")
    page.get_by_text(f"{DOMAINS[0]}, {DOMAINS[2]}: in").wait_for()
    page.wait_for_selector("#result:not([aria-busy])")
    (expected,) = model.mix(picture, {DOMAINS[0]: 0.5, DOMAINS[2]: 1}, own=[DOMAINS[2]], seed=4)
    assert np.abs(pixels_of(page, "#made").astype(int) - np.asarray(expected)).max() <= 1
    page.set_input_files("#reference", pictures / "tall.png")
    page.wait_for_selector("#style-given:visible")
    page.wait_for_selector("#result:not([aria-busy])")
    (expected,) = model.mix(picture, {DOMAINS[0]: 0.5, DOMAINS[2]: 1}, [DOMAINS[2]], pictures / "tall.png")
    assert np.abs(pixels_of(page, "#made").astype(int) - np.asarray(expected)).max() <= 1
    assert page.get_by_label("Seed").is_disabled()
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Save as PNG").click()
    assert waiting.value.suggested_filename == "translated.png"
    saved = np.asarray(Image.open(waiting.value.path()).convert("RGB"))
    np.testing.assert_array_equal(saved, pixels_of(page, "#made"))


def test_a_word_unticks_those_that_cannot_stand_beside_it(visits: Visits, export: Path) -> None:
    page = opened(visits, export)
    blond, black, other = (page.get_by_label(name, exact=True) for name in DOMAINS)
    blond.check()
    other.check()
    black.check()
    assert [box.is_checked() for box in (blond, black, other)] == [False, True, True]


def test_a_picture_can_be_dropped_and_what_is_none_is_said_so(visits: Visits, export: Path, pictures: Path) -> None:
    page = opened(visits, export)
    drop = """([name, data]) => {
      const given = new DataTransfer();
      given.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name));
      document.querySelector(".drop").dispatchEvent(
        new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true }));
    }"""
    page.evaluate(drop, ["letter.txt", base64.b64encode(b"no picture").decode()])
    page.get_by_text("letter.txt is no picture that this browser can read").wait_for()
    picture = pictures / "tall.png"
    page.evaluate(drop, ["tall.png", base64.b64encode(picture.read_bytes()).decode()])
    page.wait_for_selector("#given:visible")
    np.testing.assert_array_equal(pixels_of(page, "#before"), fit_square(np.asarray(Image.open(picture)), SIZE))


def test_it_goes_by_keyboard_alone(visits: Visits, export: Path, pictures: Path) -> None:
    page = opened(visits, export)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "picture"
    page.set_input_files("#picture", pictures / "tall.png")  # the dialog is the browser's
    page.get_by_text("Now tick what it shall show.").wait_for()
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        at = page.evaluate(
            """() => {
              const at = document.activeElement;
              return at !== document.body && {
                name: (at.labels?.[0] ?? at).textContent.trim(),
                outline: getComputedStyle(at.closest(".drop") ?? at).outlineStyle,
              };
            }"""
        )
        if not at:
            break
        reached.append(at["name"])
        assert at["outline"] != "none", f"it is seen where one is: {at['name']}"
        if at["name"] == DOMAINS[0]:
            page.keyboard.press("Space")
    page.get_by_text(f"{DOMAINS[0]}: in").wait_for()
    for wanted in (*DOMAINS, "as in the picture", "Seed", "Draw another"):
        assert wanted in reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_the_colours_of_the_system(
    visits: Visits, export: Path, pictures: Path, scheme: str
) -> None:
    page = opened(visits, export, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.set_input_files("#picture", pictures / "tall.png")
    for name in DOMAINS[1:]:
        page.get_by_label(name, exact=True).check()
    page.wait_for_selector("#result.there")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    light = np.mean(
        page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")
    )
    assert (light > 200) == (scheme == "light")
    page.get_by_label(DOMAINS[2], exact=True).scroll_into_view_if_needed()
    box = page.locator("#made").bounding_box()
    assert box["y"] + box["height"] > 0, "the result is in sight while words are ticked"


def test_a_large_model_is_read_from_beside_the_page_by_a_server(
    browser: Any, export: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder = tmp_path / "onnx"
    folder.mkdir()
    for name in ("generator.onnx", "style_encoder.onnx", "mapping.onnx", "networks.json"):
        (folder / name).write_bytes((export / "onnx" / name).read_bytes())
    monkeypatch.setattr(browser_page, "MOST_INSIDE", 100)
    assert not write_browser_page(folder, 16, None)
    assert (folder / "translate.html").stat().st_size < 7 << 20
    with visiting(browser, 60_000) as visits:
        page = visits.open((folder / "translate.html").as_uri())
        page.get_by_text("generator.onnx cannot be read: serve this folder").wait_for()
    serving = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{serving.server_port}"
    with visiting(browser, 60_000) as visits:
        page = visits.open(f"{address}/translate.html")
        page.wait_for_selector("#bench:not([inert])")
        page.set_input_files("#picture", pictures / "tall.png")
        page.get_by_label(DOMAINS[1], exact=True).check()
        page.wait_for_selector("#result.there")
        (expected,) = Model(export, device="cpu").mix(pictures / "tall.png", {DOMAINS[1]: 1}, own=[])
        assert np.abs(pixels_of(page, "#made").astype(int) - np.asarray(expected)).max() <= 1
    serving.shutdown()
    serving.server_close()
    assert visits.trouble == []
    assert {each.split("/")[2] for each in visits.requests if each.startswith("http")} == {address.split("/")[2]}
    report = ExportModelReport("my out", "run", 3, 32, False, {}, {}, False)
    show_export_model(report)
    assert "python -m http.server --bind 127.0.0.1 --directory 'my out/onnx'" in capsys.readouterr().out


def test_pictures_to_try_are_those_of_the_card(
    visits: Visits, tiny_clip: Any, tiny_clip_folder: Path, export: Path, pictures: Path, tmp_path: Path
) -> None:
    from pipeline.model_exports.examples import make_examples

    bundle = random_bundle(SIZE, clip=tiny_clip, spec=str(tiny_clip_folder))
    save_bundle(tmp_path / "model", bundle)
    shown = make_examples(tmp_path / "model", bundle, [pictures], None)
    assert shown is not None
    folder = tmp_path / "out" / "onnx"
    folder.mkdir(parents=True)
    for name in ("generator.onnx", "style_encoder.onnx", "mapping.onnx", "networks.json"):
        (folder / name).write_bytes((export / "onnx" / name).read_bytes())
    write_browser_page(folder, 16, shown)
    page = opened(visits, tmp_path / "out")
    page.get_by_role("button", name="Picture 2 to try").click()
    page.wait_for_selector("#given:visible")
    np.testing.assert_array_equal(pixels_of(page, "#before"), shown.sources[1])


def test_the_runtime_is_the_one_of_npm_that_the_notice_names() -> None:
    import gzip
    from hashlib import sha256

    notice = (ASSETS / "NOTICE.txt").read_text(encoding="utf-8")
    script = (ASSETS / "ort.wasm.bundle.min.mjs").read_bytes()
    assert sha256(script).hexdigest() in notice
    assert sha256(gzip.decompress((ASSETS / "ort-wasm-simd-threaded.wasm.gz").read_bytes())).hexdigest() in notice
    assert f"onnxruntime-web {RUNTIME_VERSION}, of npm" in notice
    assert f"ONNX Runtime Web v{RUNTIME_VERSION}".encode() in script
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 5_000_000
