"""Files that appear whole or not at all, their digests, and the lock of a store."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lanit.errors import LanitError

fcntl: Any  # Windows has no flock; writers are not kept apart there
try:
    fcntl = importlib.import_module("fcntl")
except ImportError:
    fcntl = None

_DISK_HINT = "Check the disk and its permissions."


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on leaving it is flushed to disk and takes the name of ``path``.

    An exception inside leaves ``path`` as it was and removes the temporary file.
    Raises LanitError where the disk refuses.
    """
    with temporary_beside(path) as temporary:
        yield temporary
        publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Flush ``temporary`` to disk and give it the name of ``path``, in the same folder."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``, for :func:`publish`; removed on leaving if it is still there.

    Raises LanitError where the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        raise LanitError(f"cannot write {path}: {error.strerror or error}", _DISK_HINT) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: object) -> None:
    """Replace ``path`` by ``value`` as indented JSON, atomically; equal values give equal bytes."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path, hint: str = "") -> Any:
    """Parse a JSON file. Raises LanitError (with ``hint``) where it is missing or is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise LanitError(f"there is no file {path}", hint) from error
    except OSError as error:
        raise LanitError(f"cannot read {path}: {error.strerror or error}", hint) from error
    except ValueError as error:
        raise LanitError(f"{path} is not valid JSON ({error})", hint) from error


def storable(path: str) -> str:
    """``path`` with bytes that are not UTF-8 written as ``\\xNN``, so that a table can hold it."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def exclusive_lock(path: Path, busy: LanitError, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path``; raise ``busy`` where another process still holds it after ``wait_seconds``.

    The operating system drops the lock with the process, so a killed run leaves nothing behind.
    """
    if fcntl is None:
        yield
        return
    descriptor = _locked(path, busy, time.monotonic() + wait_seconds)
    try:
        yield
    finally:
        os.close(descriptor)


def _locked(path: Path, busy: LanitError, deadline: float) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LanitError(f"cannot write {path}: {error.strerror or error}", _DISK_HINT) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
            os.close(descriptor)  # its holder removed the file meanwhile: try the new one
        except OSError as error:
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise busy from error
            time.sleep(0.05)


def _sync_folder(folder: Path) -> None:
    """Flush a rename to disk, where the system lets folders be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
