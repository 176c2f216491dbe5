"""The same images through every kind of input: the same embeddings, and each can be opened again from the store."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.clip.models import ClipModel
from pipeline.decoding.images import decode_rgb
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.store.image_cache import open_sized_images
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages

COUNT = 7


def as_folder(images: Path, out: Path) -> list[str | Path]:
    return [images]


def as_tars(images: Path, out: Path) -> list[str | Path]:
    for number, files in enumerate(np.array_split(sorted(images.rglob("*.png")), 2)):
        with tarfile.open(out / f"{number:03d}.tar", "w") as archive:
            for file in files:
                archive.add(file, file.relative_to(images).as_posix())
                data = b"a caption"
                member = tarfile.TarInfo(f"{file.stem}.txt")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return [f"{out}/{{000..001}}.tar"]


def as_parquet_of_structs(images: Path, out: Path) -> list[str | Path]:
    rows = [
        {"bytes": file.read_bytes(), "path": file.relative_to(images).as_posix()}
        for file in sorted(images.rglob("*.png"))
    ]
    pq.write_table(pa.table({"image": rows, "label": list(range(len(rows)))}), out / "rows.parquet", row_group_size=3)
    return [out / "rows.parquet"]


def as_parquet_of_bytes(images: Path, out: Path) -> list[str | Path]:
    files = sorted(images.rglob("*.png"))
    columns = {"path": [file.relative_to(images).as_posix() for file in files], "jpeg": [f.read_bytes() for f in files]}
    pq.write_table(pa.table(columns), out / "rows.parquet")
    return [out / "rows.parquet"]


def as_csv(images: Path, out: Path) -> list[str | Path]:
    with (out / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_path", "caption"])
        writer.writerows([[str(path), "x"] for path in sorted(images.rglob("*.png"))])
    return [out / "list.csv"]


def as_hugging_face_folder(images: Path, out: Path) -> list[str | Path]:
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    (images / "metadata.csv").write_text("file_name,text\n" + "".join(f"{name},x\n" for name in names))
    return [images]


def as_memory_folder(images: Path, out: Path) -> list[str | Path]:
    memory = fsspec.filesystem("memory")
    for path in images.rglob("*.png"):
        memory.pipe(f"/lanit-test/{path.relative_to(images).as_posix()}", path.read_bytes())
    return ["memory://lanit-test"]


KINDS: list[Callable[[Path, Path], list[str | Path]]] = [
    as_folder, as_tars, as_parquet_of_structs, as_parquet_of_bytes, as_csv, as_hugging_face_folder, as_memory_folder
]  # fmt: skip


@pytest.fixture(autouse=True)
def empty_memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_input_gives_the_same_embeddings_and_can_be_opened_again(
    kind: Callable[[Path, Path], list[str | Path]],
    make_images: Callable[..., Path],
    tiny_clip: ClipModel,
    tmp_path: Path,
) -> None:
    images, out, root = make_images(COUNT), tmp_path / "input", tmp_path / "store"
    files = {file.read_bytes() for file in images.rglob("*.png")}
    out.mkdir()
    embed([images], tmp_path / "plain", tiny_clip, EmbedOptions(batch_size=1))
    plain = dict(zip(*(column(tmp_path / "plain", name) for name in ("sha256", "embedding")), strict=True))
    report = embed(kind(images, out), root, tiny_clip, EmbedOptions(batch_size=1))
    assert (report.found, report.ok, report.failed, report.skipped) == (COUNT, COUNT, 0, 0)
    for sha256, embedding in zip(*(column(root, name) for name in ("sha256", "embedding")), strict=True):
        np.testing.assert_array_equal(embedding, plain[sha256])
    again = embed(kind(images, out), root, tiny_clip)
    assert (again.ok, again.skipped, again.dropped, again.kept) == (0, COUNT, 0, 0)

    stored = StoreImages(Store.open(root))
    assert {stored.read(row) for row in range(COUNT)} == files
    assert all(stored.thumbnail(row) for row in range(COUNT))
    cache = open_sized_images(Store.open(root), 32, 1.0).take(np.arange(COUNT))
    assert cache.shape == (COUNT, 3, 32, 32)
    assert decode_rgb(stored.read(3)).std() > 10
    assert cache[3].std() > 10


def test_a_folder_packed_into_a_tar_is_recognised_by_its_content(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    images, root = make_images(COUNT), tmp_path / "store"
    embed([images], root, tiny_clip)
    report = embed(as_tars(images, tmp_path), root, tiny_clip)
    assert (report.ok, report.skipped, report.kept, report.stored) == (0, COUNT, COUNT, 2 * COUNT)


def test_several_inputs_at_once_are_one_table(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    images, other = make_images(COUNT), make_images(3, "other", seed=1)
    report = embed([*as_tars(images, tmp_path), other], tmp_path / "store", tiny_clip)
    assert (report.found, report.ok, len(report.sources)) == (COUNT + 3, COUNT + 3, 3)
    sources = Store.open(tmp_path / "store").images(["source"])["source"].to_pylist()
    assert sources == sorted(sources)


def column(root: Path, name: str) -> list[Any]:
    return Store.open(root).images([name])[name].to_pylist()
