"""A Ray cluster to compute on: one that is there, or one of this machine alone that ends with the command."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lanit.errors import LanitError, UsageError
from pipeline.extras import install

_CONNECT_SECONDS = 5.0
_ON_A_NODE = "Run it on a node of the cluster with --address auto, or: ray job submit -- lanit embed ..."


@dataclass(frozen=True)
class Node:
    """Processors and GPUs that a node lends to Ray."""

    processors: int
    gpus: int


@dataclass(frozen=True)
class Workforce:
    """What computes: so many processes, each with its processors, and a GPU or none."""

    actors: int
    processors: int
    gpu: bool

    def __str__(self) -> str:
        processors = "1 processor" if self.processors == 1 else f"{self.processors} processors"
        each = f"{'a GPU and ' if self.gpu else ''}{processors}"
        return f"Ray, 1 process with {each}" if self.actors == 1 else f"Ray, {self.actors} processes with {each} each"


def import_ray() -> Any:
    """The package, which is an extra of ours. Raises LanitError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the rest is in its log files
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise LanitError("Ray is not installed", f"Run: {install('ray')}") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "The minimum number of concurrent actors", UserWarning)  # of a small run
    return ray


@contextlib.contextmanager
def workforce(address: str | None = None, actors: int | None = None, device: str = "auto") -> Iterator[Workforce]:
    """What a Ray cluster has for us; the connection to it lasts as long as the block.

    address: ``HOST:PORT`` of a cluster, or ``auto`` for the one that this machine is part of; none: the one that
    RAY_ADDRESS names or that this machine is part of, else one of this machine alone, which ends with the block.
    actors, device: see :func:`share_out`. A connection that is there already is used, and left as it is. What is
    printed in the block goes to stderr.
    Raises LanitError where Ray is not installed or no cluster answers, UsageError for an address that cannot serve.
    """
    ray = import_ray()
    found = ray.is_initialized()
    if not found:
        _check_address(address or os.environ.get("RAY_ADDRESS", ""))
        try:
            with _silent():
                ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise LanitError(f"Ray does not start ({reason})", "Check it with: ray status") from error
    try:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = [Node(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in alive]
        with contextlib.redirect_stdout(sys.stderr):  # Ray prints the misfortunes of its processes
            yield share_out(nodes, actors, device)
    finally:
        if not found:
            ray.shutdown()


def share_out(nodes: Sequence[Node], actors: int | None, device: str) -> Workforce:
    """Processes for a cluster: ``actors``, else one for each GPU, else one for each node.

    device: ``auto``, ``cpu`` or ``cuda``; UsageError for a GPU of one's own choice. Raises LanitError where the cluster
    has not that much.
    """
    gpus = sum(node.gpus for node in nodes)
    if device.startswith("cuda:"):
        raise UsageError(f"--device {device} does not go with Ray, which hands out the GPUs", "Write --device cuda.")
    if device == "cuda" or (device == "auto" and gpus):
        if not gpus:
            raise LanitError("the Ray cluster has no GPU", "Try --device cpu.")
        if actors and actors > gpus:
            raise LanitError(f"the Ray cluster has {gpus} GPUs for {actors} processes", "Try fewer --actors.")
        with_gpu = [node for node in nodes if node.gpus]
        return Workforce(actors or gpus, max(1, min(node.processors // node.gpus for node in with_gpu)), gpu=True)
    processors = [node.processors for node in nodes if node.processors]
    actors = actors or max(1, len(processors))
    if sum(processors) < actors:
        message = f"the Ray cluster has {sum(processors)} processors for {actors} processes"
        raise LanitError(message, "Try fewer --actors.")
    share = max(size for size in range(1, max(processors) + 1) if sum(n // size for n in processors) >= actors)
    return Workforce(actors, share, gpu=False)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what is not Python off the terminal: it tells its log level, whatever that is."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _check_address(address: str) -> None:
    """Raise where it is sure that nobody will answer: Ray itself tries for a minute, and says so in many lines."""
    if "://" in address:
        raise UsageError(f"lanit works inside a Ray cluster, not through {address}", _ON_A_NODE)
    if address in ("", "auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--address {address} is not HOST:PORT", "Write it as ray start prints it, or --address auto.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        message = f"no Ray cluster answers at {address} ({error.strerror or error})"
        raise LanitError(message, "Start one with: ray start --head") from error
