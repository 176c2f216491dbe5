"""For tests: an ASGI application asked directly, without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline.serving.guard import Application

OWN = ("192.0.2.5", 7860)
HEADERS = {"host": "127.0.0.1:7860"}
Answer = tuple[int, dict[str, str], bytes]


def ask(app: Application, path: str, method: str = "GET", *, body: bytes = b"", query: str = "",
        server: tuple[str, int] | None = OWN, kind: str = "http", more: list[tuple[str, str]] | None = None,
        **headers: str) -> Answer:  # fmt: skip
    """Status, headers and body of an answer. headers: with ``_`` for ``-``; ``HEADERS`` unless given, none if empty."""
    sent: list[Any] = []
    given = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
    if body:
        given = {"content-length": str(len(body))} | given
    raw = [(name.encode(), value.encode("latin-1")) for name, value in [*given.items(), *(more or [])] if value]
    scope = {"type": kind, "method": method, "path": path, "query_string": query.encode(), "headers": raw,
             "server": server}  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    if kind != "http":
        return sent[0].get("code", 0), {}, b""
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])
