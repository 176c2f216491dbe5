"""A hub on this machine for ``lanit pull``, in a process of its own, with the sample model as someone/model."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fake_hub import serve

_MODEL = Path(__file__).parents[2] / "pipeline" / "assets" / "sample-generator"


@contextmanager
def local_hub(cache: Path) -> Iterator[None]:
    """Serve, and point Hugging Face's client there, with its cache in ``cache``: enter before anything imports it."""
    reader, writer = os.pipe()
    server = os.fork()
    if server == 0:
        with serve() as hub:
            hub.repositories["someone/model"] = {path.name: path.read_bytes() for path in _MODEL.iterdir()}
            hub.private["someone/model"] = False
            os.write(writer, hub.url.encode())
            os.close(writer)
            while os.getppid() != 1:
                time.sleep(1.0)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        url = pipe.read()
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ |= {"HF_ENDPOINT": url, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        yield
    finally:
        os.kill(server, signal.SIGTERM)
        os.waitpid(server, 0)
