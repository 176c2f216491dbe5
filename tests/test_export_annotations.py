"""Exports for tools that annotate, curate and search are read back as those tools read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.exports.export import export
from pipeline.exports.label_studio import choices_of
from pipeline.exports.layouts import ExportRequest
from pipeline.store.store import Store

LABELS = {
    "smiling": {"a/1.jpg", "été bleu/3 x#%&+.png"},
    'odd | "quoted" <b> & 7\'': {"a/1.jpg", "a__1.png", "a/1.png"},
    "5": {"été bleu/3 x#%&+.png"},
    "never seen": set[str](),
}
PATHS = sorted([*set.union(*LABELS.values()), "none.png"])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images of as many sizes and contents, three of them called 1, but for folder or suffix."""
    rng = np.random.default_rng(5)
    for number, name in enumerate(PATHS):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (21 + number, 40 - number, 3), dtype=np.uint8))
        image.save(path)
    (tmp_path / "photos" / "bad.jpg").write_text("no picture")
    return tmp_path / "photos"


@pytest.fixture
def store(photos: Path, make_labelled_store: Callable[..., Store]) -> Store:
    return make_labelled_store(photos, LABELS)


def labels_of(path: str) -> list[str]:
    return [domain for domain, having in LABELS.items() if path in having]


def margins_of(store: Store) -> dict[str, dict[str, float]]:
    revision = store.labels()
    return {
        path: dict(zip(revision.domains, map(float, margins), strict=True))
        for path, margins in zip(revision.paths, revision.margin, strict=True)
    }


def test_pycocotools_and_torchvision_read_every_image_with_its_labels(
    store: Store, photos: Path, tmp_path: Path
) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco", reason="reads COCO")
    from torchvision.datasets import CocoDetection

    report = export(store, tmp_path / "out", ExportRequest("coco"))
    coco = pycocotools.COCO(str(tmp_path / "out" / "annotations.json"))
    names = {number: category["name"] for number, category in coco.cats.items()}
    assert list(names.values()) == list(LABELS)
    margins = margins_of(store)
    found = {}
    for number, image in coco.imgs.items():
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        path = tmp_path / "out" / "images" / image["file_name"]
        assert path.read_bytes() == (photos / image["path"]).read_bytes()
        with Image.open(path) as opened:
            assert (image["width"], image["height"]) == opened.size
        for annotation in annotations:
            assert annotation["bbox"] == [0, 0, image["width"], image["height"]]
            assert annotation["area"] == image["width"] * image["height"]
            margin = margins[image["path"]][names[annotation["category_id"]]]
            assert np.float32(annotation["margin"]) == np.float32(margin)
        found[image["path"]] = [names[annotation["category_id"]] for annotation in annotations]
    assert found == {path: labels_of(path) for path in PATHS}
    [smiling] = coco.getCatIds(catNms=["smiling"])
    assert len(coco.getImgIds(catIds=[smiling])) == len(LABELS["smiling"])
    data = CocoDetection(str(tmp_path / "out" / "images"), str(tmp_path / "out" / "annotations.json"))
    assert sorted(len(annotations) for _, annotations in data) == sorted(map(len, map(labels_of, PATHS)))
    assert (report.exported, report.files) == (5, 5)


def test_label_studio_tasks_have_the_documented_form_and_choices_of_the_interface(
    store: Store, photos: Path, tmp_path: Path
) -> None:
    """As Label Studio's guide to predictions has it; its converter reads none."""
    export(store, tmp_path / "out", ExportRequest("label-studio", files="symlink"))
    view = ElementTree.fromstring((tmp_path / "out" / "label_config.xml").read_text(encoding="utf-8"))
    image, choices = view.findall("Image")[0], view.findall("Choices")[0]
    assert (image.get("value"), choices.get("toName"), choices.get("choice")) == (
        "$image",
        image.get("name"),
        "multiple",
    )
    assert [choice.get("value") for choice in choices] == list(LABELS)
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text(encoding="utf-8"))
    assert [task["data"]["path"] for task in tasks] == store.ok_images()["path"].to_pylist()
    for task in tasks:
        address = urlsplit(task["data"]["image"])
        assert address.path == "/data/local-files/"
        [name] = parse_qs(address.query, keep_blank_values=True)["d"]
        assert (tmp_path / "out" / name).read_bytes() == (photos / task["data"]["path"]).read_bytes()
        [prediction] = task["predictions"]
        for region in prediction["result"]:
            assert (region["from_name"], region["to_name"]) == (choices.get("name"), image.get("name"))
            assert region["type"] == "choices"
        chosen = [choice for region in prediction["result"] for choice in region["value"]["choices"]]
        assert chosen == labels_of(task["data"]["path"])


def test_choices_are_what_xml_can_hold_and_differ() -> None:
    made = choices_of(["a\x00b", "a\x01b", "plain", "new\nline", "\ud800"])
    assert len(set(made)) == 5
    assert made[2:4] == ("plain", "new line")
    document = "".join(f'<Choice value="{choice}"/>' for choice in made)
    assert [each.get("value") for each in ElementTree.fromstring(f"<View>{document}</View>")] == list(made)


def test_fiftyone_finds_each_image_by_its_name_without_suffix_and_classes_by_number(
    store: Store, photos: Path, tmp_path: Path
) -> None:
    """As its FiftyOneImageClassificationDatasetImporter reads: of two images of one name, but for the suffix, it would
    take one for both."""
    export(store, tmp_path / "out", ExportRequest("fiftyone"))
    document = json.loads((tmp_path / "out" / "labels.json").read_text(encoding="utf-8"))
    files = {path.stem: path for path in (tmp_path / "out" / "data").iterdir()}
    assert len(files) == len(document["labels"]) == len(PATHS)
    contents, margins, found = {(photos / path).read_bytes(): path for path in PATHS}, margins_of(store), {}
    for name, classifications in document["labels"].items():
        path = contents[files[name].read_bytes()]
        found[path] = [document["classes"][each["label"]] for each in classifications]
        for each in classifications:
            margin = margins[path][document["classes"][each["label"]]]
            assert np.float32(each["attributes"]["margin"]) == np.float32(margin)
    assert found == {path: labels_of(path) for path in PATHS}


def test_lance_reads_images_labels_and_searches_by_vector(store: Store, photos: Path, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance", reason="the extra lance")
    report = export(store, tmp_path / "out", ExportRequest("lance", shard_mb=1))
    data = lance.dataset(str(tmp_path / "out" / "images.lance"))
    rows = data.to_table().to_pylist()
    assert data.version == 1
    assert [row["path"] for row in rows] == store.ok_images()["path"].to_pylist()
    assert [row["labels"] for row in rows] == [labels_of(row["path"]) for row in rows]
    assert [row["image"] for row in rows] == [(photos / row["path"]).read_bytes() for row in rows]
    assert np.array_equal(np.array([row["margins"] for row in rows], np.float32), store.labels().margin)
    assert json.loads(data.schema.metadata[b"domains"]) == list(LABELS)
    embeddings = store.embeddings()
    for number, embedding in enumerate(embeddings):
        nearest = data.to_table(nearest={"column": "vector", "q": embedding, "k": 1}, columns=["path"])
        assert nearest["path"].to_pylist() == [rows[number]["path"]]
    assert np.array_equal(np.array([row["vector"] for row in rows], np.float32), embeddings)
    assert report.exported == 5


def test_lance_without_labels_and_in_several_files(
    photos: Path, make_labelled_store: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lance = pytest.importorskip("lance", reason="the extra lance")
    monkeypatch.setattr(ExportRequest, "shard_bytes", 5000)  # two of these images, or one
    store = make_labelled_store(photos, None)
    export(store, tmp_path / "out", ExportRequest("lance"))
    data = lance.dataset(str(tmp_path / "out" / "images.lance"))
    assert len(data.get_fragments()) == len([*(tmp_path / "out" / "images.lance" / "data").iterdir()]) > 1
    assert data.schema.names == ["image", "image_id", "path", "width", "height", "vector"]
    assert data.to_table(columns=["path"])["path"].to_pylist() == store.ok_images()["path"].to_pylist()
    assert data.take([4, 0], columns=["path"])["path"].to_pylist() == [PATHS[4], PATHS[0]]


def test_embedding_atlas_has_images_vectors_and_a_column_for_each_label_and_margin(store: Store, photos: Path,
                                                                                 tmp_path: Path) -> None:  # fmt: skip
    report = export(store, tmp_path / "out", ExportRequest("embedding-atlas"))
    table = pq.read_table(tmp_path / "out" / "atlas-00000.parquet")
    labels = store.labels()
    assert len(table) == report.exported == len(labels.paths)
    assert table["path"].to_pylist() == labels.paths.tolist()
    for n, name in enumerate(labels.domains):
        assert table[f"label: {name}"].to_pylist() == labels.active[:, n].tolist()
        assert np.array_equal(table[f"margin: {name}"].to_numpy(), labels.margin[:, n])
    vectors = np.stack(table["vector"].to_numpy(zero_copy_only=False))
    assert np.array_equal(vectors, store.embeddings())
    for image, path in zip(table["image"].to_pylist(), table["path"].to_pylist(), strict=True):
        assert image == {"bytes": (photos / path).read_bytes(), "path": Path(path).name}
