"""The page of ``lanit play`` without a browser: what is mixed, what is ticked, what looks familiar, what is said."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import cli
from lanit.errors import LanitError, UsageError
from pipeline.api import Labels, Model
from pipeline.decoding.squares import fit_square
from pipeline.models.bundle import Bundle, save_bundle
from pipeline.play import server
from pipeline.play.familiarity import Familiarity
from pipeline.play.panels import margin_rows, notice, remarks, results
from pipeline.play.server import PlayOptions, play
from pipeline.play.workbench import (
    Reading,
    Result,
    Wish,
    Workbench,
    drawn_faces,
    stored_pictures,
    write_examples,
)
from pipeline.sample_world.faces import draw_face, sample_face
from pipeline.serving.listening import address, is_local, listening
from tests.model_builders import DOMAINS, random_bundle

SIZE = 32


@pytest.fixture
def bundle(tiny_clip: Any) -> Bundle:
    return random_bundle(SIZE, clip=tiny_clip)


@pytest.fixture
def model(bundle: Bundle, tmp_path: Path) -> Model:
    save_bundle(tmp_path / "model", bundle)
    return Model(str(tmp_path / "model"), device="cpu")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (47, 61, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def sample() -> Workbench:
    return Workbench(Model("sample", device="cpu"), drawn_faces())


def as_batch(path: Path) -> torch.Tensor:
    square = torch.from_numpy(fit_square(np.asarray(Image.open(path)), SIZE).copy())
    return square.permute(2, 0, 1)[None].float() / 127.5 - 1


def expected_pixels(bundle: Bundle, batch: torch.Tensor, style: torch.Tensor) -> np.ndarray:
    image = bundle.networks.generator(batch, style).clamp(-1, 1)[0]
    return ((image.permute(1, 2, 0) + 1) / 2 * 255).round().numpy().astype(int)


def latents(seed: int, count: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randn(1, 16, generator=random) for _ in range(count)])


@torch.no_grad()
@pytest.mark.parametrize("keep", [True, False])
def test_a_mix_weighs_kept_styles_with_drawn_ones(model: Model, bundle: Bundle, picture: Path, keep: bool) -> None:
    nets, batch = bundle.networks, as_batch(picture)
    own, drawn = nets.style_encoder(batch)[0], nets.mapping(latents(5, 3))
    weights = {DOMAINS[2]: 0.25, DOMAINS[0]: 0.5}
    made = model.mix(picture, weights, own=[DOMAINS[0], DOMAINS[1]] if keep else [], seed=5, styles=3)
    assert len(made) == 3
    for code, image in zip(drawn, made, strict=True):
        first = own[0] if keep else code[0]
        style = (first * 0.5 + code[2] * 0.25) / 0.75
        assert np.abs(np.asarray(image).astype(int) - expected_pixels(bundle, batch, style[None])).max() <= 1
    assert len({image.tobytes() for image in made}) == 3


@torch.no_grad()
def test_a_mix_takes_what_is_not_kept_from_the_reference(
    model: Model, bundle: Bundle, picture: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "r.png")
    nets, batch = bundle.networks, as_batch(picture)
    own, other = nets.style_encoder(batch)[0], nets.style_encoder(as_batch(tmp_path / "r.png"))[0]
    style = (own[1] + other[2]) / 2
    (made,) = model.mix(picture, {DOMAINS[1]: 1, DOMAINS[2]: 1}, [DOMAINS[1]], tmp_path / "r.png")
    assert np.abs(np.asarray(made).astype(int) - expected_pixels(bundle, batch, style[None])).max() <= 1
    (none,) = model.mix(picture, {}, [DOMAINS[1]], tmp_path / "r.png")
    assert np.abs(np.asarray(none).astype(int) - expected_pixels(bundle, batch, other[None, -1])).max() <= 1


def test_a_mix_reads_the_labels_that_it_is_not_told(model: Model, picture: Path) -> None:
    weights = dict.fromkeys(DOMAINS, 1.0)
    told = model.mix(picture, weights, model.label(picture).active)[0]
    assert model.mix(picture, weights)[0].tobytes() == told.tobytes()


def test_a_mix_refuses_what_makes_no_sense(model: Model, picture: Path) -> None:
    for refused in ({"styles": 0}, {"styles": 2, "reference": picture}):
        with pytest.raises(UsageError):
            model.mix(picture, {}, **refused)
    with pytest.raises(UsageError):
        model.mix(picture, {DOMAINS[0]: -0.1})
    with pytest.raises(LanitError, match="not a domain"):
        model.mix(picture, {"a zeppelin": 1})


def test_ticking_a_word_unticks_those_that_cannot_stand_beside_it(sample: Workbench) -> None:
    assert sample.tick((), ["smiling", "black hair"]) == ("black hair", "smiling")
    assert sample.tick(("black hair", "smiling"), ["black hair", "smiling", "red hair"]) == ("red hair", "smiling")
    assert sample.tick(("red hair", "bangs"), ["red hair", "bangs", "bald"]) == ("bald",)
    assert sample.tick(("red hair", "bangs"), ["bangs"]) == ("bangs",), "unticking unticks nothing else"


def test_a_face_that_is_given_a_word_shows_it_and_keeps_the_others(sample: Workbench, tmp_path: Path) -> None:
    shown = 0
    for number in range(8):
        Image.fromarray(draw_face(sample_face(77, number), 96)).save(tmp_path / "face.png")
        reading = sample.read(tmp_path / "face.png")
        ticked = sample.tick(reading.labels.active, [*reading.labels.active, "eyeglasses"])
        (result,) = sample.redraw(reading, Wish(dict.fromkeys(ticked, 1.0)))
        shown += set(result.labels.active) == set(ticked)
    assert shown >= 6


def test_faces_look_familiar_and_other_pictures_do_not(sample: Workbench, tmp_path: Path) -> None:
    def familiar(image: np.ndarray) -> bool | None:
        Image.fromarray(image).save(tmp_path / "x.png")
        return sample.read(tmp_path / "x.png").familiar

    assert sum(familiar(draw_face(sample_face(5, n), 64)) is True for n in range(40)) >= 37
    rng, ramp = np.random.default_rng(0), np.linspace(0, 255, 64)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    stripes = np.broadcast_to(np.where(ramp % 64 > 32, 255, 0).astype(np.uint8)[:, None, None], (64, 64, 3))
    slope = np.broadcast_to(ramp.astype(np.uint8)[None, :, None], (64, 64, 3))
    for image in (noise, stripes, slope, np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8)):
        assert familiar(np.ascontiguousarray(image)) is False


def test_familiarity_is_mahalanobis_distance_up_to_the_farthest_held_out_picture() -> None:
    known = torch.randn(41, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = Familiarity(lambda images: images, known)
    means = known.double().mean(dim=(2, 3)).numpy()
    fitted, others = means[:31], means[31:]
    covariance = np.cov(fitted.T)
    covariance += 1e-3 * np.trace(covariance) / 3 * np.eye(3)

    def distance(rows: np.ndarray) -> np.ndarray:
        away = rows - fitted.mean(axis=0)
        return np.sqrt(np.einsum("ij,ij->i", away, np.linalg.solve(covariance, away.T).T))

    assert found.limit == pytest.approx(distance(others).max(), rel=1e-6)
    np.testing.assert_allclose(found.distances(known[:5]).numpy(), distance(means[:5]), rtol=1e-6)


def test_no_model_claims_to_know_pictures_that_it_was_not_shown(model: Model, picture: Path) -> None:
    assert Workbench(model).read(picture).familiar is None
    assert Workbench(model, np.zeros((7, 8, 8, 3), np.uint8)).read(picture).familiar is None


def labels(**margins: float) -> Labels:
    return Labels(margins, tuple(word for word, margin in margins.items() if margin > 0))


def reading(found: Labels, familiar: bool | None = True) -> Reading:
    return Reading(np.zeros((4, 4, 3), np.uint8), found, familiar)


def test_margins_tell_what_became_of_every_word() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    before = labels(a=0.1, b=-0.2, c=0.3, d=-0.4, e=0.1, f=-0.1)
    one = Result(black, labels(a=0.2, b=0.1, c=-0.1, d=0.2, e=0.1, f=-0.1))
    two = Result(black, labels(a=0.2, b=-0.3, c=-0.1, d=-0.2, e=-0.1, f=-0.1))
    rows = {row.word: row for row in margin_rows(reading(before), [one], "abf")}
    told = {word: (row.verdict, row.good) for word, row in rows.items()}
    assert told == {"a": ("still there", True), "b": ("came", True), "c": ("gone", True), "d": ("came along", False),
                    "e": ("still there", False), "f": ("not seen", False)}  # fmt: skip
    assert (rows["d"].start, rows["d"].end) == (0, pytest.approx(75)), "the farthest margin reaches the edge"
    rows = {row.word: row for row in margin_rows(reading(before), [one, two], "abf")}
    assert rows["b"].after == pytest.approx(-0.1), "the mean of the styles"
    assert [rows[word].verdict for word in "bde"] == ["seen in 1 of 2", "came along in 1 of 2", "still there in 1 of 2"]
    assert all(row.verdict == "" for row in margin_rows(reading(before), [], "abf"))


def test_a_person_is_told_where_little_can_be_expected() -> None:
    assert "unlike" in remarks(reading(labels(a=0.1), familiar=False), "CLIP")
    found = remarks(reading(labels(a=-0.1)), "the guiding network").replace("&#39;", "'")
    assert "None of the model's words is seen in it by the guiding network" in found
    for familiar in (True, None):
        assert "<p" not in remarks(reading(labels(a=0.1), familiar), "CLIP")


def test_what_visitors_give_is_text_and_never_markup() -> None:
    assert "<img" not in notice("cannot read <img src=x onerror=alert(1)>.png")
    assert results(None, []).count("<img") == 0
    assert results(reading(labels(a=1)), []).count("<img") == 1


def test_without_gradio_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(cli.app, ["play"])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert 'pip install "gradio>=' in line


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "check_installed", lambda: None)
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LanitError, match=f"port {port} is in use"):
            play(PlayOptions(port=port), print)
    with pytest.raises(UsageError), listening("host.invalid", 0):
        pass
    with pytest.raises(UsageError, match="cannot listen"), listening("203.0.113.7", 0):
        pass


def test_the_address_is_one_that_this_machine_can_open() -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        with listening(host, 0) as listener:
            assert address(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}/"
    assert is_local("127.0.0.1")
    assert is_local("localhost")
    assert is_local("::1")
    assert not is_local("0.0.0.0")
    assert not is_local("example.org")


def test_a_store_lends_its_pictures(make_images: Any, make_labelled_store: Any, tmp_path: Path) -> None:
    folder = make_images(9)
    store = make_labelled_store(folder, None)
    known = stored_pictures(store.root, 16)
    squares = [fit_square(np.asarray(Image.open(path)), 16) for path in sorted(folder.rglob("*.png"))]
    assert {image.tobytes() for image in known} == {square.tobytes() for square in squares}
    written = write_examples(known, tmp_path)
    assert [np.asarray(Image.open(path)).tobytes() for path in written] == [image.tobytes() for image in known]
    with pytest.raises(LanitError):
        stored_pictures(tmp_path / "nowhere", 16)
