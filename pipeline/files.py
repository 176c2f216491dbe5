"""Files that appear whole or not at all, JSON that notices damage, digests, and the lock of a folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lanit.errors import LanitError, cannot_write
from pipeline.stand_ins import refuse_stand_in

LOCK_NAME = ".lock"
"""Of the file in a folder that whichever command writes there holds."""

_TEMPORARY = re.compile(r"\.(?P<target>.+)\.(?P<pid>\d+)\.(?:tmp|old)")
_SEAL = "seal"
_SEALED_BY = "sha256:"


def temporary_name(path: Path, suffix: str = "tmp") -> Path:
    """Where this process makes ``path`` before it appears; ``old`` as suffix: where the one before goes meanwhile."""
    return path.with_name(f".{path.name}.{os.getpid()}.{suffix}")


def is_temporary(name: str, of: str | None = None) -> bool:
    """Whether ``name`` is one that :func:`temporary_name` gives, to anything or to ``of``."""
    target = temporary_target(name)
    return target is not None and of in (None, target)


def temporary_target(name: str) -> str | None:
    """The name of what a file or folder called ``name`` was to become, or was before; none for other names."""
    found = _TEMPORARY.fullmatch(name)
    return found["target"] if found else None


def sweep_folder(folder: Path, *, spare_living: bool = False) -> None:
    """Remove what killed processes left half-made right in ``folder``, a folder of lanit's whose lock is held.

    spare_living: leave what belongs to a process that runs, in a folder where some write without the lock.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            found = _TEMPORARY.fullmatch(path.name)
            if found and int(found["pid"]) != os.getpid() and not (spare_living and _is_alive(int(found["pid"]))):
                _remove(path)


def sweep_beside(path: Path) -> None:
    """Remove what killed processes left half-made of ``path`` itself; what lies beside it may be anybody's."""
    with contextlib.suppress(OSError):
        for other in path.parent.iterdir():
            found = _TEMPORARY.fullmatch(other.name)
            if found and found["target"] == path.name and not _is_alive(int(found["pid"])):
                _remove(other)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


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
    sync_folder(path.parent)


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``, for :func:`publish`; removed on leaving if it is still there.

    Raises LanitError where the disk refuses.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_beside(path)
        yield temporary
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_unwritable(error: Exception) -> bool:
    """Whether ``error`` says that nothing can be written there at all: a read-only file system, or no permission."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def json_bytes(value: object) -> bytes:
    """``value`` as indented JSON; equal values give equal bytes."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def write_json(path: Path, value: object) -> None:
    """Replace ``path`` by ``value`` as indented JSON, atomically; equal values give equal bytes."""
    write_bytes(path, json_bytes(value))


def read_json(path: Path, hint: str = "") -> Any:
    """Parse a JSON file. A sealed object (:func:`sealed`) is compared with its seal, and comes without it.

    Raises LanitError (with ``hint``) where the file is missing, is not JSON, or was changed since it was sealed.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise LanitError(f"there is no file {path}", hint) from error
    except OSError as error:
        raise LanitError(f"cannot read {path}: {error.strerror or error}", hint) from error
    except (ValueError, RecursionError) as error:
        refuse_stand_in(path)
        raise LanitError(f"{path} is not valid JSON ({error})", hint) from error
    try:
        return unsealed(value) if isinstance(value, dict) else value
    except ValueError as error:
        raise LanitError(f"{path} is damaged: {error}", hint) from error


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """``document``, a JSON object, with a digest of its content as its last entry."""
    return document | {_SEAL: _seal_of(document)}


def unsealed(document: dict[str, Any]) -> dict[str, Any]:
    """``document`` without its seal; one that never had a seal is taken as it is.

    Raises ValueError where content and seal do not fit each other.
    """
    seals = [k for k, v in document.items() if k == _SEAL or (isinstance(v, str) and v.startswith(_SEALED_BY))]
    if not seals:
        return document
    content = {key: value for key, value in document.items() if key != _SEAL}
    if seals != [_SEAL] or document[_SEAL] != _seal_of(content):
        raise ValueError("its content was changed since it was written")
    return content


def _seal_of(document: dict[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return _SEALED_BY + sha256_bytes(text.encode("utf-8", "surrogatepass"))


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

    The operating system drops the lock with the process, so a killed run leaves nothing behind. The holder may remove
    the file: whoever waits for it then makes a new one.
    """
    lock = FileLock(path, timeout=wait_seconds, mode=0o644)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise busy from None
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        lock.release()


def sync_folder(folder: Path) -> None:
    """Flush renames to disk, where the system lets folders be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
