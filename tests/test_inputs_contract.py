"""Whatever an input is and wherever it lies, it yields the same images: once each, readable by many threads."""

from __future__ import annotations

import csv
import io
import json
import pickle
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline.inputs.opening import open_inputs, open_source
from pipeline.inputs.places import Input, Place
from pipeline.inputs.storage import is_url

NAMES = [
    "a.jpg",
    "b c/d.PNG",
    "b c/Été\u0301 1.JPEG",
    "new\nline.webp",
    "x,\"y'.tiff",
    "deep/er/[1]{2}*.gif",
    "100%.bmp",
]
IMAGES = {name: bytes(range(number, 251)) * (number + 1) for number, name in enumerate(NAMES)}

Build = Callable[[Path], str]
"""Writes IMAGES below a folder and returns what the user types, relative to the folder."""


class Elsewhere(LocalFileSystem):
    """This machine's files behind URLs: what is read through fsspec though it lies on a disk."""

    protocol = ("elsewhere",)

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return str(super()._strip_protocol(str(path).removeprefix("elsewhere://")))


fsspec.register_implementation("elsewhere", Elsewhere, clobber=True)


def write_files(folder: Path) -> None:
    for name, data in IMAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def folder(root: Path) -> str:
    write_files(root / "photos")
    (root / "photos" / "notes.txt").write_text("not an image")
    return "photos"


def write_csv(path: Path, column: str, delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["label", column, "caption"])
        writer.writerows([number, name, "two\nlines"] for number, name in enumerate(IMAGES))


def write_json_lines(path: Path, column: str) -> None:
    rows = ({"label": number, column: name} for number, name in enumerate(IMAGES))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def imagefolder_csv(root: Path) -> str:
    folder(root)
    write_csv(root / "photos" / "metadata.csv", "file_name")
    return "photos"


def imagefolder_jsonl(root: Path) -> str:
    folder(root)
    write_json_lines(root / "photos" / "metadata.jsonl", "file_name")
    return "photos"


def imagefolder_parquet(root: Path) -> str:
    folder(root)
    pq.write_table(pa.table({"file_name": list(IMAGES)}), root / "photos" / "metadata.parquet")
    return "photos"


def tar(root: Path, form: int = tarfile.PAX_FORMAT) -> str:
    with tarfile.open(root / "photos.tar", "w", format=form) as sink:
        for name, data in IMAGES.items():
            for suffix, content in (("", data), (".json", b"{}")):
                member = tarfile.TarInfo(name + suffix)
                member.size = len(content)
                sink.addfile(member, io.BytesIO(content))
    return "photos.tar"


def gnu_tar(root: Path) -> str:
    return tar(root, tarfile.GNU_FORMAT)


def zipped(root: Path, compression: int = zipfile.ZIP_STORED) -> str:
    with zipfile.ZipFile(root / "photos.zip", "w", compression) as sink:
        for name, data in IMAGES.items():
            sink.writestr(name, data)
            sink.writestr(f"{name}.json", b"{}")
    return "photos.zip"


def deflated_zip(root: Path) -> str:
    return zipped(root, zipfile.ZIP_DEFLATED)


def table_csv(root: Path) -> str:
    write_files(root)
    write_csv(root / "table.csv", "image_path")
    return "table.csv"


def table_tsv(root: Path) -> str:
    write_files(root)
    write_csv(root / "table.tsv", "Filename", "\t")
    return "table.tsv"


def table_jsonl(root: Path) -> str:
    write_files(root)
    write_json_lines(root / "table.jsonl", "path")
    return "table.jsonl"


def table_paths(root: Path) -> str:
    write_files(root)
    column = pa.array(list(IMAGES)).dictionary_encode()
    pq.write_table(pa.table({"width": [7] * len(IMAGES), "image": column}), root / "table.parquet", row_group_size=3)
    return "table.parquet"


def table_bytes(root: Path) -> str:
    columns = {"label": ["x"] * len(IMAGES), "key": list(IMAGES), "jpg": list(IMAGES.values())}
    pq.write_table(pa.table(columns), root / "table.parquet", row_group_size=3)
    return "table.parquet"


def table_struct(root: Path) -> str:
    rows = [{"bytes": data, "path": name} for name, data in IMAGES.items()]
    pq.write_table(pa.table({"image": rows, "label": range(len(rows))}), root / "table.parquet", row_group_size=2)
    return "table.parquet"


def table_struct_of_paths(root: Path) -> str:
    """As `datasets` saves a table whose images stay files."""
    write_files(root)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": None, "path": name} for name in IMAGES], kind)
    pq.write_table(pa.table({"image": rows}), root / "table.parquet", row_group_size=2)
    return "table.parquet"


BUILDERS: list[Build] = [
    folder, imagefolder_csv, imagefolder_jsonl, imagefolder_parquet, tar, gnu_tar, zipped, deflated_zip, table_csv,
    table_tsv, table_jsonl, table_paths, table_bytes, table_struct, table_struct_of_paths,
]  # fmt: skip
HAVE_OFFSETS = [tar, gnu_tar, zipped, deflated_zip, table_bytes, table_struct]


@pytest.fixture(params=["disk", "file", "memory", "elsewhere"])
def reached(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Build], str]]:
    """Builds an input and gives its name: on the disk, or behind one of three kinds of URL."""
    memory = fsspec.filesystem("memory")

    def reach(build: Build) -> str:
        root = tmp_path / "a folder"
        root.mkdir()
        text = build(root)
        if request.param == "memory":
            for path in root.rglob("*"):
                if path.is_file():
                    memory.pipe_file(f"/bucket/{path.relative_to(root).as_posix()}", path.read_bytes())
            return f"memory://bucket/{text}"
        prefix = {"disk": "", "file": "file://", "elsewhere": "elsewhere://"}[request.param]
        return f"{prefix}{root / text}"

    yield reach
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def read(origin: Input, place: Place) -> bytes:
    return origin.read(place.path, place.offset, place.bytes)


@pytest.mark.parametrize("build", BUILDERS)
def test_every_image_comes_once_and_reads_back(build: Build, reached: Callable[[Build], str]) -> None:
    text = reached(build)
    [origin] = open_inputs([text])
    places = list(origin.places())
    assert {place.path: read(origin, place) for place in places} == IMAGES
    assert len(places) == len(IMAGES)
    assert {place.source for place in places} == {origin.source}
    assert all((place.offset is not None) == (build in HAVE_OFFSETS) for place in places)
    assert all(place.bytes in (None, len(IMAGES[place.path])) for place in places)
    assert origin.exists()
    assert is_url(origin.source) == text.startswith(("memory:", "elsewhere:"))
    if not is_url(origin.source):
        assert all(place.modified_ns for place in places), "a second run would read every image again"
    assert not origin.warnings
    assert list(origin.places()) == places, "a second listing differs"


@pytest.mark.parametrize("build", [folder, tar, deflated_zip, table_csv, table_struct])
def test_a_stored_source_opens_again_and_travels_to_other_processes(
    build: Build, reached: Callable[[Build], str]
) -> None:
    [first] = open_inputs([reached(build)])
    places = list(first.places())
    read(first, places[0])  # files are open, caches filled
    for again in (open_source(first.source, first.image_column), pickle.loads(pickle.dumps(first))):
        assert (again.source, again.image_column) == (first.source, first.image_column)
        assert [read(again, place) for place in places] == [IMAGES[place.path] for place in places]


@pytest.mark.parametrize("build", [folder, tar, deflated_zip, table_csv, table_bytes, table_struct])
def test_many_threads_read_at_once(build: Build, reached: Callable[[Build], str]) -> None:
    [origin] = open_inputs([reached(build)])
    places = list(origin.places())
    barrier = threading.Barrier(8)

    def work(shift: int) -> bool:
        barrier.wait()
        turned = places[shift:] + places[:shift]
        return all(read(origin, place) == IMAGES[place.path] for place in turned * 5)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
