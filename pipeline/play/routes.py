"""What a browser may ask of the page of ``lanit play``: the routes of Gradio that it needs, and no others."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline.serving.guard import Route
from pipeline.serving.refusal import Refusal
from pipeline.serving.uploads import Uploads

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's page starts inline, and compiles its templates
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)

_NAME = r"[\w@+~-][\w.@+~-]*"  # no dot in front, so nothing leads upwards
_VALUES = 1000
_MOST_NUMBER = 1 << 53
_SESSION = frozenset({"session_hash"})


def policy(framed_by: str = "") -> str:
    """Content-Security-Policy: nothing from elsewhere, nothing to elsewhere, in no frame but of the site given."""
    return "; ".join((_POLICY, f"frame-ancestors {framed_by}" if framed_by else "frame-ancestors 'none'"))


def page_routes(uploads: Uploads, words: Collection[str]) -> tuple[Route, ...]:
    """uploads: where visitors' pictures lie. words: those that can be ticked."""
    return (
        Route(_path("/"), frozenset({"__theme"})),
        Route(_path(r"/(?:config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)")),
        Route(_path(rf"/(?:assets|static)/(?:{_NAME}/)*{_NAME}")),
        Route(_path(rf"/gradio_api/(?:app_id|startup-events|heartbeat/{_NAME})")),
        Route(_path(r"/gradio_api/queue/data"), _SESSION),
        Route(_path(r"/gradio_api/upload_progress"), frozenset({"upload_id"})),
        Route(_path(r"/gradio_api/file=(?P<file>.+)"), file=uploads.holds),
        Route(_path(r"/gradio_api/upload"), frozenset({"upload_id"}), uploads=uploads),
        Route(_path(r"/gradio_api/queue/join"), rewrite=_events(uploads, frozenset(words))),
    )


def _path(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII | re.DOTALL)


def _events(uploads: Uploads, words: frozenset[str]) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """What sets off a handler, made again from the parts that were checked: nothing else gets through."""

    def rewritten(body: Mapping[str, Any]) -> Mapping[str, Any]:
        session, values = body.get("session_hash"), body.get("data")
        if not isinstance(session, str) or not re.fullmatch(r"\w{1,64}", session, re.ASCII):
            raise _odd()
        if not isinstance(values, list) or len(values) > _VALUES + len(words):
            raise _odd()
        return {
            "session_hash": session,
            "fn_index": _index(body.get("fn_index")),
            "trigger_id": None if body.get("trigger_id") is None else _index(body["trigger_id"]),
            "data": [_value(value, uploads, words) for value in values],
        }

    return rewritten


def _index(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise _odd()
    return value


def _value(value: object, uploads: Uploads, words: frozenset[str]) -> object:
    """The value of a control: nothing, a tick, a number, words, or a picture that was uploaded."""
    if value is None or (isinstance(value, int | float) and abs(value) <= _MOST_NUMBER):
        return value
    if isinstance(value, list) and all(isinstance(word, str) and word in words for word in value):
        return value
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        path = value["path"]
        if not uploads.holds(path):
            raise Refusal(403, "A picture that you gave is not here any more. Give it again.")
        return {"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}}
    raise _odd()


def _odd() -> Refusal:
    return Refusal(400, "The page does not send this.")
