"""Serving the page from this machine: an address of our own, behind a guard; nothing sent anywhere, nothing kept."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lanit.errors import LanitError
from pipeline.api import Model
from pipeline.extras import install
from pipeline.play.routes import page_routes, policy
from pipeline.play.workbench import Workbench, drawn_faces, stored_pictures, write_examples
from pipeline.serving.guard import Application, guarded, host_name
from pipeline.serving.listening import address, listening, names_answered_to, serve_until_interrupted
from pipeline.serving.uploads import Uploads
from pipeline.serving.visitors_folder import visitors_folder

if TYPE_CHECKING:
    from fastapi import FastAPI

_DROPPED = "dropped"
_ONE_FILE = 64 << 20
_MOST_BYTES = 512 << 20
_MOST_FILES = 1000
_SILENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class PlayOptions:
    """model: as for ``lanit.load``. store: of images that it learned from, to tell others apart and to pick from.
    host, port: where to listen; port 0 is any free one. allow_hosts: other names that the page answers to. framed_by: a
    host whose pages may show this one in a frame; none if empty."""

    model: str = "sample"
    host: str = "127.0.0.1"
    port: int = 7860
    allow_hosts: tuple[str, ...] = ()
    store: Path | None = None
    clip: str | None = None
    device: str = "auto"
    framed_by: str = ""


def check_installed() -> None:
    """Raises LanitError where Gradio is missing."""
    if importlib.util.find_spec("gradio") is None:
        raise LanitError("lanit play needs gradio, which is not installed", f"Install it: {install('play')}")


def play(options: PlayOptions, tell: Callable[[str], None]) -> None:
    """Serve the page until interrupted. tell: called with the address once it can be opened.

    Raises LanitError where Gradio, the model or its CLIP is missing, or the port is taken.
    """
    check_installed()
    for name in options.allow_hosts:
        host_name(name)
    with listening(options.host, options.port) as listener, visitors_folder("lanit-play-", _is_ours) as folder:
        app = build_app(options, folder)
        tell(address(listener))
        serve_until_interrupted(app, listener)


def build_app(options: PlayOptions, folder: Path) -> Application:
    """The page as an ASGI application, behind its guard. folder: what visitors drop lies there, and goes with it."""
    model = Model(options.model, device=options.device, clip=options.clip)
    known = _known(options, model.image_size)
    bench = Workbench(model, known)
    examples = [] if known is None else write_examples(known, folder)
    uploads = Uploads(folder / _DROPPED, one_file=_ONE_FILE, most_bytes=_MOST_BYTES, most_files=_MOST_FILES)
    page = _page(bench, uploads, options, examples)
    uploads.keep_present()  # Gradio serves copies of the examples
    return guarded(
        page,
        names_answered_to(options.host, options.allow_hosts),
        page_routes(uploads, model.domains),
        policy(options.framed_by),
    )


def _page(bench: Workbench, uploads: Uploads, options: PlayOptions, examples: Sequence[Path]) -> FastAPI:
    os.environ.update(_SILENT, GRADIO_TEMP_DIR=str(uploads.folder))  # Gradio reads them when it is imported
    import gradio
    from fastapi import FastAPI

    from pipeline.play.page import build_page, page_theme
    from pipeline.play.panels import style_sheet

    page = build_page(bench, uploads, options.model, examples)
    return gradio.mount_gradio_app(
        FastAPI(openapi_url=None), page, path="/", server_name=options.host, footer_links=[], ssr_mode=False,
        pwa=False, enable_monitoring=False, mcp_server=False, run_history=False, max_file_size=_ONE_FILE,
        allowed_paths=[], theme=page_theme(), css=style_sheet(), show_error=False,
    )  # fmt: skip


def _is_ours(name: str) -> bool:
    """Whether the page writes a file of that name into its folder."""
    return name.startswith(f"{_DROPPED}/") or re.fullmatch(r"example-\d+\.png", name) is not None


def _known(options: PlayOptions, size: int) -> np.ndarray | None:
    if options.store is not None:
        return stored_pictures(options.store, size)
    return drawn_faces() if options.model == "sample" else None
