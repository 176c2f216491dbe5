"""Every layout of ``lanit export`` is read back by the tool that it is for."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from pipeline.exports.clip_retrieval import ClipRetrieval
from pipeline.exports.export import export, select
from pipeline.exports.layouts import ExportRequest
from pipeline.inspection.inspect_labels import inspect_labels
from pipeline.labelling.known_labels import read_truth
from pipeline.store.store import Store

FORMATS = {"a/1.jpg": "JPEG", "a/b.c/2.PNG": "PNG", "a__1.jpg": "JPEG", "été bleu/3 x.png": "PNG",
           "wrong suffix.png": "JPEG", "z.gif": "GIF", "z.bmp": "BMP"}  # fmt: skip
LABELS = {
    "smiling": {"a/1.jpg", "été bleu/3 x.png", "z.gif"},
    "a/b: odd|name": {"a/1.jpg", "a__1.jpg"},
    "never seen": set[str](),
}
UNLABELLED = {"a/b.c/2.PNG", "wrong suffix.png", "z.bmp"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven images of as many sizes, and a file that is none."""
    rng = np.random.default_rng(5)
    for number, (name, kind) in enumerate(FORMATS.items()):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (21 + number, 40 - number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, kind)
    (tmp_path / "photos" / "bad.jpg").write_text("no picture")
    return tmp_path / "photos"


@pytest.fixture
def store(photos: Path, make_labelled_store: Callable[..., Store]) -> Store:
    return make_labelled_store(photos, LABELS)


def labels_of(path: str) -> list[str]:
    return [domain for domain, having in LABELS.items() if path in having]


def paths_of(store: Store) -> list[str]:
    return store.ok_images()["path"].to_pylist()


# clip-retrieval


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_clip_retrieval_embeddings_are_the_stores_own_bit_for_bit(
    storage: str, photos: Path, make_labelled_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = make_labelled_store(photos, LABELS, storage=storage)
    report = export(store, tmp_path / "out", ExportRequest("clip-retrieval"))
    array = np.load(tmp_path / "out" / "img_emb" / "img_emb_0.npy")
    assert array.dtype == storage
    assert np.array_equal(array.astype(np.float32), store.embeddings())
    assert (report.exported, report.files) == (7, 2)


def test_clip_retrieval_metadata_lie_row_by_row_beside_the_embeddings(
    store: Store, photos: Path, tmp_path: Path
) -> None:
    export(store, tmp_path / "out", ExportRequest("clip-retrieval"))
    frame = pd.read_parquet(tmp_path / "out" / "metadata" / "metadata_0.parquet")
    assert frame["image_path"].tolist() == [str(photos / path) for path in paths_of(store)]
    assert all(Path(path).is_file() for path in frame["image_path"])
    assert frame["caption"].tolist() == [", ".join(labels_of(path)) for path in paths_of(store)]
    assert frame["image_id"].tolist() == store.ok_images()["image_id"].to_pylist()


def test_clip_retrieval_shards_sort_by_name_and_together_are_all_rows(store: Store, tmp_path: Path) -> None:
    store.ok_images()
    request = ExportRequest("clip-retrieval")
    selection = select(store, request)
    for shard_rows, expected in ((1, [1] * 7), (2, [2, 2, 2, 1]), (4, [4, 3]), (7, [7])):
        folder = tmp_path / str(shard_rows)
        folder.mkdir()
        target = ClipRetrieval(selection, request, lambda done: None, shard_rows=shard_rows)
        stops = [chunk.stop for chunk in target.chunks(folder, 0, 0)]
        arrays = [np.load(path) for path in sorted((folder / "img_emb").iterdir())]
        tables = [pq.read_table(path) for path in sorted((folder / "metadata").iterdir())]
        assert [len(array) for array in arrays] == [len(table) for table in tables] == expected
        assert stops == np.cumsum(expected).tolist()
        assert np.array_equal(np.concatenate(arrays), store.embeddings())
    many = ClipRetrieval(selection, request, lambda done: None, shard_rows=1)
    assert many._digits == 1  # clip-retrieval pads to the digits of the number of files
    assert {path.name for path in (tmp_path / "2" / "img_emb").iterdir()} == {f"img_emb_{n}.npy" for n in range(4)}


def test_embedding_reader_reads_the_clip_retrieval_layout(store: Store, tmp_path: Path) -> None:
    embedding_reader = pytest.importorskip("embedding_reader", reason="reads what clip-retrieval writes")
    export(store, tmp_path / "out", ExportRequest("clip-retrieval"))
    reader = embedding_reader.EmbeddingReader(str(tmp_path / "out" / "img_emb") + "/", file_format="npy")
    blocks = [block.copy() for block, _ in reader(batch_size=3, show_progress=False)]
    assert (reader.count, reader.dimension) == (7, 6)
    assert np.array_equal(np.concatenate(blocks), store.embeddings())


def test_autofaiss_builds_an_index_of_the_clip_retrieval_layout(store: Store, tmp_path: Path) -> None:
    autofaiss = pytest.importorskip("autofaiss", reason="clip-retrieval's index builder")
    export(store, tmp_path / "out", ExportRequest("clip-retrieval"))
    index, _ = autofaiss.build_index(
        embeddings=str(tmp_path / "out" / "img_emb") + "/", save_on_disk=False, should_be_memory_mappable=False
    )
    _, nearest = index.search(store.embeddings(), 1)
    assert nearest[:, 0].tolist() == list(range(7))


# webdataset


def test_webdataset_reads_every_image_with_its_original_bytes_and_labels(
    store: Store, photos: Path, tmp_path: Path
) -> None:
    wds = pytest.importorskip("webdataset", reason="reads the tars")
    report = export(store, tmp_path / "out", ExportRequest("webdataset", embeddings=True))
    samples = list(wds.WebDataset(str(tmp_path / "out" / "images-000000.tar"), shardshuffle=False))
    documents = [json.loads(sample["json"]) for sample in samples]
    assert [document["path"] for document in documents] == paths_of(store)
    assert [sample["__key__"] for sample in samples] == store.ok_images()["image_id"].to_pylist()
    expected = {"a/1.jpg": "jpg", "wrong suffix.png": "jpg", "z.gif": "gif", "z.bmp": "bmp"}
    for sample, document in zip(samples, documents, strict=True):
        (suffix,) = set(sample) - {"__key__", "__url__", "__local_path__", "json", "npy"}
        assert suffix == expected.get(document["path"], suffix)
        assert sample[suffix] == (photos / document["path"]).read_bytes()
        assert document["labels"] == labels_of(document["path"])
        assert [name for name, margin in document["margins"].items() if margin > 0] == document["labels"]
        with Image.open(photos / document["path"]) as image:
            assert (document["width"], document["height"]) == image.size
    decoded = wds.WebDataset(str(tmp_path / "out" / "images-000000.tar"), shardshuffle=False).decode("rgb8")
    assert np.array_equal(np.stack([sample["npy"] for sample in decoded]), store.embeddings())
    assert (report.exported, report.files) == (7, 1)


def test_webdataset_margins_are_the_stores_own_float32(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "out", ExportRequest("webdataset"))
    with tarfile.open(tmp_path / "out" / "images-000000.tar") as tar:
        members = [tar.extractfile(member) for member in tar if member.name.endswith(".json")]
        margins = [list(json.load(member)["margins"].values()) for member in members if member]
    assert np.array_equal(np.array(margins, np.float32), store.labels().margin)


def test_webdataset_shards_hold_at_most_so_many_bytes_and_a_larger_image_stands_alone(
    tmp_path: Path, make_labelled_store: Callable[..., Store]
) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number, side in enumerate((300, 300, 300, 800, 300, 300, 300, 300)):  # noise: 270 kB, and 1.9 MB
        image = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        image.save(tmp_path / "photos" / f"{number}.png")
    store = make_labelled_store(tmp_path / "photos", None)
    report = export(store, tmp_path / "out", ExportRequest("webdataset", shard_mb=1))
    found = []
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar:
            found.append([member.size for member in tar if member.name.endswith(".png")])
    assert [len(sizes) for sizes in found] == [3, 1, 3, 1]
    assert all(sum(sizes) <= 1_000_000 or len(sizes) == 1 for sizes in found)
    assert report.files == 4


# Hugging Face


def test_datasets_loads_images_class_labels_and_embeddings(store: Store, photos: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="reads the Hugging Face layout")
    report = export(store, tmp_path / "out", ExportRequest("huggingface", embeddings=True))
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    data = loaded["train"]
    assert data.num_rows == report.exported == 7
    assert isinstance(data.features["image"], datasets.Image)
    names = data.features["labels"].feature.names
    assert names == list(LABELS)
    for row in data:
        assert [names[number] for number in row["labels"]] == labels_of(row["path"])
        with Image.open(photos / row["path"]) as original:
            assert np.array_equal(np.asarray(row["image"].convert("RGB")), np.asarray(original.convert("RGB")))
            assert (row["width"], row["height"]) == original.size
    raw = data.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in raw] == [(photos / path).read_bytes() for path in paths_of(store)]
    assert np.array_equal(np.array(data["embedding"], np.float32), store.embeddings())
    assert np.array_equal(np.array(data["margins"], np.float32), store.labels().margin)


def test_datasets_loads_a_store_without_labels(
    photos: Path, make_labelled_store: Callable[..., Store], tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets", reason="reads the Hugging Face layout")
    export(make_labelled_store(photos, None), tmp_path / "out", ExportRequest("huggingface"))
    data = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert set(data.column_names) == {"image", "image_id", "path", "width", "height"}
    assert data.num_rows == 7


def test_the_dataset_card_counts_and_says_what_made_the_labels(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "out", ExportRequest("huggingface"))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "# 7 images" in card
    assert "| smiling | 3 | 42.9% |" in card
    assert "| a/b: odd\\|name | 2 | 28.6% |" in card
    assert "| never seen | 0 | 0.0% |" in card
    assert "unseen by a human eye: made-up" in card
    assert "n<1K" in card


# folders


@pytest.mark.parametrize("files", ["copy", "hardlink", "symlink"])
def test_image_folder_finds_every_image_in_the_folder_of_each_label(
    files: Any, store: Store, photos: Path, tmp_path: Path
) -> None:
    report = export(store, tmp_path / "out", ExportRequest("folders", files=files))
    folder = ImageFolder(str(tmp_path / "out"), is_valid_file=lambda path: True)
    assert folder.classes == ["_unlabelled", "a_b_ odd_name", "smiling"]
    named = dict(zip(folder.classes, ({*UNLABELLED}, LABELS["a/b: odd|name"], LABELS["smiling"]), strict=True))
    contents = {(photos / path).read_bytes(): path for path in FORMATS}
    found: dict[str, set[str]] = {name: set() for name in folder.classes}
    for path, number in folder.samples:
        found[folder.classes[number]].add(contents[Path(path).read_bytes()])
        original = photos / contents[Path(path).read_bytes()]
        assert Path(path).is_symlink() == (files == "symlink")
        assert Path(path).samefile(original) == (files != "copy")
    assert found == named
    assert len(folder) == report.files == 3 + 2 + 3
    assert report.groups == {"smiling": 3, "a/b: odd|name": 2, "never seen": 0, "_unlabelled": 3}


def test_names_in_folders_tell_the_path_and_never_meet(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "out", ExportRequest("folders", only_labelled=True))
    ids = dict(zip(paths_of(store), store.ok_images()["image_id"].to_pylist(), strict=True))
    assert {path.name for path in (tmp_path / "out" / "a_b_ odd_name").iterdir()} == {
        f"a__1~{ids['a/1.jpg']}.jpg",
        f"a__1~{ids['a__1.jpg']}.jpg",
    }
    assert "été bleu__3 x.png" in {path.name for path in (tmp_path / "out" / "smiling").iterdir()}
    assert not (tmp_path / "out" / "_unlabelled").exists()


@pytest.mark.parametrize(
    ("pairs", "without", "having"),
    [
        (("Smiling",), {"a__1.jpg", *UNLABELLED}, LABELS["smiling"]),
        (("smiling", "a/b: odd|name"), {"été bleu/3 x.png", "z.gif"}, {"a__1.jpg"}),
    ],
)
def test_pairs_part_the_images_into_train_a_and_train_b(
    pairs: tuple[str, ...], without: set[str], having: set[str], store: Store, photos: Path, tmp_path: Path
) -> None:
    report = export(store, tmp_path / "out", ExportRequest("folders", pairs=pairs))
    contents = {(photos / path).read_bytes(): path for path in FORMATS}
    for name, expected in (("trainA", without), ("trainB", having)):
        assert {contents[path.read_bytes()] for path in (tmp_path / "out" / name).iterdir()} == expected
    assert report.exported == len(without | having)
    assert report.images == 8 == report.exported + report.left_out + report.failed


# csv


def test_pandas_reads_the_table_and_inspect_labels_takes_it_for_truth(store: Store, tmp_path: Path) -> None:
    report = export(store, tmp_path / "out", ExportRequest("csv", margins=True))
    frame = pd.read_csv(tmp_path / "out" / "images.csv")
    assert frame["path"].tolist() == paths_of(store)
    assert set(frame["status"]) == {"ok"}
    revision = store.labels()
    assert np.array_equal(frame[list(LABELS)].to_numpy(), revision.active.astype(int))
    margins = frame[[f"margin:{domain}" for domain in LABELS]].to_numpy(np.float32)
    assert np.array_equal(margins, revision.margin)
    truth = read_truth(tmp_path / "out" / "images.csv", revision.domains)
    scores = inspect_labels(revision, truth=truth).scores
    assert scores is not None
    assert (scores.images, scores.subset_accuracy, scores.domains_without_truth) == (7, 1.0, ())
    failed = pd.read_csv(tmp_path / "out" / "failed.csv")
    assert failed[["path", "status", "error_message"]].values.tolist() == [
        ["bad.jpg", "failed", "made up, with a comma"]
    ]
    assert (report.exported, report.failed, report.files) == (7, 1, 2)


def test_a_domain_named_as_a_column_of_ours_keeps_its_name(
    photos: Path, make_labelled_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = make_labelled_store(photos, {"path": {"z.gif"}, "Image ID": {"z.bmp"}, "width": set()})
    export(store, tmp_path / "out", ExportRequest("csv"))
    frame = pd.read_csv(tmp_path / "out" / "images.csv")
    assert frame.columns.tolist()[:4] == ["lanit_image_id", "lanit_path", "source", "lanit_width"]
    assert frame["lanit_path"][frame["path"] == 1].tolist() == ["z.gif"]
    assert frame["lanit_path"][frame["Image ID"] == 1].tolist() == ["z.bmp"]
