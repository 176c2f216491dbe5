"""References, several styles of an image, and the way from one style to another."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lanit.errors import LanitError, UsageError
from pipeline.models.bundle import load_bundle
from pipeline.translating.pictures import encode_film
from pipeline.translating.requests import TranslateRequest, interpolation_options, parse_references
from pipeline.translating.translation import translate
from tests.translation_world import (
    DOMAINS,
    as_batch,
    good,
    latent,
    make_model,
    make_source,
    own_labels,
    pictures,
    pixels,
    table,
    to_pixels,
)


@pytest.fixture
def source(make_images: Callable[..., Path]) -> Path:
    return make_source(make_images)


@pytest.fixture
def model(source: Path, tiny_clip: Any, tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", source, tiny_clip)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("with_to", [True, False])
def test_a_reference_gives_its_style(source: Path, model: Path, tiny_clip: Any, tmp_path: Path, with_to: bool) -> None:
    """Under --to its style in those domains; alone, in the domains it has itself."""
    bundle = load_bundle(model)
    names = good(source)
    reference = next(source / name for name in names if own_labels(bundle, tiny_clip, source / name))
    wanted = {"black hair", "hat"} if with_to else own_labels(bundle, tiny_clip, reference)
    to = tuple((name, 1.0) for name in sorted(wanted)) if with_to else ()
    translate(source, tmp_path / "out", model, TranslateRequest(to=to, reference=reference))
    codes = bundle.networks.style_encoder(as_batch(reference))[0]
    style = torch.stack([codes[DOMAINS.index(n)] for n in wanted]).mean(dim=0)
    for name in names:
        expected = to_pixels(bundle.networks.generator(as_batch(source / name), style[None]))
        assert np.abs(pixels(tmp_path / "out" / name) - expected).max() <= 1


def test_a_reference_serves_added_domains_and_the_image_its_own(
    source: Path, model: Path, tiny_clip: Any, tmp_path: Path
) -> None:
    bundle = load_bundle(model)
    names = good(source)
    translate(source, tmp_path / "out", model, TranslateRequest(add=("hat",), reference=source / names[0]))
    codes = bundle.networks.style_encoder(as_batch(source / names[0]))[0]
    mixed = 0
    for name in names:
        image = as_batch(source / name)
        encoded = bundle.networks.style_encoder(image)[0]
        others = own_labels(bundle, tiny_clip, source / name) - {"hat"}
        mixed += bool(others)
        style = torch.stack([codes[2], *(encoded[DOMAINS.index(n)] for n in others)]).mean(dim=0)
        expected = to_pixels(bundle.networks.generator(image, style[None]))
        assert np.abs(pixels(tmp_path / "out" / name) - expected).max() <= 1
    assert mixed > 2


def test_a_folder_of_references_counts_by_its_mean_style(
    source: Path, model: Path, tiny_clip: Any, tmp_path: Path
) -> None:
    """Broken images in it are left out, and said so; alone, it asks for what most of its images show."""
    told: list[str] = []
    translate(source, tmp_path / "out", model, TranslateRequest(reference=source), tell=told.append)
    bundle, names = load_bundle(model), good(source)
    counts = [sum(domain in own_labels(bundle, tiny_clip, source / name) for name in names) for domain in DOMAINS]
    wanted = [n for n, count in enumerate(counts) if count > 3.5]
    assert {row["requested"] for row in table(tmp_path / "out")} == {", ".join(DOMAINS[n] for n in wanted), ""}
    codes = torch.stack([bundle.networks.style_encoder(as_batch(source / name))[0] for name in names]).mean(dim=0)
    style = codes[wanted].mean(dim=0) if wanted else codes[3]
    for name in names:
        expected = to_pixels(bundle.networks.generator(as_batch(source / name), style[None]))
        assert np.abs(pixels(tmp_path / "out" / name) - expected).max() <= 1
    assert any("1 of the 8 images of the reference" in text for text in told)


def test_one_word_takes_its_style_from_a_reference_and_the_others_from_text(
    source: Path, model: Path, tmp_path: Path
) -> None:
    names = good(source)
    request = TranslateRequest(
        to=(("black hair", 1.0), ("hat", 0.5)), references=(("hat", source / names[0]),), styles=2, seed=4
    )
    translate(source, tmp_path / "out", model, request)
    networks = load_bundle(model).networks
    of_hat = networks.style_encoder(as_batch(source / names[0]))[0, 2]
    random = torch.Generator().manual_seed(4)
    for number in (1, 2):
        drawn = networks.mapping(torch.randn(1, 16, generator=random))[0]
        style = (drawn[1] + 0.5 * of_hat) / 1.5
        for name in names:
            expected = to_pixels(networks.generator(as_batch(source / name), style[None]))
            found = pixels(tmp_path / "out" / name.replace(".png", f"-style{number}.png"))
            assert np.abs(found - expected).max() <= 1


def test_references_are_read_as_they_are_typed(tmp_path: Path) -> None:
    odd = tmp_path / "hat=x.png"
    odd.write_bytes(b"")
    assert parse_references([str(odd)]) == (odd, ())
    assert parse_references(["a.png", "hat, bangs = b.png"]) == (
        Path("a.png"), (("hat", Path("b.png")), ("bangs", Path("b.png"))),
    )  # fmt: skip
    with pytest.raises(UsageError, match="both for all domains"):
        parse_references(["a.png", "b.png"])
    with pytest.raises(UsageError, match="'hat' has two references"):
        parse_references(["hat=a.png", "hat=b.png"])


def test_styles_give_as_many_files_and_rows_of_each_image(source: Path, model: Path, tmp_path: Path) -> None:
    """The first is that of a request for one; each has its own latent, the same for all images."""
    request = TranslateRequest(to=(("hat", 1.0),), styles=3, seed=2)
    report = translate(source, tmp_path / "out", model, request, grid=tmp_path / "grid.png")
    assert (report.found, report.ok, report.results) == (8, 7, 21)
    names = [name.replace(".png", f"-style{number}.png") for name in good(source) for number in (1, 2, 3)]
    assert sorted(pictures(tmp_path / "out")) == names
    rows = [row for row in table(tmp_path / "out") if row["status"] == "ok"]
    assert [(row["output"], row["style"]) for row in rows] == [(name, name[-5]) for name in names]
    assert len({row["path"] for row in rows}) == 7
    networks = load_bundle(model).networks
    random = torch.Generator().manual_seed(2)
    for number in (1, 2, 3):
        style = networks.mapping(torch.randn(1, 16, generator=random))[:, 2]
        for name in good(source):
            expected = to_pixels(networks.generator(as_batch(source / name), style))
            found = pixels(tmp_path / "out" / name.replace(".png", f"-style{number}.png"))
            assert np.abs(found - expected).max() <= 1
    translate(source, tmp_path / "one", model, TranslateRequest(to=(("hat", 1.0),), seed=2))
    for name in good(source):
        one, first = pixels(tmp_path / "one" / name), pixels(tmp_path / "out" / name.replace(".png", "-style1.png"))
        assert np.array_equal(one, first)
    assert pixels(tmp_path / "grid.png").shape[1] == 4 * 96


def frames_of(path: Path, count: int) -> list[np.ndarray]:
    return np.split(pixels(path), count, axis=1)


def test_an_interpolation_goes_straight_from_one_style_to_the_other(source: Path, model: Path, tmp_path: Path) -> None:
    request = TranslateRequest(interpolate=("hat", "black hair, blond hair=0.5"), steps=5, seed=3)
    report = translate(source, tmp_path / "out", model, request, grid=tmp_path / "grid.png")
    assert (report.ok, report.results) == (7, 7)
    networks = load_bundle(model).networks
    codes = networks.mapping(latent(3))[0]
    first, last = codes[2], (codes[1] + 0.5 * codes[0]) / 1.5
    for name in good(source):
        frames = frames_of(tmp_path / "out" / name, 5)
        for number, frame in enumerate(frames):
            style: Tensor = first + (last - first) * number / 4
            expected = to_pixels(networks.generator(as_batch(source / name), style[None]))
            assert np.abs(frame - expected).max() <= 1
    assert {row["requested"] for row in table(tmp_path / "out")} == {"hat -> blond hair=0.5, black hair", ""}


def test_an_interpolation_may_end_in_an_image_and_be_a_gif(source: Path, model: Path, tmp_path: Path) -> None:
    name = good(source)[0]
    ends = ("hat", str(source / name))
    translate(source, tmp_path / "strip", model, TranslateRequest(interpolate=ends, steps=4))
    translate(source, tmp_path / "to", model, TranslateRequest(reference=source / name))
    report = translate(source, tmp_path / "gif", model, TranslateRequest(interpolate=ends, steps=4, film="gif"))
    assert report.ok == 7
    assert sorted(pictures(tmp_path / "gif")) == [each.replace(".png", ".gif") for each in good(source)]
    for each in good(source):
        frames = frames_of(tmp_path / "strip" / each, 4)
        assert np.abs(frames[-1] - pixels(tmp_path / "to" / each)).max() <= 1
        with Image.open(tmp_path / "gif" / each.replace(".png", ".gif")) as film:
            assert (film.n_frames, film.size) == (4, (32, 32))


def test_mp4_is_a_film_of_the_frames_or_one_line(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = TranslateRequest(interpolate=("hat", "black hair"), film="mp4")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "av", None)
        with pytest.raises(LanitError, match=r'not installed\. Run: pip install "av>=14", or use --as gif'):
            translate(source, tmp_path / "out", model, request)
        assert not (tmp_path / "out").exists()
    av = pytest.importorskip("av")
    shades = np.stack([np.full((32, 32, 3), shade, np.uint8) for shade in (10, 90, 170, 250)])
    with av.open(io.BytesIO(encode_film(shades, "x.mp4"))) as container:
        found = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
    assert np.abs(np.array(found) - [10, 90, 170, 250]).max() < 8


def test_contradictions_of_styles_and_ways_are_refused() -> None:
    hat = (("hat", 1.0),)
    for values, message in [
        ({"to": hat, "interpolate": ("hat", "bangs")}, "both ends"),
        ({"interpolate": ("hat", "bangs"), "styles": 2}, "--styles"),
        ({"interpolate": ("hat", "bangs"), "steps": 1}, "--steps is 2"),
        ({"to": hat, "styles": 0}, "--styles is 1"),
        ({"reference": Path("a.png"), "styles": 2}, "gives one"),
    ]:
        with pytest.raises(UsageError, match=message) as caught:
            TranslateRequest(**values)  # type: ignore[arg-type]
        assert caught.value.hint
    assert interpolation_options(True, None, None) == (8, "strip")
    with pytest.raises(UsageError, match="--as is for --interpolate"):
        interpolation_options(False, None, "gif")
