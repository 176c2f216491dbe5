"""What the page of ``lanit review`` asks for, and nothing else: everything passes here before it reaches the server."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.serving.guard import Route
from pipeline.serving.refusal import Refusal

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-eval'",  # the map's library compiles its drawing commands
        "style-src 'self' 'unsafe-inline'",  # and the map's library styles its own elements
        "img-src 'self' blob: data:",
        "connect-src 'self' blob:",
        "worker-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy: nothing from elsewhere, nothing to elsewhere, in no frame."""

MOST_ROWS = 5000  # of an answer
MOST_TEXT = 500
_MOST_CORNERS = 2000
_MOST_OFFSETS = 1000


def review_routes() -> tuple[Route, ...]:
    return (
        Route(_path(r"/(?:favicon\.ico)?")),
        Route(
            _path(
                r"/assets/(?:review\.(?:js|css)|map\.js|vendor/(?:regl|regl-scatterplot)\.min\.js|vendor/pub-sub-es\.js)"
            )
        ),
        Route(_path(r"/thumbs/[0-9a-f]{12}/[0-9]{1,10}")),
        Route(_path(r"/images/[0-9a-f]{12}/[0-9]{1,10}")),
        Route(_path(r"/api/(?:state|map|map/points)")),
        Route(_path(r"/api/list"), frozenset({"queue", "phrase"})),
        Route(_path(r"/api/rows"), frozenset({"list", "start", "count", "phrase"})),
        Route(_path(r"/api/row"), frozenset({"row"})),
        Route(_path(r"/api/changes"), frozenset({"since"})),
        Route(_path(r"/api/(?:estimate|histogram)"), frozenset({"phrase"})),
        Route(_path(r"/api/threshold"), frozenset({"phrase", "offset"})),
        Route(_path(r"/api/map/colours"), frozenset({"by", "phrase"})),
        Route(_path(r"/api/answers"), rewrite=_fields(rows=_rows, phrase=_number, label=_label)),
        Route(_path(r"/api/search"), rewrite=_search),
        Route(_path(r"/api/search/prepare"), rewrite=_fields()),
        Route(_path(r"/api/lasso"), rewrite=_fields(polygon=_polygon)),
        Route(_path(r"/api/try"), rewrite=_fields(phrase=_text)),
        Route(_path(r"/api/phrases"), rewrite=_fields(phrase=_text)),
        Route(_path(r"/api/revision"), rewrite=_fields(offsets=_offsets)),
        Route(_path(r"/api/offsets"), rewrite=_fields()),
        Route(_path(r"/api/map/make"), rewrite=_fields()),
    )


def _path(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


Check = Callable[[object], object]


def _fields(**checks: Check) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """An object of exactly these fields, each made again from what its check let through."""

    def rewritten(body: Mapping[str, Any]) -> Mapping[str, Any]:
        if set(body) != set(checks):
            raise _odd()
        return {name: check(body[name]) for name, check in checks.items()}

    return rewritten


def _search(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """By words, or by an image of the store."""
    return _fields(text=_text)(body) if "text" in body else _fields(row=_number)(body)


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise _odd()
    return value


def _rows(value: object) -> list[int]:
    if not isinstance(value, list) or not 0 < len(value) <= MOST_ROWS:
        raise _odd()
    return list(dict.fromkeys(_number(each) for each in value))


def _label(value: object) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise _odd()
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MOST_TEXT:
        raise Refusal(400, f"Write a few words, of at most {MOST_TEXT} characters.")
    return value


def _real(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _odd()
    return float(value)


def _polygon(value: object) -> list[list[float]]:
    if not isinstance(value, list) or not 3 <= len(value) <= _MOST_CORNERS:
        raise _odd()
    if not all(isinstance(corner, list) and len(corner) == 2 for corner in value):
        raise _odd()
    return [[_real(each) for each in corner] for corner in value]


def _offsets(value: object) -> dict[str, float]:
    """By the number of the phrase, as text, since JSON has no other keys."""
    if not isinstance(value, dict) or len(value) > _MOST_OFFSETS:
        raise _odd()
    if not all(re.fullmatch(r"[0-9]{1,9}", name, re.ASCII) for name in value):
        raise _odd()
    return {name: _real(each) for name, each in value.items()}


def _odd() -> Refusal:
    return Refusal(400, "The page does not send this.")
