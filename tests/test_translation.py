"""Translation writes one picture for every input, in the style its words say, whatever the order and the batches."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lanit.errors import LanitError, UsageError
from lanit.networks import GenerativeNetworks, NetworkOptions
from pipeline.decoding.images import decode_rgb
from pipeline.labelling.prompt_sets import PromptSet
from pipeline.store.image_cache import fit_square
from pipeline.training.checkpoints import Bundle, load_bundle, save_bundle
from pipeline.translating import translation
from pipeline.translating.translation import TranslateRequest, parse_domains, translate
from pipeline.translating.translator import Translator

DOMAINS = ("blond hair", "black hair", "hat")
SIZES = NetworkOptions(image_size=32, domains=4, channels=4, max_channels=8, style_dim=6, mapping_width=8)
EXCLUSIVE = [[0, 1, 0], [1, 0, 0], [0, 0, 0]]  # blond or black, not both


@pytest.fixture
def source(make_images: Callable[..., Path]) -> Path:
    """Seven images in two folders, one file that is no image, and one that only says so."""
    folder = make_images(7, "photos")
    (folder / "a" / "broken.jpg").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("ignored")
    return folder


def as_batch(path: Path) -> Tensor:
    pixels = torch.from_numpy(fit_square(decode_rgb(path), 32).copy())
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


def good(source: Path) -> list[str]:
    return sorted(path.relative_to(source).as_posix() for path in source.rglob("*.png"))


@pytest.fixture
def model(source: Path, tiny_clip: Any, tmp_path: Path) -> Path:
    """A bundle of random networks, with text embeddings that part the images about evenly in each domain."""
    torch.manual_seed(0)
    networks = GenerativeNetworks(SIZES)
    with torch.no_grad():
        networks.generator.to_rgb.weight.mul_(0.3)  # within [-1, 1]: clamped images would all look alike
        seen = torch.cat([tiny_clip.encode_images(as_batch(source / name)) for name in good(source)])
        base = seen.mean(dim=0)
        axes = torch.linalg.svd(seen - base).Vh[:3]
        ordered = (seen @ axes.T).sort(dim=0).values
        middle = (ordered[2] + ordered[3]) / 2
        texts = base + axes - middle[:, None] * base / base.square().sum()
    bundle = Bundle(
        networks, SIZES, PromptSet(DOMAINS, ("a {}.",), ("a.",), "test"), tiny_clip.fingerprint, tiny_clip.spec, None,
        torch.tensor(EXCLUSIVE, dtype=torch.bool), texts, base, {},
    )  # fmt: skip
    save_bundle(tmp_path / "model", bundle)
    return tmp_path / "model"


def own_labels(bundle: Bundle, clip: Any, path: Path) -> set[str]:
    """METHOD (1), one image at a time."""
    seen = clip.encode_images(as_batch(path))[0]
    of_base = float((seen * bundle.base_embedding).sum())
    return {
        name
        for name, text in zip(DOMAINS, bundle.domains_embedding, strict=True)
        if float((seen * text).sum()) > of_base
    }


def test_own_labels_take_the_offsets_of_the_prompts(model: Path, source: Path, tiny_clip: Any) -> None:
    bundle = load_bundle(model)
    images = torch.cat([as_batch(source / name) for name in good(source)])
    margins = tiny_clip.encode_images(images) @ (bundle.domains_embedding - bundle.base_embedding).T
    offsets = tuple(float(value) for value in margins.median(dim=0).values + 1e-5)
    moved = replace(bundle, prompt_set=replace(bundle.prompt_set, offsets=offsets))
    labels = Translator(moved, torch.device("cpu")).labels(images, tiny_clip)
    assert torch.equal(labels, margins > torch.tensor(offsets))
    assert not torch.equal(labels, Translator(bundle, torch.device("cpu")).labels(images, tiny_clip))


def table(out: Path) -> list[dict[str, str]]:
    with (out / translation.TABLE_NAME).open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def to_pixels(image: Tensor) -> np.ndarray:
    return ((image.clamp(-1, 1)[0].permute(1, 2, 0) + 1) / 2 * 255).round().numpy().astype(int)


def latent(seed: int) -> Tensor:
    return torch.randn(1, 16, generator=torch.Generator().manual_seed(seed))


def test_one_file_for_every_input_and_a_table_beside_them(source: Path, model: Path, tmp_path: Path) -> None:
    before = files(source)
    seen: list[tuple[int, int]] = []
    report = translate(
        source, tmp_path / "out", model, TranslateRequest(to=(("hat", 1.0),)), grid=tmp_path / "grid.png",
        progress=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert (report.found, report.ok, report.failed) == (8, 7, 1)
    assert files(source) == before
    names = good(source)
    assert sorted(files(tmp_path / "out")) == sorted([*names, "translations.csv"])
    assert all(pixels(tmp_path / "out" / name).shape == (32, 32, 3) for name in names)
    rows = table(tmp_path / "out")
    assert [row["path"] for row in rows] == sorted([*names, "a/broken.jpg"])
    for row in rows:
        if row["path"] == "a/broken.jpg":
            assert (row["output"], row["status"], row["target"]) == ("", "failed", "")
            assert row["error_message"]
        else:
            assert row == {
                "path": row["path"],
                "output": row["path"],
                "status": "ok",
                "error_message": "",
                "target": "hat",
            }
    assert seen[-1] == (8, 8)
    assert report.grid == str(tmp_path / "grid.png")
    assert pixels(tmp_path / "grid.png").shape[0] > 7 * 96


def test_outputs_are_named_after_inputs_and_never_collide(model: Path, tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "twins"
    folder.mkdir()
    for name in ("x.png", "x.jpg", "y.webp", "x.png.jpg", "Z.JPG"):
        Image.open(source / good(source)[0]).save(folder / name)
    report = translate(folder, tmp_path / "out", model, TranslateRequest(to=(("hat", 1.0),)))
    outputs = {row["path"]: row["output"] for row in table(tmp_path / "out")}
    assert report.ok == 5
    assert len(set(outputs.values())) == 5, outputs
    assert (outputs["y.webp"], outputs["Z.JPG"]) == ("y.png", "Z.png")
    assert all((tmp_path / "out" / output).is_file() for output in outputs.values())


def test_one_image_alone(source: Path, model: Path, tmp_path: Path) -> None:
    name = good(source)[0]
    report = translate(source / name, tmp_path / "out", model, TranslateRequest(to=(("hat", 1.0),)))
    assert report.found == report.ok == 1
    assert sorted(files(tmp_path / "out")) == [Path(name).name, "translations.csv"]


@pytest.mark.parametrize("weights", [{"hat": 1.0}, {"hat": 1.0, "blond hair": 1.0}, {"hat": 1.5, "black hair": 0.5}])
@pytest.mark.parametrize("seed", [0, 7])
def test_to_mixes_the_latents_styles_by_weight(
    source: Path, model: Path, tmp_path: Path, weights: dict[str, float], seed: int
) -> None:
    translate(source, tmp_path / "out", model, TranslateRequest(to=tuple(weights.items()), seed=seed))
    networks = load_bundle(model).networks
    codes = networks.mapping(latent(seed))[0]
    style = sum((weight * codes[DOMAINS.index(name)] for name, weight in weights.items()), torch.zeros(6)) / sum(
        weights.values()
    )
    for name in good(source):
        expected = to_pixels(networks.generator(as_batch(source / name), style[None]))
        assert np.abs(pixels(tmp_path / "out" / name) - expected).max() <= 1
        assert expected.std() > 5
    described = {", ".join(n if weights[n] == 1 else f"{n}={weights[n]:g}" for n in DOMAINS if n in weights), ""}
    assert {row["target"] for row in table(tmp_path / "out")} == described


@pytest.mark.parametrize(
    ("add", "remove"), [(("hat",), ()), (("black hair",), ("hat",)), ((), ("blond hair",)), (("blond hair", "hat"), ())]
)
def test_add_and_remove_edit_the_images_own_labels(
    source: Path, model: Path, tiny_clip: Any, tmp_path: Path, add: tuple[str, ...], remove: tuple[str, ...]
) -> None:
    """Each kept domain keeps the image's own style; an added one has the latent's; what it excludes gives way."""
    translate(source, tmp_path / "out", model, TranslateRequest(add=add, remove=remove, seed=3))
    bundle = load_bundle(model)
    targets = {row["path"]: row["target"] for row in table(tmp_path / "out")}
    owns = [own_labels(bundle, tiny_clip, source / name) for name in good(source)]
    assert len({frozenset(own) for own in owns}) > 2, "the images must differ in their labels for this test"
    drawn = bundle.networks.mapping(latent(3))[0]
    for name, own in zip(good(source), owns, strict=True):
        displaced = {n for n in own for a in add if EXCLUSIVE[DOMAINS.index(n)][DOMAINS.index(a)]}
        wanted = (own - displaced - set(remove)) | set(add)
        assert targets[name] == ", ".join(n for n in DOMAINS if n in wanted)
        image = as_batch(source / name)
        encoded = bundle.networks.style_encoder(image)[0]
        codes = [(encoded if n in own - set(add) else drawn)[DOMAINS.index(n)] for n in wanted] or [drawn[3]]
        expected = to_pixels(bundle.networks.generator(image, (sum(codes[1:], codes[0]) / len(codes))[None]))
        assert np.abs(pixels(tmp_path / "out" / name) - expected).max() <= 1, name


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


@pytest.mark.parametrize(
    "request_", [TranslateRequest(to=(("hat", 1.0),)), TranslateRequest(add=("hat",))], ids=["to", "add"]
)
def test_batches_change_nothing(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: TranslateRequest
) -> None:
    for size in (1, 3, 32):
        monkeypatch.setattr(translation, "_BATCH", size)
        translate(source, tmp_path / str(size), model, request_)
    for name in good(source):
        whole = pixels(tmp_path / "32" / name)
        for size in ("1", "3"):
            assert np.abs(pixels(tmp_path / size / name) - whole).max() <= 1  # rounding of the last bit
    assert table(tmp_path / "1") == table(tmp_path / "3") == table(tmp_path / "32")


def test_the_same_again_gives_the_same_bytes(source: Path, model: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        translate(source, tmp_path / name, model, TranslateRequest(add=("hat",), seed=5))
    assert files(tmp_path / "first") == files(tmp_path / "second")
    translate(source, tmp_path / "third", model, TranslateRequest(add=("hat",), seed=6))
    assert files(tmp_path / "first") != files(tmp_path / "third")


def test_translations_below_the_source_are_not_translated_again(source: Path, model: Path) -> None:
    for _ in range(2):
        report = translate(source, source / "translated", model, TranslateRequest(to=(("hat", 1.0),)))
        assert report.found == 8


@pytest.mark.parametrize("field", ["to", "add", "remove"])
def test_an_unknown_domain_is_named_before_anything_is_written(
    source: Path, model: Path, tmp_path: Path, field: str
) -> None:
    value: Any = (("blond hairs", 1.0),) if field == "to" else ("blond hairs",)
    with pytest.raises(LanitError, match="'blond hairs' is not a domain of this model") as caught:
        translate(source, tmp_path / "out", model, TranslateRequest(**{field: value}))
    assert "Did you mean 'blond hair'?" in caught.value.hint
    assert "hat" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_out_must_not_be_the_folder_of_the_originals(source: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    before = files(source)
    some = TranslateRequest(to=(("hat", 1.0),))
    for given, out in (
        (source, source), (source, tmp_path / "link"), (source, source / "a" / ".."),
        (source / "a" / "001.png", source / "a"),
    ):  # fmt: skip
        with pytest.raises(LanitError, match="folder of the originals"):
            translate(given, out, model, some)
    assert files(source) == before


def test_where_no_image_can_be_read_nothing_is_written(model: Path, tmp_path: Path) -> None:
    some = TranslateRequest(to=(("hat", 1.0),))
    (tmp_path / "in").mkdir()
    with pytest.raises(LanitError, match="no image in"):
        translate(tmp_path / "in", tmp_path / "out", model, some)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(LanitError, match="none of the 1 images"):
        translate(tmp_path / "in", tmp_path / "out", model, some)
    with pytest.raises(LanitError, match="cannot read the reference"):
        translate(tmp_path / "in", tmp_path / "out", model, replace(some, reference=tmp_path / "in" / "broken.jpg"))
    with pytest.raises(LanitError, match="no folder"):
        translate(tmp_path / "nowhere", tmp_path / "out", model, some)
    assert not (tmp_path / "out").exists()


def test_only_labels_of_its_own_need_the_models_clip(
    source: Path, model: Path, tmp_path: Path, make_clip: Callable[..., Path]
) -> None:
    with pytest.raises(LanitError, match="was trained with") as caught:
        translate(source, tmp_path / "out", model, TranslateRequest(add=("hat",)), clip=str(make_clip(seed=9)))
    assert "--to" in caught.value.hint
    assert not (tmp_path / "out").exists()
    save_bundle(tmp_path / "moved", replace(load_bundle(model), clip_spec=str(tmp_path / "gone.safetensors")))
    with pytest.raises(LanitError, match="no weights file"):
        translate(source, tmp_path / "out", tmp_path / "moved", TranslateRequest(remove=("hat",)))
    assert translate(source, tmp_path / "out", tmp_path / "moved", TranslateRequest(to=(("hat", 1.0),))).ok == 7


def test_requests_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(UsageError, match="nothing to translate to"):
        TranslateRequest()
    with pytest.raises(UsageError, match="--to names all domains"):
        TranslateRequest(to=(("hat", 1.0),), remove=("hat",))


def test_domains_are_parsed_with_their_weights() -> None:
    assert parse_domains("smiling, blond hair=0.5,, hat = 2 ") == (("smiling", 1.0), ("blond hair", 0.5), ("hat", 2.0))
    assert parse_domains(" , ") == ()
    for bad in ("hat=0", "hat=-1", "hat=much", "hat=nan", "hat=inf"):
        with pytest.raises(UsageError, match="no positive weight"):
            parse_domains(f"smiling, {bad}")
