"""``lanit review``: every image of a store before a person, a key to press, and labels that get better."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lanit.errors import LanitError
from pipeline.extras import install
from pipeline.review.routes import POLICY, review_routes
from pipeline.serving.guard import Application, guarded, host_name
from pipeline.serving.listening import address, listening, names_answered_to, serve_until_interrupted
from pipeline.store.store import Store

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel


@dataclass(frozen=True)
class ReviewOptions:
    """store: with labels. host, port: where to listen; port 0 is any free one. allow_hosts: other names that the page
    answers to. prompts: the prompt file that new phrases go to; none where they cannot be added. clip,
    clip_architecture: as for ``lanit label``."""

    store: Path = Path("manifests")
    host: str = "127.0.0.1"
    port: int = 7861
    allow_hosts: tuple[str, ...] = ()
    prompts: Path | None = None
    clip: str | None = None
    clip_architecture: str | None = None


def check_installed() -> None:
    """Raises LanitError where the server is missing."""
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        message = "lanit review needs starlette and uvicorn, which are not installed"
        raise LanitError(message, f"Install them: {install('review')}")


def review(options: ReviewOptions, tell: Callable[[str], None]) -> None:
    """Serve the page until interrupted. tell: called with the address once it can be opened.

    Raises LanitError where the server is missing, the store has no labels, or the port is taken.
    """
    check_installed()
    for name in options.allow_hosts:
        host_name(name)
    with listening(options.host, options.port) as listener:
        app = build_app(options)
        tell(address(listener))
        serve_until_interrupted(app, listener)


def build_app(options: ReviewOptions) -> Application:
    """The page as an ASGI application, behind its guard."""
    from starlette.applications import Starlette

    from pipeline.review.answering import page_handlers
    from pipeline.review.workplace import Workplace

    store = Store.open(options.store)
    place = Workplace(store, lambda: _clip(store, options), options.prompts)
    app = Starlette(routes=page_handlers(place))
    return guarded(app, names_answered_to(options.host, options.allow_hosts), review_routes(), POLICY)


def _clip(store: Store, options: ReviewOptions) -> ClipModel:
    from pipeline.store.store_clip import clip_of

    return clip_of(store, options.clip, options.clip_architecture)
