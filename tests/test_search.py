"""Search ranks images by the cosine of their embeddings with that of a text or of an example, encoded as embed does."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cli import app
from lanit.errors import LanitError, UsageError
from pipeline.clip.models import load_clip
from pipeline.decoding.limits import ImageError
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.searching.gallery import search_page
from pipeline.searching.search import embed_image, search
from pipeline.store.index import open_index, rebuild_index
from pipeline.store.store import Store
from tests.label_builders import add_labels

pytest.importorskip("faiss")
MakeStore = Callable[..., Store]


def unit(count: int, dim: int, seed: int = 0, centres: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, dim))
    if centres:
        values = 0.3 * values + rng.normal(size=(centres, dim))[rng.integers(0, centres, count)]
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def stub(store: Store, embedding: np.ndarray) -> Any:
    """A CLIP of the store that gives this embedding, not normalised, for every text."""
    features = torch.from_numpy(3 * embedding[None])
    clip = SimpleNamespace(
        fingerprint=store.fingerprint, encode_texts=lambda texts: features, unknown_words=lambda texts: ["zebra"],
        kept_texts=None,
    )  # fmt: skip
    clip.run = partial(_run, clip)
    return clip


def _run(clip: Any, work: Callable[..., Any], *arguments: Any) -> Any:
    return work(clip, *arguments)


def test_hits_are_those_of_the_highest_cosine_in_order(make_store: MakeStore) -> None:
    store = make_store(unit(90, 7), part_rows=17, sources=[f"/s{number % 2}" for number in range(90)])
    query = unit(1, 7, seed=5)[0]
    report = search(store, stub(store, query), text="a zebra", top=12)
    cosines = store.embeddings() @ query
    order = np.argsort(-cosines)[:12]
    assert [hit.row for hit in report.hits] == order.tolist()
    assert [hit.rank for hit in report.hits] == list(range(1, 13))
    np.testing.assert_allclose([hit.cosine for hit in report.hits], cosines[order], atol=2e-6)
    assert [hit.path for hit in report.hits] == [f"{row:07d}.jpg" for row in order]
    assert [hit.source for hit in report.hits] == [f"/s{row % 2}" for row in order]
    assert [(hit.width, hit.height) for hit in report.hits] == [(100 + row, 50) for row in order]
    assert (report.kind, report.query, report.searched, report.every_image) == ("text", "a zebra", 90, True)
    assert report.unknown_words == ("zebra",)
    assert len(search(store, stub(store, query), text="all", top=1_000).hits) == 90


def test_equal_images_come_in_the_order_of_the_store(make_store: MakeStore) -> None:
    store = make_store(np.repeat(unit(3, 5), 4, axis=0))
    hits = search(store, stub(store, store.embeddings()[5]), text="x", top=4).hits
    assert [hit.row for hit in hits] == [4, 5, 6, 7]
    assert all(hit.cosine <= 1 for hit in hits)


@pytest.mark.parametrize("kind", ["ivf", "pq"])
def test_cosines_are_those_of_the_embeddings_whatever_the_index(make_store: MakeStore, kind: Any) -> None:
    store = make_store(unit(10_000, 16, centres=200))
    rebuild_index(store, kind)
    query = unit(1, 16, seed=3)[0] * 0.2 + store.embeddings()[1234]
    query = query / np.linalg.norm(query)
    report = search(store, stub(store, query), text="x", top=5)
    cosines = store.embeddings() @ query
    np.testing.assert_allclose([hit.cosine for hit in report.hits], np.sort(cosines)[::-1][:5], atol=2e-6)
    assert not report.every_image


def test_a_text_finds_the_faces_that_it_describes(tmp_path: Path) -> None:
    """By the sample CLIP, against the truth of drawn faces."""
    from pipeline.sample_world.dataset import write_faces

    truth = pd.read_csv(write_faces(tmp_path / "faces", 150, 3, 64)).set_index("path")
    clip = load_clip("sample")
    embed([tmp_path / "faces"], tmp_path / "store", clip)
    store = Store.open(tmp_path / "store")
    for word in ("eyeglasses", "smiling"):
        count = int(truth[word].sum()) // 2
        hits = search(store, clip, text=f"a face with {word}", top=count).hits
        assert truth.loc[[hit.path for hit in hits], word].mean() > 0.9, word


@pytest.fixture
def noise(make_images: Callable[..., Path]) -> Path:
    return make_images(9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_example_is_encoded_as_embed_encodes_it(
    noise: Path, tiny_clip_folder: Path, tmp_path: Path, precision: Any
) -> None:
    clip = load_clip(str(tiny_clip_folder), precision=precision)
    embed([noise], tmp_path / "store", clip, EmbedOptions(batch_size=1))
    store = Store.open(tmp_path / "store")
    paths = store.ok_images()["path"].to_pylist()
    for path, stored in zip(paths, store.embeddings(), strict=True):
        np.testing.assert_allclose(embed_image(clip, noise / path), stored, atol=1e-6)
    report = search(store, clip, image=noise / paths[4], top=9)
    assert sorted(hit.row for hit in report.hits) == list(range(9))
    cosines = store.embeddings() @ store.embeddings()[4]
    np.testing.assert_allclose([hit.cosine for hit in report.hits], np.sort(cosines)[::-1], atol=2e-6)
    assert (report.kind, report.query) == ("image", str(noise / paths[4]))


def test_there_is_one_query_and_it_says_something(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(unit(3, 4))
    clip = stub(store, store.embeddings()[0])
    with pytest.raises(UsageError, match="one of them"):
        search(store, clip)
    with pytest.raises(UsageError, match="one of them"):
        search(store, clip, text="a", image=tmp_path)
    with pytest.raises(UsageError, match="is empty"):
        search(store, clip, text=" ")
    with pytest.raises(UsageError, match="at least 1"):
        search(store, clip, text="a", top=0)


def test_an_example_that_is_no_image_is_named(noise: Path, tiny_clip: Any, tmp_path: Path) -> None:
    embed([noise], tmp_path / "store", tiny_clip)
    (tmp_path / "words.jpg").write_text("no image")
    for name in ("words.jpg", "gone.jpg"):
        with pytest.raises(ImageError, match=f"cannot read .*{name}"):
            search(Store.open(tmp_path / "store"), tiny_clip, image=tmp_path / name)


def test_another_model_is_refused(make_store: MakeStore, tiny_clip: Any) -> None:
    with pytest.raises(LanitError, match="holds embeddings of made-up"):
        search(make_store(unit(3, 4)), tiny_clip, text="a")


def test_labels_narrow_the_search(make_store: MakeStore) -> None:
    store = make_store(unit(40, 6), part_rows=11)
    clip = stub(store, unit(1, 6, seed=2)[0])
    with pytest.raises(LanitError, match="has no labels"):
        search(store, clip, text="x", labels=["smiling"])
    active = np.random.default_rng(0).random((40, 3)) < 0.5
    active[:, 2] = False
    prompts = PromptSet(("smiling", "hat", "bald"), ("a face with {}.",), ("a face with.",), "test")
    margin = np.where(active, 0.1, -0.1).astype(np.float32)
    add_labels(store, active, margin, prompts=prompts)
    both = np.flatnonzero(active[:, 0] & active[:, 1])
    report = search(store, clip, text="x", labels=["smiling", "hat"])
    cosines = store.embeddings() @ unit(1, 6, seed=2)[0]
    assert [hit.row for hit in report.hits] == both[np.argsort(-cosines[both])][:20].tolist()
    assert report.searched == len(both)
    with pytest.raises(UsageError, match=r"no label 'smilling'. Choose one of smiling"):
        search(store, clip, text="x", labels=["smilling"])
    with pytest.raises(LanitError, match="no image is labelled bald"):
        search(store, clip, text="x", labels=["bald"])


def test_the_page_holds_the_images_found(noise: Path, tiny_clip: Any, tmp_path: Path) -> None:
    embed([noise], tmp_path / "store", tiny_clip)
    store = Store.open(tmp_path / "store")
    report = search(store, tiny_clip, text="<b>a & b</b>", top=4)
    gone = noise / report.hits[2].path
    gone.unlink()
    page = search_page(report, store)
    assert page == search_page(report, store)
    assert not re.search(r"<script|@import|url\(|src=\"(?!data:)|<b>a", page)
    assert "“&lt;b&gt;a &amp; b&lt;/b&gt;”" in page
    shown = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', page)
    kept = [hit for hit in report.hits if hit.path != report.hits[2].path]
    assert [alt for _, alt in shown] == [hit.path for hit in kept]
    for (data, _), hit in zip(shown, kept, strict=True):
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (hit.width, hit.height)
    assert page.count('class="gone"') == 1
    Image.new("RGB", (30, 30), "red").save(noise / report.hits[0].path)
    changed = search_page(report, store)
    assert changed.count("<img ") == 2
    assert f'aria-label="{report.hits[0].path}: changed since it was embedded">changed<' in changed
    assert page.count(f'href="{noise.as_uri()}/') == 4
    example = search_page(search(store, tiny_clip, image=noise / report.hits[1].path, top=1), store)
    assert example.count("<img ") == 2


def test_the_command(noise: Path, tiny_clip: Any, tmp_path: Path) -> None:
    store = tmp_path / "store"
    embed([noise], store, tiny_clip)
    base = ["search", "--store", str(store)]
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, [*base, "a cat", "--top", "3", "--html", str(page)])
    assert result.exit_code == 0, result.output
    assert "Nearest to “a cat”, of 9 images" in result.stdout
    assert len(re.findall(r"^[123] .*\.png +0?-?\d\.\d{4}", result.stdout, re.M)) == 3
    assert page.read_text(encoding="utf-8").count("<img ") == 3
    example = noise / "a" / "001.png"
    data = json.loads(CliRunner().invoke(app, [*base, "--image", str(example), "--json"]).stdout)
    assert (data["kind"], data["searched"], len(data["hits"])) == ("image", 9, 9)
    assert data["hits"][0]["path"] == "a/001.png"
    for arguments, code, message in (
        ([*base], 2, "one of them"),
        ([*base, "a", "--image", str(example)], 2, "one of them"),
        ([*base, ""], 2, "is empty"),
        ([*base, "a", "--html", "page.png"], 2, "not the name of a page"),
        ([*base, "--image", str(tmp_path / "gone.png")], 1, "gone.png"),
        ([*base, "a", "--label", "smiling"], 1, "has no labels"),
        (["search", "a", "--store", str(tmp_path / "none")], 1, "there is no store"),
    ):
        wrong = CliRunner().invoke(app, arguments)
        assert (wrong.exit_code, message in wrong.stderr) == (code, True), wrong.output
        assert len(wrong.stderr.strip().splitlines()) == 1


def test_the_index_command_rebuilds_and_keeps_to_a_kind(noise: Path, tiny_clip: Any, tmp_path: Path) -> None:
    store = tmp_path / "store"
    embed([noise], store, tiny_clip)
    base = ["index", "--store", str(store)]
    assert "flat" in CliRunner().invoke(app, base).stdout
    data = json.loads(CliRunner().invoke(app, [*base, "--kind", "ivf", "--json"]).stdout)
    assert (data["kind"], data["built"], data["rows"]) == ("ivf", True, 9)
    (noise / "a" / "001.png").unlink()
    embed([noise], store, tiny_clip)
    assert open_index(Store.open(store)).nlist, "whatever needs it first builds it as it was asked for"
    data = json.loads(CliRunner().invoke(app, [*base, "--kind", "ivf", "--json"]).stdout)
    assert (data["kind"], data["built"], data["rows"]) == ("ivf", False, 8)
    wrong = CliRunner().invoke(app, [*base, "--kind", "pq"])
    assert (wrong.exit_code, "at least 9,984 images" in wrong.stderr) == (2, True)
