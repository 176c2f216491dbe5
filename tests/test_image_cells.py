"""Cells of text that hold images, in every kind of table, and what is told of those that hold none."""

from __future__ import annotations

import base64
import csv
import io
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.clip.models import ClipModel
from pipeline.decoding.limits import ImageError
from pipeline.embedding.embed import embed
from pipeline.inputs import cell_rows
from pipeline.inputs.image_cells import held_bytes, image_cell
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.places import Input


def image(kind: str, seed: int = 0) -> bytes:
    sink = io.BytesIO()
    Image.frombytes("RGB", (12, 12), random.Random(seed).randbytes(432)).save(sink, kind)
    return sink.getvalue()


KINDS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"]
TEXTS: dict[str, Callable[[bytes], str]] = {
    "base64": lambda data: base64.b64encode(data).decode(),
    "unpadded, of URLs": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    "in lines": lambda data: base64.encodebytes(data).decode(),
    "data URL": lambda data: f"data:image/png;base64,{base64.b64encode(data).decode()}",
    "percent": lambda data: "DATA:image/png," + "".join(f"%{byte:02x}" for byte in data),
    "python": lambda data: str({"bytes": data, "path": 'it\'s "a".png'}),
    "json": lambda data: json.dumps({"path": "a.png", "bytes": base64.b64encode(data).decode()}),
    "numbers": lambda data: json.dumps({"bytes": list(data), "path": None}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_images_of_every_kind_are_told_from_paths_and_read_back(kind: str, text: str) -> None:
    data = image(kind)
    cell = TEXTS[text](data)
    found = image_cell(cell)
    assert found.held
    assert found.path == {"python": 'it\'s "a".png', "json": "a.png"}.get(text)
    assert held_bytes(cell) == data


@pytest.mark.parametrize(
    "path",
    ["a.jpg", "/9j/4AAQSkZJRg/a.jpg", "iVBORw0KGgo/" * 9 + "a.png", "Qk0/x", "data/a.jpg", "https://host/a?b=data:x",
     "{'a'}.png", "x" * 4096, "UklGR", "R0lGOD/" * 20 + "photo.gif"],
)  # fmt: skip
def test_paths_stay_paths(path: str) -> None:
    assert image_cell(path) == (False, path)


def test_a_struct_without_bytes_is_its_path_or_no_image() -> None:
    assert image_cell('{"bytes": null, "path": "a b.png"}') == (False, "a b.png")
    assert image_cell("{'bytes': None, 'path': 'a.png'}") == (False, "a.png")
    assert image_cell('{"bytes": null, "path": null}') == (False, None)


def as_csv(path: Path, ids: list[str], cells: list[str]) -> Path:
    with path.with_suffix(".csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "image"], *zip(ids, cells, strict=True)])
    return path.with_suffix(".csv")


def as_json_lines(path: Path, ids: list[str], cells: list[str]) -> Path:
    rows = [{"id": name, "image": json.loads(cell) if cell.startswith("{") else cell}
            for name, cell in zip(ids, cells, strict=True)]  # fmt: skip
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.with_suffix(".jsonl")


def as_parquet(path: Path, ids: list[str], cells: list[str]) -> Path:
    pq.write_table(pa.table({"id": ids, "image": cells}), path.with_suffix(".parquet"), row_group_size=3)
    return path.with_suffix(".parquet")


WRITERS = [as_csv, as_json_lines, as_parquet]


def read(origin: Input) -> dict[str, bytes]:
    return {place.path: origin.read(place.path, place.offset, place.bytes) for place in origin.places()}


@pytest.mark.parametrize("write", WRITERS)
def test_tables_of_texts_give_the_images_that_they_hold_and_those_that_they_name(
    tmp_path: Path, write: Callable[[Path, list[str], list[str]], Path]
) -> None:
    (tmp_path / "f.png").write_bytes(b"a file")
    images = [image("PNG", seed) for seed in range(3)]
    cells = [TEXTS["base64"](images[0]), "f.png", "", TEXTS["data URL"](images[1]), TEXTS["json"](images[2])]
    [origin] = open_inputs([write(tmp_path / "t", ["one", "two", "three", "", "five"], cells)])
    assert read(origin) == {"one": images[0], "f.png": b"a file", "row-000000003": images[1], "five": images[2]}
    assert [place.offset for place in origin.places()] == [0, None, 3, 4]
    assert all(place.modified_ns for place in origin.places())


@pytest.mark.parametrize("write", WRITERS)
def test_threads_read_rows_in_any_order_though_few_cells_are_kept(
    tmp_path: Path, write: Callable[[Path, list[str], list[str]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_rows, "_LEAST_CELLS", 2)
    monkeypatch.setattr(cell_rows, "_KEPT_CHARACTERS", 3000)
    images = [image("PNG", seed) for seed in range(12)]
    [origin] = open_inputs([write(tmp_path / "t", [str(row) for row in range(12)], [*map(TEXTS["base64"], images)])])
    rows = random.Random(0).choices(range(12), k=60)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda row: origin.read("", row, None), rows)) == [images[row] for row in rows]


def test_a_cell_that_is_neither_is_a_failed_row_told_in_one_short_line(tiny_clip: ClipModel, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(
        f"id\timage\na\t{TEXTS['base64'](image('PNG'))}\nb\t{'no image ' * 9999}\nc\tdata:,\n"
    )
    report = embed([tmp_path / "t.tsv"], tmp_path / "s", tiny_clip)
    assert (report.found, report.ok, report.failed) == (3, 1, 2)
    [origin] = open_inputs([tmp_path / "t.tsv"])
    with pytest.raises(ImageError) as caught:
        origin.read("b", 1, None)
    assert len(str(caught.value)) < 120
    assert "holds neither a path nor an image (no image no image" in str(caught.value)
