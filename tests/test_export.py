"""Stage export, whatever the layout: true counts, folders that appear whole, interruptions, refusals, the command."""

from __future__ import annotations

import importlib.util
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

import cli
import pipeline.exports.export
import pipeline.exports.image_files
from lanit.errors import LanitError, UsageError
from pipeline.embedding.embed import embed
from pipeline.exports.export import export
from pipeline.exports.layouts import LAYOUTS, ExportRequest, parse_pairs
from pipeline.exports.naming import FileNames, folder_names, suffix_of
from pipeline.inputs.opening import open_inputs
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import Store
from tests.label_builders import add_labels


def needs_lance(*values: Any) -> Any:
    missing = importlib.util.find_spec("lance") is None
    return pytest.param(*values, marks=pytest.mark.skipif(missing, reason="the extra lance is not installed"))


EVERY = [needs_lance(layout) if layout == "lance" else layout for layout in LAYOUTS]
WITH_IMAGES = [layout for layout in EVERY if layout not in ("clip-retrieval", "csv")]
NEED_LABELS = ("folders", "coco", "label-studio", "fiftyone")
LISTS = {"lanit-export.json", "lanit-export.jsonl"}
LABELS = {"red": {"a/001.png", "b/000.png"}, "large": {"b/000.png", "b/002.png", "a/003.png"}}


@pytest.fixture
def photos(make_images: Callable[..., Path]) -> Path:
    """Seven images, 000 to 006, those of odd number in the folder a, and one that is none."""
    folder = make_images(7)
    (folder / "bad.png").write_text("no picture")
    return folder


@pytest.fixture
def store(photos: Path, make_labelled_store: Callable[..., Store]) -> Store:
    return make_labelled_store(photos, LABELS)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_lances_list(files: dict[str, bytes]) -> dict[str, bytes]:
    """An export without what Lance itself dates, and the digests of that."""
    if not any(name.startswith("images.lance/") for name in files):
        return files
    return {name: data for name, data in files.items() if name.startswith("images.lance/data/")}


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("layout", EVERY)
def test_counts_add_up_and_nothing_but_the_export_is_left(layout: Any, store: Store, tmp_path: Path) -> None:
    before = visible(tmp_path)
    calls: list[tuple[int, int]] = []
    request = ExportRequest(layout, only_labelled=True)
    report = export(store, tmp_path / "out", request, progress=lambda done, total: calls.append((done, total)))
    assert report.images == 8 == report.exported + report.missing + report.left_out + report.failed
    assert (report.exported, report.missing, report.left_out, report.failed) == (4, 0, 3, 1)
    assert {name: report.groups[name] for name in LABELS} == {"red": 2, "large": 3}
    assert calls[-1] == (4, 4)
    assert visible(tmp_path) == before | {"out"}
    assert not {name for name in visible(tmp_path / "out") if name.startswith(".") or "unfinished" in name}
    json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.parametrize("layout", WITH_IMAGES)
def test_missing_and_changed_images_are_listed_counted_and_not_fatal(
    layout: Any, store: Store, photos: Path, tmp_path: Path
) -> None:
    (photos / "a/003.png").unlink()
    other = np.random.default_rng(9).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    Image.fromarray(other).save(photos / "b/000.png")
    report = export(store, tmp_path / "out", ExportRequest(layout))
    assert (report.exported, report.missing, report.failed) == (5, 2, 1)
    assert {name: report.groups[name] for name in LABELS} == {"red": 1, "large": 1}
    assert report.missing_list is not None
    frame = pd.read_csv(report.missing_list)
    assert frame["path"].tolist() == ["a/003.png", "b/000.png"]
    assert "changed since it was embedded" in frame["error_message"][1]
    assert len(report.warnings) == 2
    assert "a/003.png" in report.warnings[0]


@pytest.mark.parametrize("layout", WITH_IMAGES)
def test_nothing_exported_is_an_error_and_leaves_nothing(
    layout: Any, store: Store, photos: Path, tmp_path: Path
) -> None:
    for path in photos.rglob("*.png"):
        path.unlink()
    with pytest.raises(LanitError, match=r"none of the 7 images can be exported: missing: .*a/001"):
        export(store, tmp_path / "out", ExportRequest(layout))
    assert not {name for name in visible(tmp_path) if "out" in name}


@pytest.mark.parametrize("layout", EVERY)
def test_the_same_inputs_give_the_same_bytes(
    layout: Any, photos: Path, make_labelled_store: Callable[..., Store], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        export(make_labelled_store(photos, LABELS, name=name), tmp_path / f"out-{name}", ExportRequest(layout))
    first, second = contents(tmp_path / "out-one"), contents(tmp_path / "out-two")
    assert without_lances_list(first) == without_lances_list(second)
    assert len(first) > 1


class Killed(BaseException):
    """Stands for a process that ends here."""


@pytest.mark.parametrize(
    ("layout", "reads"),
    [(layout, reads) for layout in ("webdataset", "huggingface", "folders") for reads in (1, 3, 6)]
    + [("coco", 3), ("label-studio", 3), ("fiftyone", 3), needs_lance("lance", 1), needs_lance("lance", 6)],
)
def test_an_interrupted_export_goes_on_to_the_same_bytes(
    layout: Any, reads: int, store: Store, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.exports.image_files, "_CHUNK", 2)
    (photos / "a/003.png").unlink()
    monkeypatch.setattr(ExportRequest, "shard_bytes", 8_000)  # two or three of these images
    export(store, tmp_path / "whole", ExportRequest(layout))

    def killed(done: int, total: int) -> None:
        if done > reads:
            raise Killed

    with pytest.raises(Killed):
        export(store, tmp_path / "out", ExportRequest(layout), progress=killed)
    assert not (tmp_path / "out").exists()
    begun: list[int] = []
    report = export(store, tmp_path / "out", ExportRequest(layout), progress=lambda done, total: begun.append(done))
    assert without_lances_list(contents(tmp_path / "out")) == without_lances_list(contents(tmp_path / "whole"))
    assert {*contents(tmp_path / "out")} == {*contents(tmp_path / "whole")} or layout == "lance"
    assert (report.exported, report.missing) == (6, 1)
    assert begun[0] > 1 or reads < 3  # it did go on, once there was something to go on from
    assert not (tmp_path / ".out.exporting").exists()


def test_an_interrupted_export_of_other_options_is_begun_anew(store: Store, tmp_path: Path) -> None:
    def killed(done: int, total: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        export(store, tmp_path / "out", ExportRequest("folders"), progress=killed)
    export(store, tmp_path / "out", ExportRequest("csv"))
    assert visible(tmp_path / "out") == {"images.csv", "failed.csv", *LISTS}


def test_the_same_export_again_writes_nothing_and_another_needs_overwrite(store: Store, tmp_path: Path) -> None:
    first = export(store, tmp_path / "out", ExportRequest("csv"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = export(store, tmp_path / "out", ExportRequest("csv"))
    assert (first.created, again.created) == (True, False)
    assert replace(again, created=True) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(LanitError, match="another export") as caught:
        export(store, tmp_path / "out", ExportRequest("webdataset"))
    assert "--overwrite" in caught.value.hint
    export(store, tmp_path / "out", ExportRequest("webdataset"), overwrite=True)
    assert visible(tmp_path / "out") == {"images-000000.tar", *LISTS}
    assert not {name for name in visible(tmp_path) if name.startswith(".out")}


def test_a_damaged_byte_that_no_export_reads_makes_no_other_export_and_other_labels_do(
    store: Store, tmp_path: Path
) -> None:
    file, request = store.revision_file(1), ExportRequest("folders")
    assert export(store, tmp_path / "out", request).created
    group = pq.ParquetFile(file.path).metadata.row_group(0)
    [margin] = [chunk for n in range(group.num_columns) if (chunk := group.column(n)).path_in_schema == "margin:red"]
    data = bytearray(file.path.read_bytes())
    data[margin.data_page_offset + margin.total_compressed_size - 2] ^= 1
    file.path.write_bytes(data)
    with pytest.raises(LanitError, match="cannot be read"):
        store.labels(1)
    assert not export(store, tmp_path / "out", request).created
    labels = np.ones((store.ok, len(LABELS)), bool)
    (store.root / "labels" / "r0001.parquet").unlink()
    assert add_labels(store, labels, labels * 0.1, prompts=file.prompt_set) == 1
    with pytest.raises(LanitError, match="another export"):
        export(store, tmp_path / "out", request)


def test_a_second_export_to_the_same_folder_meanwhile_is_told_so(store: Store, tmp_path: Path) -> None:
    def meanwhile(done: int, total: int) -> None:
        with pytest.raises(LanitError, match="another lanit command is writing"):
            export(store, tmp_path / "out", ExportRequest("folders"))

    assert export(store, tmp_path / "out", ExportRequest("webdataset"), progress=meanwhile).exported == 7


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_never_touched(overwrite: bool, store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "precious.txt"):
        with pytest.raises(LanitError, match=r"other files|is a file"):
            export(store, out, ExportRequest("csv"), overwrite=overwrite)
    assert contents(tmp_path / "out") == {"precious.txt": b"mine"}


def test_an_empty_folder_is_used_and_the_originals_folder_refused_for_folders(
    store: Store, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    assert export(store, tmp_path / "out", ExportRequest("csv")).created
    with pytest.raises(LanitError, match="find every image again"):
        export(store, photos / "sorted", ExportRequest("folders"))


def test_an_export_after_an_interrupted_one_never_writes_through_a_link(
    store: Store, photos: Path, tmp_path: Path
) -> None:
    originals = contents(photos)

    def killed(done: int, total: int) -> None:
        if done == 4:
            raise Killed

    for files in ("hardlink", "symlink"):
        request = ExportRequest("folders", files=files)
        with pytest.raises(Killed):
            export(store, tmp_path / "out", request, overwrite=True, progress=killed)
        export(store, tmp_path / "out", request, overwrite=True)
        export(store, tmp_path / "out", ExportRequest("folders"), overwrite=True)
    assert contents(photos) == originals


def test_a_store_without_labels_exports_what_needs_none(
    photos: Path, make_labelled_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = make_labelled_store(photos, None)
    for layout in LAYOUTS:
        if layout not in (*NEED_LABELS, "lance"):
            report = export(store, tmp_path / layout, ExportRequest(layout))
            assert (report.exported, report.revision, report.groups) == (7, None, {})
    for request in (*map(ExportRequest, NEED_LABELS), ExportRequest("csv", only_labelled=True)):
        with pytest.raises(LanitError, match="has no labels"):
            export(store, tmp_path / "out", request)


def test_labels_of_other_images_and_empty_selections_are_refused(
    store: Store, photos: Path, make_labelled_store: Callable[..., Store], tmp_path: Path
) -> None:
    (photos / "a/001.png").unlink()
    newer = make_labelled_store(photos, None, name="newer")
    (newer.root / "labels").symlink_to(store.root / "labels")
    with pytest.raises(LanitError, match=r"the store .* now holds 6, or others"):
        export(newer, tmp_path / "out", ExportRequest("csv"))
    nothing = make_labelled_store(photos, {"red": set()}, name="nothing")
    with pytest.raises(LanitError, match="no image has a label"):
        export(nothing, tmp_path / "out", ExportRequest("csv", only_labelled=True))
    with pytest.raises(LanitError, match="no image is left for trainB of 'red'"):
        export(nothing, tmp_path / "out", ExportRequest("folders", pairs=("red",)))
    with pytest.raises(LanitError, match="'blue' is no domain"):
        export(store, tmp_path / "out", ExportRequest("folders", pairs=("blue",)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"to": "csv", "embeddings": True}, "--embeddings means nothing with --to csv"),
        ({"to": "folders", "shard_mb": 3}, "--shard-size means nothing with --to folders"),
        ({"to": "webdataset", "pairs": ("red",)}, "--pairs means nothing"),
        ({"to": "clip-retrieval", "files": "copy"}, "--files means nothing"),
        ({"to": "folders", "margins": True}, "--margins means nothing"),
        ({"to": "folders", "pairs": ("a", "b", "c")}, "one domain or two"),
        ({"to": "folders", "pairs": ("red", "Red")}, "names 'red' twice"),
    ],
)
def test_options_that_a_layout_ignores_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        ExportRequest(**options)


def test_suffixes_come_from_the_data(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((5, 7, 3), np.uint8))
    expected = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif", "PPM": "ppm"}
    for kind, suffix in expected.items():
        image.save(tmp_path / "image", kind)
        assert suffix_of((tmp_path / "image").read_bytes(), "name.xyz") == suffix
    image.convert("L").save(tmp_path / "image", "PPM")
    assert suffix_of((tmp_path / "image").read_bytes(), "") == "pgm"
    assert suffix_of(b"something else", "a.b/c.XYZ") == "xyz"
    assert suffix_of(b"something else", "a.b/c") == "bin"


def test_names_are_safe_short_and_unique() -> None:
    paths = ["a/1.jpg", "A__1.JPG", "new\nline.png", "é" * 200 + ".png", "é" * 200 + "b.png", "key#17", ".x/..png"]
    names = FileNames(pa.chunked_array([paths]))
    png = b"\x89PNG\r\n\x1a\n"
    made = [names.name(path, f"{number:016x}", png) for number, path in enumerate(paths)]
    assert len({name.casefold() for name in made}) == len(paths)
    assert all(len(name.encode()) < 200 and "/" not in name and "\n" not in name for name in made)
    assert not any(name.startswith(".") for name in made)
    assert made[5] == f"key#17~{5:016x}.png"
    assert names.name("b/2.jpg", "0", None) == "b__2.jpg"
    devices = FileNames(pa.chunked_array([["nul.png", "COM1.jpg"]]))
    assert [devices.name(name, "7" * 16, None) for name in ("nul.png", "COM1.jpg")] == [
        f"nul~{'7' * 16}.png",
        f"COM1~{'7' * 16}.jpg",
    ]


@pytest.mark.parametrize(
    ("phrases", "expected"),
    [
        (["a/b", "a:b", "A_B", "..", "smiling"], ["a_b", "a_b-2", "A_B-3", "_", "smiling-2"]),
        (["con", "Aux.txt", "COM1 .x", "console"], ["_con", "_Aux.txt", "_COM1 .x", "console"]),
        (["e\u0301t\u00e9", "\u00e9te\u0301", "ﬁne", "FINE"], ["e\u0301t\u00e9", "\u00e9te\u0301-2", "ﬁne", "FINE-2"]),
        (["x" * 300, "x" * 301, "x" * 179 + ". y"], ["x" * 180, "x" * 180 + "-2", "x" * 179]),
        (["", " . ", "\x1b[31m", "\ud800"], ["_", "_-2", "_[31m", "_-3"]),
    ],
)
def test_folders_of_phrases_are_valid_and_differ_on_every_system(phrases: list[str], expected: list[str]) -> None:
    assert folder_names(phrases, reserved=["Smiling"]) == tuple(expected)


def test_the_command_prints_counts_or_one_json_object(store: Store, tmp_path: Path) -> None:
    arguments = ["export", "--to", "folders", "--out", str(tmp_path / "out"), "--pairs", "red", "--store"]
    result = CliRunner().invoke(cli.app, [*arguments, str(store.root)])
    assert result.exit_code == 0, result.output
    assert "trainA" in result.stdout
    result = CliRunner().invoke(cli.app, [*arguments, str(store.root), "--json"])
    report = json.loads(result.stdout)
    assert (report["exported"], report["created"], report["groups"]) == (7, False, {"trainA": 5, "trainB": 2})
    result = CliRunner().invoke(cli.app, [*arguments, str(store.root), "--margins"])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("layout", EVERY)
def test_the_command_ends_with_what_reads_the_result(layout: str, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        cli.app, ["export", "--to", layout, "--out", str(out), "--store", str(store.root)], env={"COLUMNS": "500"}
    )
    assert result.exit_code == 0, result.output
    assert str(out) in result.stdout.splitlines()[-1]


def test_pairs_are_read_from_a_list() -> None:
    assert parse_pairs(" blond  hair, black hair,") == ("blond hair", "black hair")
    assert parse_pairs("") == ()


@pytest.fixture
def archives(photos: Path, tmp_path: Path) -> list[Path]:
    """The images of the folder b in a tar, where one name comes twice, and those of a in a table without suffixes."""
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for path in [*sorted((photos / "b").iterdir()), photos / "b" / "000.png"]:
            tar.add(path, f"inside/{path.name}")
    rows = [{"image": path.read_bytes(), "key": path.stem} for path in sorted((photos / "a").iterdir())]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "some.parquet")
    return [tmp_path / "some.tar", tmp_path / "some.parquet"]


@pytest.mark.parametrize("layout", WITH_IMAGES)
def test_images_of_tars_and_tables_are_exported_as_they_lie_there(
    layout: Any, archives: list[Path], photos: Path, tiny_clip: Any, tmp_path: Path
) -> None:
    embed(archives, tmp_path / "store", tiny_clip)
    store = Store.open(tmp_path / "store")
    active = np.ones((store.ok, 1), bool)
    prompts = PromptSet(("thing",), ("a {}.",), ("a.",), "made up")
    add_labels(store, active, active, prompts=prompts)
    report = export(store, tmp_path / "out", ExportRequest(layout, files="hardlink" if layout in NEED_LABELS else None))
    assert (report.images, report.exported) == (7, 7)
    expected = sorted(path.read_bytes() for path in photos.rglob("00*.png"))
    found = []
    for path in (tmp_path / "out").rglob("*"):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                members = [tar.extractfile(member) for member in tar if member.name.endswith(".png")]
                found += [member.read() for member in members if member]
        elif path.suffix == ".lance" and path.is_dir():
            found += pytest.importorskip("lance").dataset(path).to_table()["image"].to_pylist()
        elif path.suffix == ".parquet":
            found += [row["bytes"] for row in pq.read_table(path)["image"].to_pylist()]
        elif path.suffix == ".png":
            found.append(path.read_bytes())
    assert sorted(found) == expected


@pytest.mark.parametrize("layout", ["webdataset", "huggingface", "folders", "coco", "fiftyone"])
def test_lanit_embed_reads_what_it_exported(layout: Any, store: Store, photos: Path, tmp_path: Path) -> None:
    export(store, tmp_path / "out", ExportRequest(layout))
    text = {"webdataset": "out/*.tar", "huggingface": "out/data/*.parquet", "folders": "out",
            "coco": "out/images", "fiftyone": "out/data"}[layout]  # fmt: skip
    inputs = open_inputs([tmp_path / text])
    found = {each.read(place.path, place.offset, place.bytes) for each in inputs for place in each.places()}
    assert found == {path.read_bytes() for path in photos.rglob("00*.png")}
