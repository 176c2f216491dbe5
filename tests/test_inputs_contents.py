"""Data sets as Hugging Face's hub and others publish them: folders of Parquet, zips and tars, lists in each split; and
the hub itself, through a stand-in for its file system."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lanit.errors import LanitError
from pipeline.inputs import remote
from pipeline.inputs.opening import find_sources, open_inputs


class Commit(NamedTuple):
    date: datetime


class Hub(MemoryFileSystem):
    """Files of the hub, by names as its own file system has them. It tells times only where it is asked to."""

    protocol = "hf"
    store: dict[str, Any] = {}  # noqa: RUF012 - as fsspec shares it
    pseudo_dirs = [""]  # noqa: RUF012
    when = datetime(2026, 1, 2, tzinfo=UTC)

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return str(super()._strip_protocol(str(path).removeprefix("hf://")))

    def ls(self, path: str, detail: bool = True, expand_info: bool = False, **more: Any) -> Any:
        return [self._info(info, expand_info) for info in super().ls(path, detail=True)]

    def info(self, path: str, expand_info: bool = False, **more: Any) -> Any:
        return self._info(super().info(path), expand_info)

    def _info(self, info: dict[str, Any], expand: bool) -> dict[str, Any]:
        plain = {key: info[key] for key in ("name", "size", "type")}
        return plain | {"last_commit": Commit(self.when) if expand else None}

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, cache_type: str = "", **more: Any
    ) -> Any:
        assert start is None or cache_type == "none", "a range comes with the megabytes behind it"
        return super().cat_file(path, start, end)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    known = fsspec.get_filesystem_class("hf")
    fsspec.register_implementation("hf", Hub, clobber=True)
    monkeypatch.setattr(remote, "hub_trouble", lambda: "")
    system = Hub()
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    fsspec.register_implementation("hf", known, clobber=True)


def put(root: Any, files: dict[str, bytes]) -> None:
    """Write files below a folder here, or into a data set of the stand-in, as ``owner/name/…``."""
    for name, data in files.items():
        if isinstance(root, Path):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        else:
            root.pipe_file(f"/datasets/{name}", data)


def parquet(*names: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": [{"bytes": name.encode(), "path": name} for name in names]}), sink)
    return sink.getvalue()


def zipped(**contents: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        for name, data in contents.items():
            file.writestr(f"{name}.png", data)
    return sink.getvalue()


def tarred(**contents: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as file:
        for name, data in contents.items():
            member = tarfile.TarInfo(f"{name}.png")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def images(*texts: str | Path) -> dict[str, dict[str, bytes]]:
    """By input, relative to the last text, the images by path."""
    return {
        origin.source.removeprefix(str(texts[-1])).lstrip("/"): {
            place.path: origin.read(place.path, place.offset, place.bytes) for place in origin.places()
        }
        for origin in open_inputs(texts)
    }


def test_a_folder_of_parquet_tables_of_images_is_those_tables(tmp_path: Path) -> None:
    put(tmp_path, {"README.md": b"# a", "data/train-00000.parquet": parquet("a.png"),
                   "data/test-0.parquet": parquet("b"), "old/x.tar": tarred(c=b"c"),
                   "data/notes.csv": b"path\n"})  # fmt: skip
    assert images(tmp_path) == {"data/train-00000.parquet": {"a.png": b"a.png"}, "data/test-0.parquet": {"b": b"b"}}


def test_an_images_zip_beside_metadata_is_read_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, {"metadata.csv": b"file_name,text\n000.png,a\n", "images.zip": zipped(a=b"a", b=b"b"),
                   "more/x.tar": tarred(c=b"c")})  # fmt: skip
    assert images(tmp_path) == {"images.zip": {"a.png": b"a", "b.png": b"b"}, "more/x.tar": {"c.png": b"c"}}
    put(tmp_path, {"000.png": b"loose"})
    assert images(tmp_path) == {"": {"000.png": b"loose"}}


def test_configurations_of_a_data_set_are_not_mixed_but_its_splits_are(tmp_path: Path) -> None:
    put(tmp_path, {"full/train-0.parquet": parquet("a"), "small/train-0.parquet": parquet("a")})
    with pytest.raises(LanitError) as caught:
        open_inputs([tmp_path])
    assert caught.value.message == f"{tmp_path} has several configurations: full, small"
    assert caught.value.hint == f"Give one: {tmp_path}/full"
    assert images(tmp_path / "full") == {"train-0.parquet": {"a": b"a"}}
    put(tmp_path / "splits", {"train/0.parquet": parquet("a"), "test/0.parquet": parquet("b")})
    assert len(images(tmp_path / "splits")) == 2


@pytest.mark.parametrize("where", ["here", "hub"])
def test_each_split_has_a_list_of_its_own(where: str, tmp_path: Path, hub: Hub) -> None:
    files = {
        "train/metadata.csv": b"text,file_name\nx,a.png\ny,sub/b.png\nz,gone.png\n",
        "train/a.png": b"a", "train/sub/b.png": b"b", "train/unlisted.png": b"u",
        "test/metadata.jsonl": b'{"image_file_name": "a.png", "mask_file_name": "m.png"}\n',
        "test/a.png": b"A", "test/m.png": b"M", "val/c.png": b"no list here",
    }  # fmt: skip
    put(tmp_path if where == "here" else hub, {(name if where == "here" else f"o/n/{name}"): data
                                               for name, data in files.items()})  # fmt: skip
    [origin] = open_inputs([tmp_path if where == "here" else "o/n"])
    found = {place.path: place for place in origin.places()}
    assert set(found) == {"train/a.png", "train/sub/b.png", "train/gone.png", "test/a.png", "val/c.png"}
    assert found["train/gone.png"].bytes is None
    assert origin.read("train/sub/b.png", None, None) == b"b"
    assert sorted(origin.warnings)[:2] == ["1 image is not listed in test/metadata.jsonl and ignored",
                                           "1 image is not listed in train/metadata.csv and ignored"]  # fmt: skip
    assert "image_file_name, mask_file_name" in origin.warnings[-1] + origin.warnings[0]


def test_an_outer_list_holds_for_what_is_below_it(tmp_path: Path) -> None:
    put(tmp_path, {"metadata.csv": b"file_name\ntrain/a.png\n", "train/metadata.csv": b"file_name\nb.png\n",
                   "train/a.png": b"a", "train/b.png": b"b"})  # fmt: skip
    assert images(tmp_path) == {"": {"train/a.png": b"a"}}


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("owner/cats", "hf://datasets/owner/cats"),
        ("owner/cats@v2", "hf://datasets/owner/cats@v2"),
        ("hf://datasets/owner/cats", "hf://datasets/owner/cats"),
        (f"{huggingface_hub.constants.ENDPOINT}/datasets/owner/cats", "hf://datasets/owner/cats"),
        (
            f"{huggingface_hub.constants.ENDPOINT}/datasets/owner/cats/tree/v2/data?x=1",
            "hf://datasets/owner/cats@v2/data",
        ),
    ],
)
def test_a_data_set_of_the_hub_is_its_tables_whatever_name_it_is_given_by(hub: Hub, text: str, source: str) -> None:
    files = {f"{name}/{part}": parquet(part) for name in ("owner/cats", "owner/cats@v2")
             for part in ("data/train-0.parquet", "data/train-1.parquet")}  # fmt: skip
    put(hub, {**files, "owner/cats/preview.png": b"a picture of its page", "owner/cats@v2/preview.png": b"the same"})
    inputs = open_inputs([text])
    below = source if source.endswith("/data") else f"{source}/data"
    assert [origin.source for origin in inputs] == [f"{below}/train-{number}.parquet" for number in (0, 1)]
    [place] = inputs[1].places()
    assert inputs[1].read(place.path, place.offset, None) == b"data/train-1.parquet"
    assert place.modified_ns == int(Hub.when.timestamp()) * 10**9, "a second run would read every image again"


def test_a_folder_of_that_name_here_comes_first(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(hub, {"owner/cats/a.png": b"hub"})
    put(tmp_path, {"owner/cats/b.png": b"here", "other/x.png": b"x"})
    assert [origin.source for origin in open_inputs(["owner/cats"])] == [str(tmp_path / "owner" / "cats")]
    with pytest.raises(LanitError, match="there is no folder other/cats"):
        open_inputs(["other/cats"])  # other lies here: a typing error


@pytest.mark.parametrize("reason", ["HF_HUB_OFFLINE is set", "Hugging Face cannot be reached from here"])
def test_without_the_hub_one_line_tells_of_both_meanings(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", reason.startswith("HF_HUB"))
    monkeypatch.setattr(remote, "hub_answers", lambda: False)
    monkeypatch.chdir(tmp_path)
    put(tmp_path, {"photos/x.png": b"x"})
    for text, words in [
        (
            "photoz/cats",
            f"there is no folder photoz/cats here, and no data set hf://datasets/photoz/cats can be had: {reason}",
        ),
        ("hf://datasets/owner/cats", f"cannot reach hf://datasets/owner/cats: {reason}"),
    ]:
        with pytest.raises(LanitError) as caught:
            open_inputs([text])
        assert caught.value.message == words
        expected = (
            "Did you mean photos?" if text.startswith("photoz") else "Give a folder, or try where there is a network."
        )
        assert caught.value.hint == expected


def test_what_stood_for_its_tars_and_tables_is_forgotten_by_its_name(tmp_path: Path) -> None:
    known = [
        "/d/photos",
        "/d/photos/x.tar",
        "/d/ds/a.zip",
        "/d/ds/b.zip",
        "hf://datasets/o/n/data/0.parquet",
        "/d/dsx.tar",
    ]
    assert find_sources("/d/photos", known) == ["/d/photos"]
    assert find_sources("/d/ds/", known) == ["/d/ds/a.zip", "/d/ds/b.zip"]
    assert find_sources("o/n", known) == find_sources("hf://datasets/o/n", known) == known[4:5]
    assert find_sources("/d/x", known) == []
