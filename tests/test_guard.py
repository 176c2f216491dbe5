"""What stands before every page that lanit serves: who is let in, to what, and how much may lie there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lanit.errors import LanitError, UsageError
from pipeline.serving.guard import Application, Route, guarded, host_name
from pipeline.serving.refusal import Refusal
from pipeline.serving.uploads import Uploads
from pipeline.serving.visitors_folder import visitors_folder
from tests.asgi import ask


class Echo:
    """An application that answers with what reaches it, and lets everybody read it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope["path"])
        body = (await receive())["body"]
        query = scope["query_string"]
        headers = [(b"access-control-allow-origin", b"*"), (b"Referrer-Policy", b"unsafe-url")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": query + b"|" + body})


def doubled(body: Mapping[str, Any]) -> Mapping[str, Any]:
    if body.get("secret"):
        raise Refusal(403, "No.")
    return {"twice": 2 * body["once"]}


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "dropped").mkdir()
    return Uploads(tmp_path / "dropped", one_file=100, most_bytes=250, most_files=4)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def page(echo: Echo, uploads: Uploads) -> Application:
    routes = (
        Route(re.compile("/"), frozenset({"theme"})),
        Route(re.compile("/file=(?P<file>.+)"), file=uploads.holds),
        Route(re.compile("/do"), rewrite=doubled),
        Route(re.compile("/upload"), uploads=uploads),
    )
    return guarded(echo, ["lab.example.org", "fd00::7"], routes, "default-src 'self'")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:7860", "127.0.0.1", "127.0.0.1:1", "[::1]:7860", "[::1]", "lab.example.org:80",
     "[fd00:0::7]:7860", "192.0.2.5:7860", "[::ffff:127.0.0.1]"],
)  # fmt: skip
def test_the_page_answers_to_its_own_names(page: Application, host: str) -> None:
    assert ask(page, "/", host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.6",
     "127.0.0.2", "", "localhost:7860:1", "[localhost]", "127.0.0.1/x", "example.org", "a@localhost", "0.0.0.0",
     "::1", "localhost:"],
)  # fmt: skip
def test_the_page_answers_to_no_other_name(page: Application, echo: Echo, host: str) -> None:
    status, _, body = ask(page, "/", host=host)
    assert status == 403
    assert not host or host.encode() not in body, "nothing of the name comes back"
    assert echo.reached == []


def test_a_name_given_twice_and_a_server_without_an_address_let_nobody_in(page: Application) -> None:
    assert ask(page, "/", more=[("host", "127.0.0.1:7860")])[0] == 400
    assert ask(page, "/", server=None, host="192.0.2.5")[0] == 403
    assert ask(page, "/", server=None)[0] == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://127.0.0.1:3000", "null", "http://localhost:7860", "file://", "http://[",
     "127.0.0.1", "http://127.0.0.1:7860.evil.example", "ws://127.0.0.1:7860"],
)  # fmt: skip
def test_other_sites_may_neither_read_nor_act(page: Application, echo: Echo, method: str, origin: str) -> None:
    path, body = ("/", b"") if method == "GET" else ("/do", b'{"once": 1}')
    assert ask(page, path, method, body=body, origin=origin)[0] == 403
    assert echo.reached == []


def test_the_page_itself_and_whoever_follows_a_link_are_let_in(page: Application) -> None:
    once = b'{"once": 1}'
    for port in ("", ":7860", ":9000"):  # a tunnel may end at another port
        host = f"localhost{port}"
        assert ask(page, "/do", "POST", body=once, host=host, origin=f"http://{host}")[0] == 200
        assert ask(page, "/do", "POST", body=once, host=host, referer=f"https://{host}/a?b")[0] == 200
    assert ask(page, "/do", "POST", body=once, sec_fetch_site="same-origin")[0] == 200
    assert (
        ask(page, "/", referer="http://evil.example/", sec_fetch_site="cross-site", sec_fetch_mode="navigate")[0] == 200
    )
    assert ask(page, "/", sec_fetch_site="none")[0] == 200


def test_a_foreign_referer_or_a_browser_that_says_cross_site_is_refused(page: Application) -> None:
    once = b'{"once": 1}'
    assert ask(page, "/do", "POST", body=once, referer="http://evil.example/")[0] == 403
    for site in ("cross-site", "same-site"):
        assert ask(page, "/", sec_fetch_site=site, sec_fetch_mode="no-cors")[0] == 403
        assert ask(page, "/do", "POST", body=once, sec_fetch_site=site, sec_fetch_mode="navigate")[0] == 403


def test_web_sockets_are_closed_before_they_open(page: Application, echo: Echo) -> None:
    assert ask(page, "/", kind="websocket")[0] == 1008
    assert echo.reached == []


def test_only_what_a_route_names_reaches_the_application(page: Application, echo: Echo) -> None:
    for path in ("/other", "/do/", "//", "/file=", "", "/file/x", "/DO", "/\n"):
        assert ask(page, path)[0] == 404, path
    assert [ask(page, "/do", method)[0] for method in ("GET", "PUT", "DELETE", "OPTIONS")] == [405] * 4
    assert [ask(page, "/", method)[0] for method in ("POST", "PATCH", "OPTIONS")] == [405] * 3
    assert echo.reached == []
    assert ask(page, "/", "HEAD")[0] == 200
    assert ask(page, "/", query="theme=dark&deep_link=..%2F..%2Fx&theme=a%26b")[2] == b"theme=dark&theme=a%26b|"


def test_a_body_is_what_the_route_makes_of_it_or_nothing(page: Application, echo: Echo) -> None:
    status, _, body = ask(page, "/do", "POST", body=b'{"once": 21, "more": "x", "once": 4}')
    assert (status, json.loads(body[1:])) == (200, {"twice": 8})
    echo.reached.clear()
    assert ask(page, "/do", "POST", body=b'{"once": 1, "secret": true}')[0] == 403
    for odd in (b"[1]", b"{", b'{"once": NaN}', b"[" * 5000, b"\xff", b'"x"'):
        assert ask(page, "/do", "POST", body=odd)[0] == 400, odd
    assert ask(page, "/do", "POST", body=b'{"once": "' + b"x" * (64 << 10) + b'"}')[0] == 413
    assert ask(page, "/do", "POST", body=b" " * (70 << 10), content_length="9")[0] == 413, "whatever it says"
    for length in ("", "-1", "1e3", "x"):
        assert ask(page, "/do", "POST", body=b"{}", content_length=length)[0] == 411
    assert ask(page, "/do", "POST", body=b"{}", transfer_encoding="chunked")[0] == 411
    assert ask(page, "/", body=b"x")[0] == 413
    assert echo.reached == []


def test_every_answer_keeps_others_out(page: Application) -> None:
    for path in ("/", "/nowhere"):
        headers = ask(page, path)[1]
        assert headers["content-security-policy"] == "default-src 'self'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in headers if name.startswith("access-control") or name != name.lower()]


def put(uploads: Uploads, name: str, size: int = 10, when: float = 0) -> Path:
    path = uploads.folder / "ab" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (when, when))
    return path


def test_only_files_of_the_folder_are_served_and_no_answer_tells_of_others(
    page: Application, echo: Echo, uploads: Uploads, tmp_path: Path
) -> None:
    inside, outside = put(uploads, "a b.png"), tmp_path / "private.png"
    outside.write_bytes(b"private")
    (uploads.folder / "link.png").symlink_to(outside)
    (uploads.folder / "up").symlink_to(tmp_path)
    (uploads.folder / "round").symlink_to(uploads.folder / "round")
    assert ask(page, f"/file={inside}")[0] == 200
    echo.reached.clear()
    refused = [
        outside, tmp_path / "nothing.png", uploads.folder / "link.png", uploads.folder / "up" / "private.png",
        uploads.folder / "round", uploads.folder, uploads.folder / "ab" / "..", f"{uploads.folder}/../private.png",
        f"{uploads.folder}/./ab/a b.png", os.path.relpath(inside), "private.png", f"file://{inside}", f"{inside}\0",
        f"{inside}/", "http://evil.example/x.png", f"{tmp_path}/dropped-too/x.png", "x" * 5000, "\ud800",
    ]  # fmt: skip
    answers = [ask(page, f"/file={path}") for path in refused]
    assert all(answer == answers[0] for answer in answers), "the same for each, whether or not there is one"
    assert answers[0][0] == 404
    assert echo.reached == []
    for path in refused:
        with pytest.raises(LanitError):
            uploads.path(str(path))
    assert uploads.path(str(inside)) == inside


def test_the_oldest_uploads_give_way_and_the_pages_own_stay(uploads: Uploads) -> None:
    own = put(uploads, "own.png", 50, when=1)
    uploads.keep_present()
    old, new = put(uploads, "old.png", 90, when=2), put(uploads, "new.png", 90, when=3)
    with uploads.admitted(40):  # 50 + 90 + 90 + 40 > 250
        assert [path.exists() for path in (own, old, new)] == [True, False, True]
    for number in range(9):
        put(uploads, f"small-{number}.png", 1, when=4 + number)
    with uploads.admitted(1):
        left = sorted(path.name for path in uploads.folder.rglob("*.png"))
        assert left == ["own.png", "small-7.png", "small-8.png"], "with the one that comes, four"
    for number in range(9):  # of a request that held many
        put(uploads, f"late-{number}.png", 1, when=20 + number)
    with uploads.admitted(1):
        pass
    assert len(list(uploads.folder.rglob("*.png"))) <= 4


def test_requests_at_the_same_time_share_the_room(uploads: Uploads) -> None:
    arriving = uploads.folder / "tmp1"
    with uploads.admitted(100), uploads.admitted(100):
        arriving.write_bytes(b"x" * 10)
        with pytest.raises(Refusal) as refused, uploads.admitted(100):
            pass
        assert refused.value.status == 503
        assert arriving.exists(), "what is on its way is left alone"
        with uploads.admitted(20):
            pass
    with pytest.raises(Refusal, match="at most"), uploads.admitted(101):
        pass
    with uploads.admitted(100), uploads.admitted(100):
        pass
    with uploads.admitted(1):
        arriving.write_bytes(b"x" * 300)
    assert not arriving.exists(), "left behind by a request that broke off"


def test_a_request_that_holds_too_much_is_told_so(page: Application, echo: Echo) -> None:
    assert ask(page, "/upload", "POST", body=b"x" * 100)[0] == 200
    status, _, body = ask(page, "/upload", "POST", body=b"x" * 101)
    assert (status, b"at most" in body) == (413, True)
    assert ask(page, "/upload", "POST", body=b"x", transfer_encoding="chunked")[0] == 411
    assert ask(page, "/upload", "POST", body=b"x", origin="http://evil.example")[0] == 403
    assert len(echo.reached) == 1


def test_names_of_hosts_are_compared_in_one_form() -> None:
    assert host_name("[FD00:0:0::7]") == host_name("fd00::7") == "fd00::7"
    assert host_name("::ffff:192.0.2.5") == "192.0.2.5"
    assert host_name("Lab.Example.org") == "lab.example.org"
    for odd in ("", "http://lab", "lab:80", "a b", "[lab]", "*", "lab/", "läb"):
        with pytest.raises(UsageError):
            host_name(odd)


def test_what_a_killed_server_left_goes_with_the_next_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def make(name: str, *files: str) -> Path:
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(b"x")
        return tmp_path / name

    killed = make("page-killed", ".lock", "own.png")
    mixed = make("page-mixed", ".lock", "own.png", "theirs.txt")
    strange = make("page-strange", "own.png")
    other = make("other", ".lock", "own.png")
    (tmp_path / "page-link").symlink_to(other)
    with visitors_folder("page-", lambda name: name == "own.png") as living:
        (living / "own.png").write_bytes(b"x")
        assert not killed.exists()
        assert sorted(path.name for path in mixed.iterdir()) == ["theirs.txt"]
        assert (strange / "own.png").exists()
        assert (other / "own.png").exists()
        with visitors_folder("page-", lambda name: name == "own.png") as second:
            assert second != living
            assert (living / "own.png").exists(), "its server lives"
        assert not second.exists()
    assert not living.exists()
