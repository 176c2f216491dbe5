"""``lanit review``: every image of a store before a person, a key to press, and labels that get better."""

from __future__ import annotations

import importlib.util
import threading
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
    from pipeline.review.workplace import Workplace


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
        place = _workplace(options)
        app = _page(place, options)
        tell(address(listener))
        threading.Thread(target=place.prepare_search_early, name="early", daemon=True).start()
        serve_until_interrupted(app, listener)


def build_app(options: ReviewOptions) -> Application:
    """The page as an ASGI application, behind its guard."""
    return _page(_workplace(options), options)


def _workplace(options: ReviewOptions) -> Workplace:
    from pipeline.review.workplace import Workplace
    from pipeline.store.store_clip import clip_elsewhere

    store = Store.open(options.store)
    return Workplace(store, clip_elsewhere(store, options.clip, options.clip_architecture), options.prompts)


def _page(place: Workplace, options: ReviewOptions) -> Application:
    from starlette.applications import Starlette

    from pipeline.review.answering import page_handlers

    app = Starlette(routes=page_handlers(place))
    return guarded(app, names_answered_to(options.host, options.allow_hosts), review_routes(), POLICY)
