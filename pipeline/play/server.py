"""Serving the page from this machine: an address of our own, behind a guard; nothing sent anywhere, nothing kept."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import ipaddress
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lanit.errors import LanitError, UsageError
from pipeline.api import Model
from pipeline.play.routes import POLICY, page_routes
from pipeline.play.workbench import Workbench, drawn_faces, stored_pictures, write_examples
from pipeline.serving.guard import Application, guarded, host_name
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
    host, port: where to listen; port 0 is any free one. allow_hosts: other names that the page answers to."""

    model: str = "sample"
    host: str = "127.0.0.1"
    port: int = 7860
    allow_hosts: tuple[str, ...] = ()
    store: Path | None = None
    clip: str | None = None
    device: str = "auto"


def check_installed() -> None:
    """Raises LanitError where Gradio is missing."""
    if importlib.util.find_spec("gradio") is None:
        raise LanitError("lanit play needs gradio, which is not installed", 'Install it: pip install "lanit[play]"')


def play(options: PlayOptions, tell: Callable[[str], None]) -> None:
    """Serve the page until interrupted. tell: called with the address once it can be opened.

    Raises LanitError where Gradio, the model or its CLIP is missing, or the port is taken.
    """
    check_installed()
    for name in options.allow_hosts:
        host_name(name)
    import uvicorn

    with listening(options.host, options.port) as listener, visitors_folder("lanit-play-", _is_ours) as folder:
        app = build_app(options, folder)
        tell(address(listener))
        # Pages left open are cut off at the end, which uvicorn would report as errors.
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # else uvicorn ends the process, and the folder stays
        with contextlib.suppress(KeyboardInterrupt):  # which is how one ends the page
            server.run(sockets=[listener])


def build_app(options: PlayOptions, folder: Path) -> Application:
    """The page as an ASGI application, behind its guard. folder: what visitors drop lies there, and goes with it."""
    model = Model(options.model, device=options.device, clip=options.clip)
    known = _known(options, model.image_size)
    bench = Workbench(model, known)
    examples = [] if known is None else write_examples(known, folder)
    uploads = Uploads(folder / _DROPPED, one_file=_ONE_FILE, most_bytes=_MOST_BYTES, most_files=_MOST_FILES)
    page = _page(bench, uploads, options, examples)
    uploads.keep_present()  # Gradio serves copies of the examples
    return guarded(page, _names(options), page_routes(uploads, model.domains), POLICY)


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


def _names(options: PlayOptions) -> list[str]:
    """What the page answers to besides this machine's own addresses: what was asked for, the machine by its name where
    the network is let in."""
    names = [*options.allow_hosts, options.host]
    return names if is_local(options.host) else [*names, socket.gethostname()]


def _is_ours(name: str) -> bool:
    """Whether the page writes a file of that name into its folder."""
    return name.startswith(f"{_DROPPED}/") or re.fullmatch(r"example-\d+\.png", name) is not None


def _known(options: PlayOptions, size: int) -> np.ndarray | None:
    if options.store is not None:
        return stored_pictures(options.store, size)
    return drawn_faces() if options.model == "sample" else None


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens. Raises LanitError where the port is taken, UsageError where the host is not ours."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise UsageError(f"there is no host {host}", "Leave out --host to serve this machine only.") from error
    except PermissionError as error:
        raise LanitError(f"port {port} is not ours to use", "Try --port 7860.") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LanitError(f"port {port} is in use", "Try --port 0 for any free one.") from error
        raise UsageError(
            f"cannot listen on {host}: {error.strerror or error}", "Leave out --host to serve this machine only."
        ) from error
    with listener:
        yield listener


def address(listener: socket.socket) -> str:
    """What to open in a browser; of a socket that listens everywhere, the address on this machine."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_local(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
