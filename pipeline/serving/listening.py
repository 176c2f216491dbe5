"""Where a page is served: a socket of this machine, the names that it answers to, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import signal
import socket
from collections.abc import Iterator, Sequence

from lanit.errors import LanitError, UsageError
from pipeline.serving.guard import Application


def serve_until_interrupted(app: Application, listener: socket.socket) -> None:
    """Serve ``app`` by uvicorn, in this process, until Ctrl-C or SIGTERM."""
    import uvicorn

    # Pages left open are cut off at the end, which uvicorn would report as errors.
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else uvicorn ends the process, and nobody tidies up
    with contextlib.suppress(KeyboardInterrupt):  # which is how one ends the page
        server.run(sockets=[listener])


def names_answered_to(host: str, allowed: Sequence[str]) -> list[str]:
    """What a page answers to besides this machine's own addresses: what was asked for, the machine by its name where
    the network is let in."""
    names = [*allowed, host]
    return names if is_local(host) else [*names, socket.gethostname()]


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens. Raises LanitError where the port is taken, UsageError where the host is not ours."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise UsageError(f"there is no host {host}", "Leave out --host to serve this machine only.") from error
    except PermissionError as error:
        raise LanitError(f"port {port} is not ours to use", "Try --port 0 for any free one.") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LanitError(f"port {port} is in use", "Try --port 0 for any free one.") from error
        raise UsageError(
            f"cannot listen on {host}: {error.strerror or error}", "Leave out --host to serve this machine only."
        ) from error
    with listener:
        # Accepted ones inherit it. asyncio sets it only on sockets that were made with the number of TCP, which this
        # one is not, and without it the body of an answer waits for the receipt of its head: 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
