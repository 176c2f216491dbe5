"""The page of ``lanit play`` over HTTP: pictures that were dropped on it are redrawn, and nothing else is opened."""

from __future__ import annotations

import http.client
import importlib.util
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from lanit.errors import LanitError
from pipeline.play.server import PlayOptions, build_app
from pipeline.sample_world.faces import draw_face, sample_face
from pipeline.serving.listening import listening
from pipeline.serving.uploads import Uploads

# Importing it takes seconds, and every process that runs tests reads this file.
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed: the extra play"
)
pytestmark = needs_gradio

SESSION = "abc123"


@dataclass
class Served:
    port: int
    folder: Path
    app: Any

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def join(self, number: int, *data: Any) -> tuple[int, bytes]:
        body = {"data": data, "fn_index": number, "trigger_id": 0, "session_hash": SESSION}
        return self.ask("POST", "/gradio_api/queue/join", json.dumps(body).encode(),
                        **{"Content-Type": "application/json"})  # fmt: skip

    def handlers(self) -> dict[str, tuple[int, int]]:
        """Number and count of inputs of what takes the picture, and of what takes the reference."""
        config = json.loads(self.ask("GET", "/config")[1])
        ids = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
        return {
            name: (found["id"], len(found["inputs"]))
            for name in ("picture", "reference")
            for found in config["dependencies"]
            if found["inputs"][:1] == [ids[name]]
        }

    def files(self) -> set[str]:
        return {path.name for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    import uvicorn

    folder = tmp_path_factory.mktemp("served")
    app = build_app(PlayOptions(device="cpu"), folder)
    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield Served(listener.getsockname()[1], folder, app)
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A picture of this machine that nobody dropped on the page."""
    path = tmp_path / "nobody-gave-this.png"
    Image.fromarray(draw_face(sample_face(77, 0), 64)).save(path)
    return path


def file_data(path: Path, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}} | more


def test_a_picture_that_nobody_gave_is_neither_shown_nor_read_nor_copied(served: Served, private: Path) -> None:
    before, missing = served.files(), private.with_name("there-is-none.png")
    handlers = served.handlers()
    for path in (private, missing):
        url = f"http://127.0.0.1:{served.port}/gradio_api/file={quote(str(path))}"
        for number, count in handlers.values():
            for data in (
                file_data(path),
                file_data(path, url=url),
                file_data(path, is_stream=True),
                str(path),
                [str(path)],
            ):
                status, told = served.join(number, data, *[None] * (count - 1))
                assert status in (400, 403)
                assert path.name.encode() not in told
        give = handlers["picture"]
        assert served.join(give[0], None, file_data(path), *[None] * (give[1] - 2))[0] == 403, "the style's picture"
    for route in ("/gradio_api/file={}", "/file={}", "/gradio_api/file/{}", "/gradio_api/proxy={}", "/static/{}",
                  "/assets/{}", "/assets/..{}", "/gradio_api/stream/{}"):  # fmt: skip
        for method in ("GET", "HEAD"):
            answers = {served.ask(method, route.format(quote(str(path)))) for path in (private, missing)}
            assert len(answers) == 1, "no answer tells whether there is one"
            assert answers.pop()[0] == 404
    assert served.files() == before


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/run/give", "/gradio_api/call/give", "/gradio_api/call/v2/give", "/gradio_api/api/give",
     "/gradio_api/component_server", "/gradio_api/process_recording", "/gradio_api/stream/x", "/gradio_api/cancel",
     "/gradio_api/vibe-edit", "/login", "/run/predict", "/queue/join"],
)  # fmt: skip
def test_no_other_way_to_send_something_is_open(served: Served, private: Path, path: str) -> None:
    body = json.dumps({"data": [file_data(private)], "session_hash": SESSION}).encode()
    assert served.ask("POST", path, body)[0] == 404


def upload(served: Served, data: bytes, name: str) -> Path:
    body = b"".join((b'--X\r\nContent-Disposition: form-data; name="files"; filename="', name.encode(),
                     b'"\r\nContent-Type: image/png\r\n\r\n', data, b"\r\n--X--\r\n"))  # fmt: skip
    kind = {"Content-Type": "multipart/form-data; boundary=X", "Origin": f"http://127.0.0.1:{served.port}"}
    status, told = served.ask("POST", "/gradio_api/upload", body, **kind)
    assert status == 200
    return Path(json.loads(told)[0])


def test_a_picture_that_was_given_is_shown_and_redrawn(served: Served, private: Path) -> None:
    path = upload(served, private.read_bytes(), "face.png")
    assert path.is_relative_to(served.folder)
    status, shown = served.ask("GET", f"/gradio_api/file={quote(str(path))}")
    assert (status, shown) == (200, private.read_bytes())
    number, count = served.handlers()["picture"]
    weights = [1] * (count - 5)
    assert served.join(number, file_data(path), None, True, 0, 1, *weights)[0] == 200
    stream = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    event: dict[str, Any] = {}
    stream.request("GET", f"/gradio_api/queue/data?session_hash={SESSION}")
    for line in stream.getresponse():
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            if event["msg"] == "process_completed":
                break
    stream.close()
    assert event["success"]
    assert "Redrawn" in str(event["output"]["data"])


def test_uploads_of_other_sites_and_other_names_are_refused(served: Served) -> None:
    before = served.files()
    body = b'--X\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--X--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=X"}
    assert served.ask("POST", "/gradio_api/upload", body, **kind, Origin="http://evil.example")[0] == 403
    assert served.ask("POST", "/gradio_api/upload", body, **kind, Host="evil.example")[0] == 403
    assert served.ask("GET", "/config", Host=f"evil.example:{served.port}")[0] == 403
    assert served.files() == before


def test_the_handlers_open_nothing_that_was_not_given_even_without_a_guard(private: Path, tmp_path: Path) -> None:
    from pipeline.play.page import _Desk, _Hands

    class Bench:
        model = SimpleNamespace(domains=("smiling",), reader="CLIP")

        def read(self, path: Path) -> Any:
            raise AssertionError(f"{path} was opened")

    (tmp_path / "dropped").mkdir()
    (tmp_path / "dropped" / "link.png").symlink_to(private)
    uploads = Uploads(tmp_path / "dropped", one_file=1, most_bytes=1, most_files=1)
    hands = _Hands(Bench(), uploads)  # type: ignore[arg-type]
    for path in (private, tmp_path / "dropped" / "link.png", private.with_name("none.png")):
        assert "not here" in str(hands.give(str(path), None, True, 0, 1, 1.0))
        assert "not here" in str(hands.refer(str(path)))
        assert "not here" in str(hands.take_words(_Desk(), str(path)))
        with pytest.raises(LanitError):
            hands._wish(_Desk(), str(path), True, 0, 1, 1.0)
