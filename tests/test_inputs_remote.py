"""What is behind a URL: listings, times, ranges, failures of the network, and a web server of this machine."""

from __future__ import annotations

import http.server
import io
import os
import re
import tarfile
import threading
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lanit.errors import LanitError
from pipeline.decoding.limits import ImageError
from pipeline.extras import install
from pipeline.inputs import remote
from pipeline.inputs.opening import open_inputs, open_source
from pipeline.inputs.remote import RemoteStorage, nanoseconds


class Trouble(Exception):
    """As the client of some cloud would raise."""


class Flaky(MemoryFileSystem):
    """A bucket with odd habits: it lists folders among their own files, and fails where a name asks for it."""

    protocol = ("flaky",)
    store: dict[str, Any] = {}  # noqa: RUF012 - as fsspec shares it
    pseudo_dirs = [""]  # noqa: RUF012
    cachable = True

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return str(super()._strip_protocol(str(path).removeprefix("flaky://")))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        if "closed" in path:
            raise Trouble("403\nno access")
        found = super().ls(path, detail=True, **kwargs)
        marker = {"name": path + "/", "size": 0, "type": "file", "LastModified": datetime(2020, 1, 1, tzinfo=UTC)}
        return [marker, *found]

    def info(self, path: str, **kwargs: Any) -> Any:
        if "unreachable" in path:
            raise Trouble("timed out")
        return super().info(path, **kwargs)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> Any:
        if "lost" in path:
            raise Trouble("connection\nreset")
        if "whole" in path:
            start = end = None
        return super().cat_file(path, start, end, **kwargs)


fsspec.register_implementation("flaky", Flaky, clobber=True)


@pytest.fixture
def bucket() -> Iterator[Any]:
    system = fsspec.filesystem("flaky")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def tar_bytes(count: int, size: int) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as file:
        for number in range(count):
            member = tarfile.TarInfo(f"{number:03d}.jpg")
            member.size = size
            file.addfile(member, io.BytesIO(bytes([number % 256]) * size))
    return sink.getvalue()


def test_a_remote_folder_is_listed_without_markers_hidden_names_and_folders_that_fail(bucket: Any) -> None:
    for name in ("a.JPG", "s/b.png", "s/t/c.webp", "s/x.txt", ".git/d.jpg", ".e.jpg", "closed/f.jpg"):
        bucket.pipe_file(f"/b/{name}", name.encode())
    [origin] = open_inputs(["flaky://b"])
    places = list(origin.places())
    assert {place.path: place.bytes for place in places} == {"a.JPG": 5, "s/b.png": 7, "s/t/c.webp": 10}
    assert origin.ignored == 2  # x.txt and .e.jpg
    assert origin.warnings == ["1 folder cannot be listed: /b/closed (403 no access)"]


def test_listings_are_asked_for_again_and_not_kept(bucket: Any) -> None:
    bucket.pipe_file("/b/a.jpg", b"a")
    forgotten: list[str] = []
    bucket.invalidate_cache = lambda path=None: forgotten.append(path)
    try:
        [origin] = open_inputs(["flaky://b"])
        assert len(list(origin.places())) == 1
        bucket.pipe_file("/b/s/b.jpg", b"b")
        forgotten.clear()
        assert len(list(origin.places())) == 2
        assert sorted(set(forgotten)) == ["/b", "/b/s"]
    finally:
        del bucket.invalidate_cache


def test_a_changed_remote_file_has_another_time(bucket: Any) -> None:
    bucket.pipe_file("/b/a.jpg", b"a")
    bucket.pipe_file("/t.tar", tar_bytes(2, 10))
    folder, tar = open_inputs(["flaky://b", "flaky://t.tar"])
    before = [next(iter(origin.places())).modified_ns for origin in (folder, tar)]
    bucket.pipe_file("/b/a.jpg", b"b")
    bucket.pipe_file("/t.tar", tar_bytes(2, 10))
    after = [next(iter(origin.places())).modified_ns for origin in (folder, tar)]
    assert all(old is not None and new is not None and old < new for old, new in zip(before, after, strict=True))


def test_times_of_every_kind_become_nanoseconds() -> None:
    moment = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
    expected = (int(moment.timestamp()) * 1_000_000 + 123456) * 1000
    assert nanoseconds(moment) == expected
    assert nanoseconds(moment.replace(tzinfo=None)) == expected
    assert nanoseconds(moment.astimezone(timezone(timedelta(hours=5)))) == expected
    assert nanoseconds("2024-02-29T12:00:00.123456Z") == expected
    assert nanoseconds(moment.timestamp()) == expected
    assert nanoseconds(int(moment.timestamp())) == expected // 10**9 * 10**9
    assert nanoseconds("yesterday") is None
    assert nanoseconds(None) is None


def test_a_large_remote_tar_is_listed_in_few_requests_and_read_by_ranges(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tar_bytes(300, 40_000)
    bucket.pipe_file("/t.tar", data)
    asked: list[tuple[int | None, int | None]] = []
    cat_file = Flaky.cat_file

    def counting(self: Flaky, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> Any:
        asked.append((start, end))
        return cat_file(self, path, start, end, **kwargs)

    monkeypatch.setattr(Flaky, "cat_file", counting)
    [origin] = open_inputs(["flaky://t.tar"])
    places = list(origin.places())
    assert len(places) == 300
    assert len(asked) <= len(data) / remote._BUFFER_BYTES + 2
    asked.clear()
    place = places[211]
    assert place.offset is not None
    assert origin.read(place.path, place.offset, place.bytes) == bytes([211]) * 40_000
    assert asked == [(place.offset, place.offset + 40_000)]


def test_a_large_remote_parquet_is_read_by_ranges(bucket: Any, tmp_path: Path) -> None:
    images = [os.urandom(20_000) for _ in range(600)]
    pq.write_table(pa.table({"jpg": images, "key": [f"k{row}" for row in range(600)]}), tmp_path / "t.parquet")
    bucket.pipe_file("/t.parquet", (tmp_path / "t.parquet").read_bytes())
    [origin] = open_inputs(["flaky://t.parquet"])
    places = list(origin.places())
    assert [place.path for place in places] == [f"k{row}" for row in range(600)]
    assert [origin.read(place.path, place.offset, None) for place in places] == images


def test_failures_while_reading_are_image_errors_of_one_line(bucket: Any) -> None:
    bucket.pipe_file("/b/lost.jpg", b"x")
    bucket.pipe_file("/b/a.jpg", b"x")
    bucket.pipe_file("/whole.tar", tar_bytes(2, 600))
    folder, tar = open_inputs(["flaky://b", "flaky://whole.tar"])
    for origin, path, place, reason in [
        (folder, "lost.jpg", (None, None), "connection reset"),
        (folder, "gone.jpg", (None, None), "no such file"),
        (tar, "000.jpg", (512, 600), "the server gives whole files only"),
        (tar, "000.jpg", (9000, 6000), "the server gives whole files only"),
        (open_source("flaky://gone.tar", None), "000.jpg", (512, 600), "no such file"),
    ]:
        with pytest.raises(ImageError) as caught:
            origin.read(path, *place)
        assert reason in caught.value.reason
        assert "\n" not in str(caught.value)
    bucket.pipe_file("/t.tar", tar_bytes(2, 600))
    with pytest.raises(ImageError, match="shorter since"):
        open_source("flaky://t.tar", None).read("x", 10_000, 600_000)
    assert tar.read("empty.jpg", 512, 0) == b""


def test_failures_while_opening_and_listing_are_errors_with_a_hint(bucket: Any) -> None:
    hint = "Check the URL, the network and your credentials."
    bucket.pipe_file("/closed/a.jpg", b"x")
    bucket.pipe_file("/lost.csv", b"path\n")
    for text, message in [
        ("flaky://unreachable/x", "cannot reach flaky://unreachable/x: timed out"),
        ("flaky://closed", "cannot list flaky://closed: 403 no access"),
        ("flaky://lost.csv", "cannot read flaky://lost.csv: connection reset"),
    ]:
        with pytest.raises(LanitError) as caught:
            [list(origin.places()) for origin in open_inputs([text])]
        assert (caught.value.message, caught.value.hint) == (message, hint)
    with pytest.raises(LanitError, match="cannot reach"):  # never "gone": its rows would be dropped
        open_source("flaky://unreachable/x", None).exists()
    assert not open_source("flaky://nowhere", None).exists()


def test_a_tar_lost_on_the_way_is_an_error_with_a_hint(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_BUFFER_BYTES", 2000)
    bucket.pipe_file("/lost.tar", tar_bytes(9, 600))
    bucket.pipe_file("/whole.tar", tar_bytes(9, 600))
    for name, reason in (("lost", "connection reset"), ("whole", "the server gives whole files only")):
        [origin] = open_inputs([f"flaky://{name}.tar"])
        with pytest.raises(LanitError, match=f"cannot read flaky://{name}.tar: {reason}") as caught:
            list(origin.places())
        assert caught.value.hint == "Try again, or copy it."


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for scheme, known in (("s3", True), ("made-up-cloud", False)):
        missing = {"class": "no_such_package.System", "err": f"Install {scheme}-fs"}
        monkeypatch.setitem(remote.known_implementations, scheme, missing)
        with pytest.raises(LanitError) as caught:
            open_inputs([f"{scheme}://bucket/photos"])
        assert caught.value.message == f"{scheme}:// needs a package that is not installed"
        assert caught.value.hint == (f"Run: {install('s3')}" if known else "Install made-up-cloud-fs.")
    (tmp_path / "t.csv").write_text("url\ns3://bucket/a.jpg\n")
    [origin] = open_inputs([tmp_path / "t.csv"])
    with pytest.raises(ImageError, match=r'pip install "s3fs>='):
        origin.read("s3://bucket/a.jpg", None, None)
    with pytest.raises(LanitError) as caught:
        open_inputs(["gopher://host/photos"])
    assert caught.value.message == "URLs cannot begin with gopher://"
    assert "https, s3" in caught.value.hint


def test_what_is_missing_for_a_cloud_is_an_extra_of_ours() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    for schemes, extra, package in [
        ("s3 s3a", "s3", "s3fs"),
        ("gs gcs", "gcs", "gcsfs"),
        ("az abfs adl", "azure", "adlfs"),
    ]:
        for scheme in schemes.split():
            assert remote._EXTRAS[scheme] == extra
            module = remote.known_implementations[scheme]["class"].split(".")[0]
            assert (module, extras[extra][0].split(">=")[0]) == (package, package)


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, by ranges too, as any real web server gives them."""

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not found or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()
        first, last = int(found[1]), min(int(found[2]), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(data[first : last + 1])
        return None


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Serves tmp_path."""
    pytest.importorskip("aiohttp")

    def handler(*args: Any) -> Ranges:
        return Ranges(*args, directory=str(tmp_path))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_folders_tars_and_tables_on_the_web(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_BUFFER_BYTES", 3000)  # or small files come in one piece
    names = ["photos/a.jpg", "photos/sub/b.PNG"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 99)
    (tmp_path / "t.tar").write_bytes(tar_bytes(5, 1000))
    pq.write_table(pa.table({"jpg": [bytes([row]) * 3000 for row in range(9)]}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text(f"url\nphotos/a.jpg\n{web}/photos/sub/b.PNG?size=large\n")
    texts = [f"{web}/photos", f"{web}/t.tar?token=1", f"{web}/t.parquet", f"{web}/t.csv?download=true"]
    folder, tar, rows, table = open_inputs(texts)
    assert folder.source == f"{web}/photos/"
    contents = {
        origin.source: {place.path: origin.read(place.path, place.offset, place.bytes) for place in origin.places()}
        for origin in (folder, tar, rows, table)
    }
    assert contents == {
        folder.source: {"a.jpg": b"photos/a.jpg" * 99, "sub/b.PNG": b"photos/sub/b.PNG" * 99},
        texts[1]: {f"{number:03d}.jpg": bytes([number]) * 1000 for number in range(5)},
        texts[2]: {f"row-{row:09d}": bytes([row]) * 3000 for row in range(9)},
        texts[3]: {
            "photos/a.jpg": b"photos/a.jpg" * 99,
            f"{web}/photos/sub/b.PNG?size=large": b"photos/sub/b.PNG" * 99,
        },
    }
    assert all(origin.exists() for origin in (folder, tar, rows, table))
    with pytest.raises(LanitError, match="there is no folder"):
        open_inputs([f"{web}/fotos"])
    with pytest.raises(ImageError, match="no such file"):
        folder.read("gone.jpg", None, None)


def test_a_web_server_that_is_not_there_is_unreachable_and_not_empty(web: str) -> None:
    silent = "http://127.0.0.1:9"
    with pytest.raises(LanitError, match="cannot reach"):
        open_inputs([f"{silent}/photos"])
    with pytest.raises(LanitError, match="cannot reach"):
        open_source(f"{silent}/t.tar", None).exists()
    with pytest.raises(ImageError):
        RemoteStorage().read(f"{silent}/a.jpg")


LOCAL = [
    "{here}/secret.png", "file://{here}/secret.png", "FILE://{here}/secret.png", "local://{here}/secret.png",
    "zip://secret.png::file://{here}/secret.zip", "simplecache::local:{here}/secret.png", "memory://secret.png",
    "C:\\secret.png", "c:/secret.png", "\\\\host\\secret.png",
]  # fmt: skip
REMOTE = ["a.png", "sub/a.png", "C:a.png", "flaky://elsewhere/a.png"]


@pytest.mark.parametrize("kind", ["table", "folder"])
def test_a_table_behind_a_url_names_no_file_of_this_machine(bucket: Any, tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    fsspec.filesystem("memory").pipe("/secret.png", b"secret")
    local = [name.format(here=tmp_path) for name in LOCAL]
    for name in ("/b/a.png", "/b/sub/a.png", "/b/C:a.png", "/elsewhere/a.png"):
        bucket.pipe(name, b"public")
    bucket.pipe("/b/metadata.csv", "\n".join(["file_name", *local, *REMOTE]).encode())
    [origin] = open_inputs(["flaky://b/metadata.csv" if kind == "table" else "flaky://b"])
    places = {place.path: place for place in origin.places()}
    assert set(places) == {*local, *REMOTE}
    for name, place in places.items():
        if name in REMOTE:
            assert origin.read(name, place.offset, place.bytes) == b"public"
            continue
        assert place.bytes is None, "not even its size is looked up"
        with pytest.raises(ImageError, match="may not name files of this machine"):
            origin.read(name, place.offset, place.bytes)
    fsspec.filesystem("memory").store.clear()
