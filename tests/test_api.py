"""lanit from Python: the lines of docs/PYTHON.md run as they stand; whatever holds an image gives the same result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lanit
from lanit.errors import LanitError, UsageError
from lanit.inference import target_style
from lanit.labels import edit
from pipeline.api import Labels, Model
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.squares import fit_square
from pipeline.models.bundle import Bundle, load_bundle, save_bundle
from pipeline.sample_world.dataset import write_faces
from tests.model_builders import DOMAINS, random_bundle

PAGE = (Path(__file__).parent.parent / "docs" / "PYTHON.md").read_text(encoding="utf-8")
SIZE = 32


@pytest.fixture
def bundle(tiny_clip: Any) -> Bundle:
    return random_bundle(SIZE, clip=tiny_clip)


@pytest.fixture
def model(bundle: Bundle, tmp_path: Path) -> Model:
    save_bundle(tmp_path / "model", bundle)
    return lanit.load(str(tmp_path / "model"), device="cpu")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (47, 61, 3), dtype=np.uint8)


def as_batch(image: np.ndarray) -> torch.Tensor:
    square = torch.from_numpy(fit_square(image, SIZE).copy())
    return square.permute(2, 0, 1)[None].float() / 127.5 - 1


def as_pixels(image: torch.Tensor) -> np.ndarray:
    return ((image.clamp(-1, 1)[0].permute(1, 2, 0) + 1) / 2 * 255).round().numpy().astype(int)


def latent(seed: int) -> torch.Tensor:
    return torch.randn(1, 16, generator=torch.Generator().manual_seed(seed))


def same(made: Image.Image, expected: np.ndarray, levels: int = 1) -> bool:
    """Up to rounding."""
    return bool(np.abs(np.asarray(made).astype(int) - expected).max() <= levels)


def test_the_five_lines_of_the_page_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_faces(tmp_path / "faces", 1, 7, 64)
    (face,) = (tmp_path / "faces").glob("*.png")
    face.rename(tmp_path / "face.png")
    (lines,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "face.png" in block)
    assert len([line for line in lines.splitlines() if line]) == 5
    found: dict[str, Any] = {}
    exec(lines, found)
    assert isinstance(found["labels"], Labels)
    assert set(found["labels"].margins) == set(load_bundle("sample").prompt_set.domains)
    with Image.open(tmp_path / "out.png") as image:
        assert (image.size, image.mode) == ((64, 64), "RGB")
        assert np.array_equal(np.asarray(image), np.asarray(found["image"]))
    assert "smiling" in found["model"].label(found["image"]).active


def test_labels_are_the_margins_of_clip_and_those_above_their_offsets(
    model: Model, bundle: Bundle, tiny_clip: Any, pixels: np.ndarray
) -> None:
    seen = tiny_clip.encode_images(as_batch(pixels))[0]
    base = float(seen @ bundle.prompts.base)
    expected = [float(seen @ text) - base for text in bundle.prompts.domains]
    labels = model.label(pixels)
    assert list(labels.margins) == list(DOMAINS)
    np.testing.assert_allclose(list(labels.margins.values()), expected, atol=1e-5)
    offsets = bundle.prompt_set.offsets
    assert labels.active == tuple(n for n, m, o in zip(DOMAINS, expected, offsets, strict=True) if m > o)


def test_a_translation_to_words_mixes_the_styles_of_a_latent(model: Model, bundle: Bundle, pixels: np.ndarray) -> None:
    nets = bundle.networks
    styles = nets.mapping(latent(3))
    style = (styles[:, 0] * 1 + styles[:, 2] * 0.5) / 1.5
    expected = as_pixels(nets.generator(as_batch(pixels), style))
    for to in ({DOMAINS[0]: 1, DOMAINS[2]: 0.5}, f"{DOMAINS[0]}, {DOMAINS[2]}=0.5"):
        assert same(model.translate(pixels, to=to, seed=3), expected)
    assert not same(model.translate(pixels, to=[DOMAINS[0]], seed=3), expected, 2)
    assert not same(model.translate(pixels, to={DOMAINS[0]: 1, DOMAINS[2]: 0.5}, seed=4), expected, 2)


def test_an_edit_keeps_what_it_does_not_name(model: Model, bundle: Bundle, pixels: np.ndarray) -> None:
    nets, batch = bundle.networks, as_batch(pixels)
    own = torch.tensor([[name in model.label(pixels).active for name in DOMAINS]])
    add, remove = torch.tensor([True, False, False]), torch.tensor([False, False, True])
    target = edit(own, add, remove, bundle.exclusive)
    kept = torch.cat([own & target & ~add, torch.zeros(1, 1, dtype=torch.bool)], dim=1)
    codes = torch.where(kept[:, :, None], nets.style_encoder(batch), nets.mapping(latent(0)))
    expected = as_pixels(nets.generator(batch, target_style(codes, target.float())))
    assert same(model.translate(pixels, add=[DOMAINS[0]], remove=[DOMAINS[2]]), expected)
    assert same(model.translate(pixels, add=DOMAINS[0].upper(), remove=DOMAINS[2]), expected)


def test_a_reference_gives_its_style_wherever_it_lies(
    model: Model, bundle: Bundle, pixels: np.ndarray, tmp_path: Path
) -> None:
    reference = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(reference).save(tmp_path / "reference.png")
    nets = bundle.networks
    style = nets.style_encoder(as_batch(reference))[:, 1]
    expected = as_pixels(nets.generator(as_batch(pixels), style))
    for given in (reference, Image.fromarray(reference), tmp_path / "reference.png", str(tmp_path / "reference.png")):
        assert same(model.translate(pixels, to=[DOMAINS[1]], reference=given), expected)
    own = torch.tensor([[name in model.label(reference).active for name in DOMAINS]]).float()
    alone = as_pixels(nets.generator(as_batch(pixels), target_style(nets.style_encoder(as_batch(reference)), own)))
    assert same(model.translate(pixels, reference=reference), alone)


def test_whatever_holds_an_image_gives_the_same_result(model: Model, pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = model.label(pixels)
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels[:, :, ::-1][:, :, ::-1]):
        assert model.label(given) == expected
    grey = pixels[:, :, 0]
    assert model.label(grey) == model.label(np.stack([grey] * 3, axis=2)) == model.label(Image.fromarray(grey))
    alpha, white = np.zeros_like(grey), np.full_like(pixels, 255)
    alpha[0, 0], white[0, 0] = 255, pixels[0, 0]
    assert model.label(np.dstack([pixels, alpha])) == model.label(white), "what is transparent lies on white"
    with pytest.raises(LanitError, match="wholly transparent"):
        model.label(np.dstack([pixels, np.zeros_like(grey)]))


def test_a_pillow_image_is_turned_as_its_file_would_be(model: Model, tmp_path: Path) -> None:
    wide = np.zeros((30, 60, 3), np.uint8)
    wide[:, 20:35] = (255, 30, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(wide).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert (
            model.label(image)
            == model.label(tmp_path / "turned.png")
            == model.label(decode_rgb(tmp_path / "turned.png"))
        )
        assert model.label(image) != model.label(wide)


def test_many_images_are_those_one_by_one(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.api._BATCH", 2)
    random = np.random.default_rng(5)
    images = [random.integers(0, 256, (40 + n, 50, 3), dtype=np.uint8) for n in range(5)]
    together = model.label_batch(images)
    for image, labels in zip(images, together, strict=True):
        np.testing.assert_allclose(list(labels.margins.values()), list(model.label(image).margins.values()), atol=1e-5)
    made = model.translate_batch(images, add=[DOMAINS[2]])
    assert len(made) == 5
    assert all(
        same(one, np.asarray(model.translate(image, add=[DOMAINS[2]])).astype(int))
        for image, one in zip(images, made, strict=True)
    )
    assert model.label_batch([]) == model.translate_batch([], to=[DOMAINS[0]]) == []


def test_a_model_says_what_it_is(model: Model, bundle: Bundle) -> None:
    assert (model.domains, model.image_size, model.device) == (DOMAINS, SIZE, torch.device("cpu"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 5, 3), np.float32), "float32"),
        (np.zeros((5, 5, 2), np.uint8), r"\(5, 5, 2\)"),
        (np.zeros((2, 5, 5, 3), np.uint8), r"\(2, 5, 5, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), "one pixel"),
        (Image.new("RGB", (0, 4)), "one pixel"),
        (torch.zeros(3, 5, 5), "not Tensor"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_image_is_refused_in_a_line(model: Model, image: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        model.label(image)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_what_cannot_be_done_is_said_in_a_line(model: Model, pixels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for do, message in (
        (lambda: model.label(tmp_path / "none.png"), "none.png"),
        (lambda: model.label(tmp_path / "broken.png"), "broken.png"),
        (lambda: model.translate(pixels), "nothing to translate to"),
        (lambda: model.translate(pixels, to=DOMAINS[0], add=DOMAINS[1]), "--add"),
        (lambda: model.translate(pixels, add={DOMAINS[0]: 0.5}), "in full"),
        (lambda: model.translate(pixels, to=[DOMAINS[0]], reference=tmp_path / "none.png"), "none.png"),
        (lambda: lanit.load(tmp_path / "nowhere"), "no model"),
        (lambda: lanit.load(tmp_path / "model", device="cuda:77"), "cuda:77"),
        (lambda: lanit.load(tmp_path / "model", clip="sample").label(pixels), "was trained with"),
    ):
        with pytest.raises(LanitError, match=message) as caught:
            do()
        assert "\n" not in str(caught.value)


def test_no_clip_is_needed_where_words_name_the_whole_result(
    bundle: Bundle, tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_bundle(tmp_path / "model", bundle)

    def absent(*_: Any) -> None:
        raise LanitError("no CLIP here")

    monkeypatch.setattr("pipeline.api.load_labeller", absent)
    assert lanit.load(tmp_path / "model", device="cpu").translate(pixels, to=[DOMAINS[0]]).size == (SIZE, SIZE)
    with pytest.raises(LanitError, match="no CLIP here"):
        lanit.load(tmp_path / "model", device="cpu").translate(pixels, add=[DOMAINS[0]])
