"""The folder of an export: only its own files are ever replaced, damage is noticed, phrases may be called anything."""

from __future__ import annotations

import csv
import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import pipeline.exports.destination
import pipeline.exports.image_files
from lanit.errors import LanitError
from pipeline.exports.export import export
from pipeline.exports.layouts import LAYOUTS, ExportRequest
from pipeline.folders import locked_folder
from pipeline.store.store import Store

LABELS = {"red": {"a/001.png", "b/000.png"}, "large": {"b/000.png", "b/002.png", "a/003.png"}}
HOSTILE = (
    "lanit-export.json", "Lanit-Export.jsonl", "missing.csv", "unfinished.json", ".lock", ".", "..", "con", "a/b",
    "a\\b", "x" * 300, "x" * 301, "_unlabelled", "trainA", "Smiling", "smiling ", "path", "image_id", "margin:path",
    "<b>|`bold`", "../../outside", "README.md", "images.csv",
)  # fmt: skip


@pytest.fixture
def photos(make_images: Callable[..., Path]) -> Path:
    """Seven images, 000 to 006, those of odd number in the folder a."""
    return make_images(7)


@pytest.fixture
def store(photos: Path, make_labelled_store: Callable[..., Store]) -> Store:
    return make_labelled_store(photos, LABELS)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    """Stands for a process that ends here."""


def interrupt(store: Store, out: Path, request: ExportRequest, after: int) -> None:
    def killed(done: int, total: int) -> None:
        if done >= after:
            raise Killed

    with pytest.raises(Killed):
        export(store, out, request, progress=killed)


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_phrases_may_be_called_as_files_of_the_export_and_as_each_other(
    layout: Any, photos: Path, make_labelled_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = make_labelled_store(photos, {name: {"a/001.png", "b/002.png"} for name in HOSTILE})
    (photos / "b" / "002.png").unlink()
    report = export(store, tmp_path / "deep" / "out", ExportRequest(layout, margins=layout == "csv"))
    out = tmp_path / "deep" / "out"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert (out / "missing.csv").is_file() == (layout not in ("csv", "clip-retrieval"))
    if layout == "folders":
        counts = {folder.name: len(list(folder.iterdir())) for folder in out.iterdir() if folder.is_dir()}
        assert sorted(counts.values()) == [1] * len(HOSTILE) + [5], (
            "the five without a label have a folder of their own"
        )
        assert {name: report.groups[name] for name in HOSTILE} == dict.fromkeys(HOSTILE, 1)
    if layout == "csv":
        with (out / "images.csv").open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file))
        assert len(set(header)) == len(header) == 6 + 2 * len(HOSTILE)
        assert header[6 : 6 + len(HOSTILE)] == list(HOSTILE)
    if layout == "huggingface":
        assert pq.read_schema(out / "data" / "train-00000.parquet").names.count("labels") == 1
    assert not export(store, out, ExportRequest(layout, margins=layout == "csv")).created


def test_the_dataset_card_shows_phrases_letter_by_letter(
    photos: Path, make_labelled_store: Callable[..., Store], tmp_path: Path
) -> None:
    markdown = pytest.importorskip("markdown_it", reason="comes with rich")
    phrases = ["<script>alert(1)</script>", "a | b", "`x` *y* _z_ ~~w~~", "[l](http://a.b) ![p](x)", "# head", "---",
               "&lt; &amp;", "one\ntwo", "<img src=x>"]  # fmt: skip
    store = make_labelled_store(photos, {name: {"a/001.png"} for name in phrases})
    export(store, tmp_path / "out", ExportRequest("huggingface"))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    header, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert not any(phrase in header for phrase in phrases if phrase != "---")
    html = markdown.MarkdownIt("commonmark").enable("table").render(body)
    cells = [row.split("</td>")[0].removeprefix("<td>") for row in html.split("<tr>\n")[2:]]
    shown = [cell.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for cell in cells]
    assert shown == [" ".join(phrase.split()) for phrase in phrases]


@pytest.mark.parametrize("files", ["copy", "symlink", "hardlink"])
def test_only_files_that_the_export_wrote_are_replaced(store: Store, photos: Path, tmp_path: Path, files: Any) -> None:
    out, request = tmp_path / "out", ExportRequest("folders", files=files)
    originals = contents(photos)
    export(store, out, request)
    (out / "red" / "notes.txt").write_text("mine")
    (out / ".DS_Store").write_text("the system's")
    with pytest.raises(LanitError, match=r"holds red/notes\.txt, which lanit did not write there") as caught:
        export(store, out, ExportRequest("csv"), overwrite=True)
    assert "Move it away" in caught.value.hint
    assert (out / "red" / "notes.txt").read_text() == "mine"
    (out / "red" / "notes.txt").unlink()
    changed = out / "red" / "b__000.png"
    changed.unlink()
    changed.write_text("edited")
    with pytest.raises(LanitError, match=r"b__000\.png is not as the export wrote it") as caught:
        export(store, out, request)
    assert "--overwrite" in caught.value.hint
    with pytest.raises(LanitError, match=r"holds red/b__000\.png, which lanit wrote, but which was changed since"):
        export(store, out, request, overwrite=True)
    assert changed.read_text() == "edited"
    changed.unlink()
    assert export(store, out, request, overwrite=True).created
    assert not export(store, out, request).created
    export(store, out, ExportRequest("csv"), overwrite=True)
    assert sorted(contents(out)) == ["images.csv", "lanit-export.json", "lanit-export.jsonl"]
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]
    assert contents(photos) == originals


def test_what_lanit_cannot_prove_its_own_stays(store: Store, tmp_path: Path) -> None:
    out, hidden = tmp_path / "out", tmp_path / ".out.exporting"
    hidden.mkdir()
    (hidden / "thesis.txt").write_text("mine")
    with pytest.raises(LanitError, match=r"\.out\.exporting"):
        export(store, out, ExportRequest("csv"))
    assert contents(hidden) == {"thesis.txt": b"mine"}
    (hidden / "thesis.txt").unlink()
    interrupt(store, out, ExportRequest("folders"), 3)
    (hidden / "thesis.txt").write_text("mine")
    for request in (ExportRequest("folders"), ExportRequest("csv")):
        with pytest.raises(LanitError, match=r"holds thesis\.txt, which lanit did not write there"):
            export(store, out, request)
    (hidden / "thesis.txt").unlink()
    (out / "README.md").parent.mkdir()
    (out / "README.md").write_text("mine")
    with pytest.raises(LanitError, match=r"holds README\.md, which lanit did not write there"):
        export(store, out, ExportRequest("csv"))
    assert contents(out) == {"README.md": b"mine"}


@pytest.mark.parametrize("layout", ["webdataset", "folders"])
def test_an_interrupted_export_writes_through_no_link(store: Store, tmp_path: Path, layout: Any) -> None:
    hidden, outside = tmp_path / ".out.exporting", tmp_path / "outside"
    interrupt(store, tmp_path / "out", ExportRequest(layout), 3)
    outside.mkdir()
    name = "images-000000.tar" if layout == "webdataset" else "red"
    shutil.rmtree(hidden / name) if layout == "folders" else (hidden / name).unlink()
    (hidden / name).symlink_to(outside if layout == "folders" else outside / "file")
    with pytest.raises(LanitError, match=f"holds {name}, which lanit did not write there"):
        export(store, tmp_path / "out", ExportRequest(layout))
    assert not list(outside.iterdir())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_finished_export_notices_a_change_of_any_of_its_files(layout: Any, store: Store, tmp_path: Path) -> None:
    rng = random.Random(5)
    export(store, tmp_path / "out", ExportRequest(layout))
    for name, data in contents(tmp_path / "out").items():
        flip(tmp_path / "out" / name, rng)
        with pytest.raises(LanitError, match=r"damaged|not as the export wrote it|not valid JSON|other files"):
            export(store, tmp_path / "out", ExportRequest(layout))
        (tmp_path / "out" / name).write_bytes(data)
    assert not export(store, tmp_path / "out", ExportRequest(layout)).created


@pytest.mark.parametrize("layout", ["folders", "webdataset"])
def test_what_an_interrupted_export_left_is_not_trusted_where_it_was_changed(
    layout: Any, store: Store, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.exports.image_files, "_CHUNK", 2)
    (photos / "a" / "003.png").unlink()
    request, rng = ExportRequest(layout), random.Random(7)
    export(store, tmp_path / "whole", request)
    interrupt(store, tmp_path / "out", request, 6)
    hidden = tmp_path / ".out.exporting"
    shutil.copytree(hidden, tmp_path / "kept")
    anew = 0
    for name in contents(hidden):
        flip(hidden / name, rng)
        try:
            report = export(store, tmp_path / "out", request)
        except LanitError as error:
            assert "unfinished.json" in error.message  # noqa: PT017
        else:
            anew += any("begun anew" in warning for warning in report.warnings)
            assert contents(tmp_path / "out") == contents(tmp_path / "whole")
            shutil.rmtree(tmp_path / "out")
        shutil.rmtree(hidden, ignore_errors=True)
        shutil.copytree(tmp_path / "kept", hidden)
    assert anew or layout == "webdataset"


@pytest.mark.parametrize("layout", ["csv", "webdataset", "clip-retrieval", "folders", "huggingface"])
def test_an_export_killed_when_all_is_written_lists_its_files_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Any
) -> None:
    export(store, tmp_path / "whole", ExportRequest(layout))

    def dies(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.exports.destination.Destination, "commit", dies)
        patch.setattr("os.getpid", lambda: 99999999)
        with pytest.raises(Killed):
            export(store, tmp_path / "out", ExportRequest(layout))
    export(store, tmp_path / "out", ExportRequest(layout))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_an_export_killed_as_it_takes_its_place_goes_on_and_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """Before it moves the older one away, before it takes its name, before it removes the older one."""
    out, count = tmp_path / "out", itertools.count()
    export(store, out, ExportRequest("csv"))
    before = contents(out)
    export(store, tmp_path / "whole", ExportRequest("webdataset"))
    rename, module = Path.replace, pipeline.exports.destination

    def killed(self: Path, target: Path) -> Path:
        if self.is_dir() and next(count) == renames:
            raise Killed
        return rename(self, target)

    def dies(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        patch.setattr(module, "restore_folder", lambda folder: None)  # nobody is there to do it
        if renames == 2:
            patch.setattr(module, "remove", dies)
        patch.setattr("os.getpid", lambda: 99999999)
        with pytest.raises(Killed):
            export(store, out, ExportRequest("webdataset"), overwrite=True)
    if renames < 2:
        with pytest.raises(LanitError, match="another export"):
            export(store, out, ExportRequest("webdataset"))
        assert contents(out) == before
    export(store, out, ExportRequest("webdataset"), overwrite=True)
    assert contents(out) == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == ["out"]


def test_an_export_and_a_writer_of_another_kind_do_not_meet(store: Store, tmp_path: Path) -> None:
    def meanwhile(done: int, total: int) -> None:
        with (
            pytest.raises(LanitError, match="another lanit command is writing to"),
            locked_folder(tmp_path / "out", "--out"),
        ):
            pytest.fail("both write there")

    with (
        locked_folder(tmp_path / "out", "--out"),
        pytest.raises(LanitError, match="another lanit command is writing to"),
    ):
        export(store, tmp_path / "out", ExportRequest("csv"))
    assert export(store, tmp_path / "out", ExportRequest("csv"), progress=meanwhile).created


def test_an_export_of_an_older_lanit_is_named_and_stays(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "lanit-export.json").write_text('{"identity": {}, "result": {}}')
    for overwrite in (False, True):
        with pytest.raises(LanitError, match=r"another export|older lanit"):
            export(store, tmp_path / "out", ExportRequest("csv"), overwrite=overwrite)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lanit-export.json"]
