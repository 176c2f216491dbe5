"""Translation writes one picture for every input, in the style its words say, whatever the order and the batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lanit.errors import LanitError, UsageError
from pipeline.models.bundle import load_bundle, save_bundle
from pipeline.models.translator import Translator
from pipeline.translating.requests import TranslateRequest, parse_domains
from pipeline.translating.translation import TranslateOptions, translate
from tests.translation_world import (
    DOMAINS,
    EXCLUSIVE,
    TABLES,
    as_batch,
    files,
    good,
    latent,
    make_model,
    make_source,
    margins_of,
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


def test_own_labels_take_the_offsets_of_the_prompts(model: Path, source: Path, tiny_clip: Any) -> None:
    bundle = load_bundle(model)
    images = torch.cat([as_batch(source / name) for name in good(source)])
    margins = tiny_clip.encode_images(images) @ (bundle.prompts.domains - bundle.prompts.base).T
    offsets = tuple(float(value) for value in margins.median(dim=0).values + 1e-5)
    moved = replace(bundle, prompts=replace(bundle.prompts, offsets=torch.tensor(offsets)))
    labels = Translator(moved, torch.device("cpu")).labels(images, tiny_clip)
    assert torch.equal(labels, margins > torch.tensor(offsets))
    assert not torch.equal(labels, Translator(bundle, torch.device("cpu")).labels(images, tiny_clip))


def test_one_file_for_every_input_and_tables_beside_them(source: Path, model: Path, tmp_path: Path) -> None:
    before = files(source)
    seen: list[tuple[int, int]] = []
    report = translate(
        source, tmp_path / "out", model, TranslateRequest(to=(("hat", 1.0),)), grid=tmp_path / "grid.png",
        progress=lambda done, of, shares: seen.append((done, of)),
    )  # fmt: skip
    assert (report.found, report.ok, report.failed, report.results) == (8, 7, 1, 7)
    assert files(source) == before
    names = good(source)
    assert sorted(files(tmp_path / "out")) == sorted([*names, *TABLES])
    assert all(pixels(tmp_path / "out" / name).shape == (32, 32, 3) for name in names)
    rows = table(tmp_path / "out")
    assert [row["path"] for row in rows] == sorted([*names, "a/broken.jpg"])
    for row in rows:
        assert row["source"] == str(source)
        if row["path"] == "a/broken.jpg":
            assert (row["output"], row["status"], row["requested"], row["after"]) == ("", "failed", "", "")
            assert row["error_message"]
        else:
            assert (row["output"], row["status"], row["error_message"]) == (row["path"], "ok", "")
            assert row["requested"] == "hat"
            height, width = pixels(source / row["path"]).shape[:2]
            assert (row["width"], row["height"]) == (str(width), str(height))
    assert seen[-1] == (8, 8)
    assert report.grid == str(tmp_path / "grid.png")
    assert pixels(tmp_path / "grid.png").shape[0] > 7 * 96


def test_the_tables_say_what_clip_sees_before_and_after(
    source: Path, model: Path, tiny_clip: Any, tmp_path: Path
) -> None:
    """Against margins taken one by one, of the sources and of the files that were written."""
    report = translate(source, tmp_path / "out", model, TranslateRequest(add=("hat",)))
    bundle, rows = load_bundle(model), [row for row in table(tmp_path / "out") if row["status"] == "ok"]
    seen = asked = 0
    for row in rows:
        for prefix, path, labels in (
            ("before:", source / row["path"], row["before"]),
            ("margin:", tmp_path / "out" / row["output"], row["after"]),
        ):
            expected = margins_of(bundle, tiny_clip, path)
            found = [float(row[prefix + name]) for name in DOMAINS]
            close = 1e-5 if prefix == "before:" else 1e-2  # the file has 8 bits
            assert np.abs(np.array(found) - expected).max() < close
            assert labels == ", ".join(name for name, value in zip(DOMAINS, found, strict=True) if value > 0)
        requested, after = set(row["requested"].split(", ")), set(row["after"].split(", "))
        asked, seen = asked + len(requested), seen + len(requested & after)
    assert report.recognised == pytest.approx(seen / asked)
    parquet = pq.read_table(tmp_path / "out" / "translations.parquet").to_pylist()
    assert [row["path"] for row in parquet] == [row["path"] for row in table(tmp_path / "out")]
    for one, other in zip(parquet, table(tmp_path / "out"), strict=True):
        assert {name: "" if one[name] is None else str(one[name]) for name in other if "margin" not in name
                and "before:" not in name} == {name: value for name, value in other.items() if "margin" not in name
                and "before:" not in name}  # fmt: skip


def test_labels_asked_for_stand_in_a_table_that_names_the_results(source: Path, model: Path, tmp_path: Path) -> None:
    translate(source, tmp_path / "out", model, TranslateRequest(add=("hat",), remove=("black hair",)))
    labels = {row["path"]: row for row in table(tmp_path / "out", "labels.csv")}
    rows = [row for row in table(tmp_path / "out") if row["status"] == "ok"]
    assert list(labels) == [row["output"] for row in rows]
    for row in rows:
        on = {name for name in DOMAINS if labels[row["output"]][name] == "1"}
        assert on == set(row["requested"].split(", "))
        assert "hat" in on
        assert "black hair" not in on


@pytest.mark.parametrize(
    ("request_", "options", "looked"),
    [
        (TranslateRequest(to=(("hat", 1.0),)), TranslateOptions(), (False, True)),
        (TranslateRequest(to=(("hat", 1.0),)), TranslateOptions(before=True), (True, True)),
        (TranslateRequest(add=("hat",)), TranslateOptions(), (True, True)),
        (TranslateRequest(add=("hat",)), TranslateOptions(margins=False), (True, False)),
    ],
)
def test_clip_looks_at_what_is_asked_for(
    source: Path, model: Path, tmp_path: Path, request_: TranslateRequest, options: TranslateOptions,
    looked: tuple[bool, bool],
) -> None:  # fmt: skip
    report = translate(source, tmp_path / "out", model, request_, options)
    rows = [row for row in table(tmp_path / "out") if row["status"] == "ok"]
    assert {(row["before:hat"] != "", row["margin:hat"] != "") for row in rows} == {looked}
    assert (report.recognised is None) == (not looked[1])


def test_the_two_options_of_looking_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="--before and --no-margins"):
        TranslateOptions(margins=False, before=True)


def test_without_margins_no_clip_looks(source: Path, model: Path, tmp_path: Path) -> None:
    save_bundle(tmp_path / "blind", replace(load_bundle(model), clip_spec=str(tmp_path / "gone.safetensors")))
    some, told = TranslateRequest(to=(("hat", 1.0),)), list[str]()
    translate(source, tmp_path / "out", tmp_path / "blind", some, TranslateOptions(margins=False), tell=told.append)
    assert not told
    assert {(row["before"], row["after"], row["margin:hat"]) for row in table(tmp_path / "out")} == {("", "", "")}
    translate(source, tmp_path / "more", tmp_path / "blind", some, tell=told.append)
    assert "no CLIP can be had" in told[0]
    assert pictures(tmp_path / "out") == pictures(tmp_path / "more")


def test_one_image_alone(source: Path, model: Path, tmp_path: Path) -> None:
    name = good(source)[0]
    report = translate(source / name, tmp_path / "out", model, TranslateRequest(to=(("hat", 1.0),)))
    assert report.found == report.ok == 1
    assert sorted(files(tmp_path / "out")) == sorted([Path(name).name, *TABLES])


@pytest.mark.parametrize("weights", [{"hat": 1.0}, {"hat": 1.0, "blond hair": 1.0}, {"hat": 1.5, "black hair": 0.5}])
@pytest.mark.parametrize("seed", [0, 7])
def test_to_mixes_the_latents_styles_by_weight(
    source: Path, model: Path, tmp_path: Path, weights: dict[str, float], seed: int
) -> None:
    translate(source, tmp_path / "out", model, TranslateRequest(to=tuple(weights.items()), seed=seed))
    networks = load_bundle(model).networks
    codes = networks.mapping(latent(seed))[0]
    style = sum((weight * codes[DOMAINS.index(name)] for name, weight in weights.items()), torch.zeros(8)) / sum(
        weights.values()
    )
    for name in good(source):
        expected = to_pixels(networks.generator(as_batch(source / name), style[None]))
        assert np.abs(pixels(tmp_path / "out" / name) - expected).max() <= 1
        assert expected.std() > 5
    described = {", ".join(n if weights[n] == 1 else f"{n}={weights[n]:g}" for n in DOMAINS if n in weights), ""}
    assert {row["requested"] for row in table(tmp_path / "out")} == described


@pytest.mark.parametrize(
    ("add", "remove"), [(("hat",), ()), (("black hair",), ("hat",)), ((), ("blond hair",)), (("blond hair", "hat"), ())]
)
def test_add_and_remove_edit_the_images_own_labels(
    source: Path, model: Path, tiny_clip: Any, tmp_path: Path, add: tuple[str, ...], remove: tuple[str, ...]
) -> None:
    """Each kept domain keeps the image's own style; an added one has the latent's; what it excludes gives way."""
    translate(source, tmp_path / "out", model, TranslateRequest(add=add, remove=remove, seed=3))
    bundle = load_bundle(model)
    targets = {row["path"]: row["requested"] for row in table(tmp_path / "out")}
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


@pytest.mark.parametrize(
    "request_", [TranslateRequest(to=(("hat", 1.0),)), TranslateRequest(add=("hat",))], ids=["to", "add"]
)
def test_batches_change_nothing(source: Path, model: Path, tmp_path: Path, request_: TranslateRequest) -> None:
    for size, part in ((1, 256), (3, 5), (32, 2)):
        translate(source, tmp_path / str(size), model, request_, TranslateOptions(size, part_images=part))
    for name in good(source):
        whole = pixels(tmp_path / "32" / name)
        for size in ("1", "3"):
            assert np.abs(pixels(tmp_path / size / name) - whole).max() <= 1  # rounding of the last bit
    one, *others = (table(tmp_path / size) for size in ("1", "3", "32"))
    for other in others:
        for row, same in zip(one, other, strict=True):
            for name in row:
                if ":" in name and row[name]:
                    assert float(row[name]) == pytest.approx(float(same[name]), abs=1e-5)
                elif name != "after":  # a margin may lie at the very threshold
                    assert row[name] == same[name]


def test_the_same_again_gives_the_same_bytes(source: Path, model: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        translate(source, tmp_path / name, model, TranslateRequest(add=("hat",), seed=5))
    first, second = files(tmp_path / "first"), files(tmp_path / "second")
    ids = [[row.pop("image_id") for row in table(tmp_path / name, "labels.csv")] for name in ("first", "second")]
    assert not set(ids[0]) & set(ids[1]), "an image's id tells its folder"
    assert first.pop("labels.csv") != second.pop("labels.csv")
    assert first == second
    translate(source, tmp_path / "third", model, TranslateRequest(add=("hat",), seed=6))
    assert pictures(tmp_path / "first") != pictures(tmp_path / "third")


def test_translations_below_the_source_are_not_translated_again(source: Path, model: Path) -> None:
    for _ in range(2):
        report = translate(source, source / "translated", model, TranslateRequest(to=(("hat", 1.0),)))
        assert report.found == 8
    report = translate(source, source / "b" / "other", model, TranslateRequest(to=(("hat", 1.0),)))
    assert report.found == 8 + 7, "those of another folder are images like any"


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
    with pytest.raises(LanitError, match="no images in"):
        translate(tmp_path / "in", tmp_path / "out", model, some)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(LanitError, match="none of the 1 images"):
        translate(tmp_path / "in", tmp_path / "out", model, some)
    with pytest.raises(LanitError, match="cannot read the reference"):
        translate(tmp_path / "in", tmp_path / "out", model, replace(some, reference=tmp_path / "in" / "broken.jpg"))
    with pytest.raises(LanitError, match="no folder"):
        translate(tmp_path / "nowhere", tmp_path / "out", model, some)
    (tmp_path / "bare").mkdir()
    with pytest.raises(LanitError, match="none of the 1 images"):
        translate(tmp_path / "in", tmp_path / "bare", model, some)
    assert not any((tmp_path / "bare").iterdir())
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
