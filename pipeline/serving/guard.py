"""What stands before every page that lanit serves: who may ask, what for, and how much may be sent.

Pure ASGI: it knows no framework, and leans on none. What no route names never reaches the application.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from lanit.errors import UsageError
from pipeline.serving.refusal import Refusal
from pipeline.serving.uploads import Uploads

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_READING = frozenset({"GET", "HEAD"})
_JSON_BYTES = 64 << 10


@dataclass(frozen=True)
class Route:
    """A path that may be asked for.

    path: matches it whole, decoded. query: the parameters that are passed on. file: of a route that serves files,
    whether the group ``file`` of the path names one that may be read. rewrite: of a route that takes a JSON object,
    what the application gets instead; it may raise :class:`Refusal`. uploads: of a route that takes files, where they
    go. A route with neither takes no body, and is for reading only.
    """

    path: re.Pattern[str]
    query: frozenset[str] = frozenset()
    file: Callable[[str], bool] | None = None
    rewrite: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    uploads: Uploads | None = None

    @property
    def reads(self) -> bool:
        return self.rewrite is None and self.uploads is None


def guarded(app: Application, hosts: Iterable[str], routes: Sequence[Route], policy: str) -> Application:
    """``app`` behind the guard.

    hosts: names and addresses, without ports, that the page answers to, besides :data:`LOCAL_HOSTS` and the address
    that a request came to: another site can make a browser ask for a name of its own that leads here, never for an
    address. A port is not compared, so that tunnels work. policy: the Content-Security-Policy of every answer.

    Refused are WebSockets, other hosts, other sites (by ``Origin``, ``Referer`` and ``Sec-Fetch-Site``), paths of no
    route, and bodies that a route does not take. Nothing that refuses tells whether a file is there.
    """
    names = LOCAL_HOSTS | {host_name(host) for host in hosts}
    headers = [
        (b"content-security-policy", policy.encode("ascii")),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),  # no-referrer would take the origin from a form of the page itself
        (b"cross-origin-resource-policy", b"same-origin"),
    ]

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        else:
            try:
                await _pass_on(app, names, routes, scope, receive, _with_headers(send, headers))
            except Refusal as refusal:
                await _answer(_with_headers(send, headers), refusal, body=scope["method"] != "HEAD")

    return guard


async def _pass_on(
    app: Application, names: frozenset[str], routes: Sequence[Route], scope: Scope, receive: Receive, send: Send
) -> None:
    given = _headers(scope)
    _check_host(names, scope, given)
    _check_origin(scope["method"], given)
    route = _route(routes, scope)
    scope = {**scope, "query_string": _query(route, scope["query_string"])}
    with contextlib.ExitStack() as held:
        if route.uploads is not None:
            held.enter_context(route.uploads.admitted(_length(given, "a file")))
        elif route.rewrite is not None:
            body = json.dumps(route.rewrite(await _read_json(given, receive))).encode()
            scope["headers"] = [
                *(header for header in scope["headers"] if header[0] != b"content-length"),
                (b"content-length", str(len(body)).encode()),
            ]
            receive = _replayed(body, receive)
        elif given.get("content-length", "0") != "0" or "transfer-encoding" in given:
            raise Refusal(413, "Nothing may be sent there.")
        await app(scope, receive, send)


# ---------------------------------------------------------------------------------------------------- who may ask


def host_name(host: str) -> str:
    """A name or address in the one way that it is compared. Raises UsageError where it is neither.

    IPv6 in brackets or bare; an IPv4 address within IPv6 is itself.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(bare)
        return str(getattr(found, "ipv4_mapped", None) or found)
    if bare != host or not re.fullmatch(r"[\w.-]+", host, re.ASCII):
        raise UsageError(f"{host!r} is no name of a host", "Give a name or an address alone, such as lab.example.org.")
    return host.lower()


def _headers(scope: Scope) -> dict[str, str]:
    """Headers by their names; one that is given twice is refused where it decides who asks."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        if name in found and name in ("host", "origin", "referer", "content-length", "transfer-encoding"):
            raise Refusal(400, f"More than one header {name}.")
        found[name] = value.decode("latin-1")
    return found


def _check_host(names: frozenset[str], scope: Scope, given: Mapping[str, str]) -> None:
    try:
        name = host_name(re.sub(r":[0-9]{1,5}$", "", given.get("host", "")))
    except UsageError:
        name = ""
    if name not in names and name != _own_address(scope):
        raise Refusal(403, "This page does not answer to that name. Open it by the address that lanit printed.")


def _own_address(scope: Scope) -> str | None:
    """The address of this machine that the request came to; none where the server does not say."""
    server = scope.get("server")
    with contextlib.suppress(UsageError):
        return host_name(server[0]) if server else None
    return None


def _check_origin(method: str, given: Mapping[str, str]) -> None:
    """What a page of another site asks for is refused; to follow a link to here is not."""
    foreign = Refusal(403, "Another site may not ask for this.")
    source = given.get("origin", given.get("referer") if method not in _READING else None)
    if source is not None and _authority(source) != given["host"].lower():
        raise foreign
    follows = method == "GET" and given.get("sec-fetch-mode") == "navigate" and source is None
    if given.get("sec-fetch-site", "none") not in ("none", "same-origin") and not follows:
        raise foreign


def _authority(url: str) -> str | None:
    """Host and port of the URL of a page, as in a header ``Host``; none where it is no such URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None


# ---------------------------------------------------------------------------------------------------- what for


def _route(routes: Sequence[Route], scope: Scope) -> Route:
    for route in routes:
        found = route.path.fullmatch(scope["path"])
        if found and (route.file is None or route.file(found["file"])):
            if scope["method"] not in (_READING if route.reads else {"POST"}):
                raise Refusal(405, "That is not done this way.")
            return route
    raise Refusal(404, "There is no such page.")


def _query(route: Route, query: bytes) -> bytes:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return urlencode([(name, value) for name, value in pairs if name in route.query]).encode()


# ---------------------------------------------------------------------------------------------------- how much


def _length(given: Mapping[str, str], what: str) -> int:
    length = given.get("content-length", "")
    if not re.fullmatch(r"[0-9]{1,18}", length) or "transfer-encoding" in given:
        raise Refusal(411, f"Say how long {what} is.")
    return int(length)


async def _read_json(given: Mapping[str, str], receive: Receive) -> Mapping[str, Any]:
    too_much = Refusal(413, f"At most {_JSON_BYTES >> 10} kB may be sent there.")
    if _length(given, "the request") > _JSON_BYTES:
        raise too_much
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refusal(400, "The request ended early.")
        body += message.get("body", b"")
        if len(body) > _JSON_BYTES:
            raise too_much
        if not message.get("more_body", False):
            break
    try:
        value = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refusal(400, "That is no JSON object.")
    return value


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting = [body]

    async def again() -> Message:
        return {"type": "http.request", "body": waiting.pop(), "more_body": False} if waiting else await receive()

    return again


# ---------------------------------------------------------------------------------------------------- answers


def _with_headers(send: Send, headers: Sequence[tuple[bytes, bytes]]) -> Send:
    """Adds ``headers``, and takes away what would let other sites read."""
    ours = {name for name, _ in headers}

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (name, value) for name, value in message.get("headers", ())
                if name.lower() not in ours and not name.lower().startswith(b"access-control-")
            ]  # fmt: skip
            message = {**message, "headers": [*kept, *headers]}
        await send(message)

    return sent


async def _answer(send: Send, refusal: Refusal, *, body: bool) -> None:
    """The sentence as JSON, under the names by which pages look for one."""
    data = json.dumps({"detail": refusal.text, "error": refusal.text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode()),
               (b"cache-control", b"no-store")]  # fmt: skip
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": data if body else b""})
