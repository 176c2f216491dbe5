"""A hub on this machine: as much of Hugging Face's protocol as its own client needs to push and pull a model."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"


@dataclass
class FakeHub:
    """What the server knows. repositories: by name, files and whether private; spaces: by name, what runs each;
    commits: how many were made;
    requests: "METHOD path" of each; writable: whether the token may write."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    spaces: dict[str, str] = field(default_factory=dict)
    commits: int = 0
    requests: list[str] = field(default_factory=list)
    writable: bool = True

    def sha(self, name: str) -> str:
        digest = hashlib.sha1()
        for path, data in sorted(self.repositories[name].items()):
            digest.update(path.encode() + b"\0" + data)
        return digest.hexdigest()


@contextmanager
def serve() -> Iterator[FakeHub]:
    """A running hub, on a free port of this machine."""
    hub = FakeHub()

    class Handler(_Handler):
        known = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    known: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        self._get()

    def do_HEAD(self) -> None:
        self._get()

    def _get(self) -> None:
        parts = self._parts()
        if parts[:2] in (["api", "models"], ["api", "spaces"]):
            name = "/".join(parts[2:4])
            if self._refused(name):
                return
            sha, files = self.known.sha(name), self.known.repositories[name]
            if parts[4:5] == ["tree"]:
                self._json([
                    {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in files.items()
                ])  # fmt: skip
            elif parts[4:5] == ["revision"] and parts[5] not in ("main", sha):
                self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            else:
                siblings = [{"rfilename": path} for path in files]
                self._json({"id": name, "sha": sha, "private": self.known.private[name], "siblings": siblings})
            return
        name, path = "/".join(parts[:2]), "/".join(parts[4:])
        if self._refused(name):
            return
        data = self.known.repositories[name].get(path)
        commit = {"X-Repo-Commit": self.known.sha(name)}
        if data is None:
            self._answer(404, b"", commit | {"X-Error-Code": "EntryNotFound"})
        else:
            self._answer(200, data, commit | {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self._parts()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, b'{"error": "Invalid credentials"}')
        elif not self.known.writable:
            self._answer(403, b'{"error": "You do not have the rights"}')
        elif parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if name in self.known.repositories:
                self._answer(409, json.dumps({"url": f"{self.known.url}/{name}"}).encode())
                return
            self.known.repositories[name] = {}
            if asked.get("type") == "space":
                self.known.spaces[name] = asked["sdk"]
            self.known.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            self._json({"url": f"{self.known.url}/{name}", "name": name})
        elif parts[4:5] == ["preupload"]:
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            self._json({"files": [file | {"shouldIgnore": False} for file in files]})
        elif parts[4:5] == ["commit"]:
            name = "/".join(parts[2:4])
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    self.known.repositories[name][value["path"]] = base64.b64decode(value["content"])
            self.known.commits += 1
            sha = self.known.sha(name)
            self._json({"commitUrl": f"{self.known.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})
        else:
            self._json({"errors": [], "warnings": []})  # of a model card's header

    def _parts(self) -> list[str]:
        path = unquote(urlsplit(self.path).path)
        self.known.requests.append(f"{self.command} {path}")
        return path.strip("/").split("/")

    def _refused(self, name: str) -> bool:
        hidden = self.known.private.get(name) and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        if name in self.known.repositories and not hidden:
            return False
        self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        return True

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
