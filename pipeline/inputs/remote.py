"""Files behind a URL, through fsspec."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, BinaryIO, NoReturn

import fsspec.core
import huggingface_hub.constants
from fsspec.registry import known_implementations
from huggingface_hub.errors import HfHubHTTPError

from lanit.errors import LanitError
from pipeline.clip.hub import hub_answers, hub_error
from pipeline.decoding.limits import ImageError
from pipeline.extras import install
from pipeline.inputs.passed_over import is_system_folder
from pipeline.inputs.storage import UNKNOWN, Kind, Stat, Troubles, Walk, file_name, scheme_of

_EXTRAS = {
    "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure",
    "adl": "azure",
}  # fmt: skip
_PACKAGES = {
    "http": "aiohttp", "https": "aiohttp", "sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol",
    "oss": "ossfs", "webdav": "webdav4", "github": "requests", "webhdfs": "requests",
}  # fmt: skip
"""What to install for a scheme, where fsspec says that its own package is not there: an extra of ours, or a package."""

_BUFFER_BYTES = 4 << 20  # asked for at a time; a file of this size is read at once
_NO_RANGES = "the server gives whole files only; copy this one to a disk"
_REACH_HINT = "Check the URL, the network and your credentials."
_GONE = (404, 410)  # HTTP: not found, gone
_MODIFIED_KEYS = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
"""What the kinds of storage call the time of the last change; ``created`` is all that some tell of their objects, which
cannot be changed but only replaced."""


class RemoteStorage:
    """See :class:`pipeline.inputs.storage.Storage`. fsspec keeps one connection for each server; its own retries apply.

    Every kind of storage raises errors of its own, so that all of them are caught here.
    """

    def kind(self, path: str) -> Kind | None:
        if scheme_of(path) == "hf" and (trouble := hub_trouble()):
            raise LanitError(f"cannot reach {path}: {trouble}", "Give a folder, or try where there is a network.")
        info = self._info(path)
        if info is None:
            return None
        is_page = scheme_of(path) in ("http", "https") and (path.endswith("/") or info.get("mimetype") == "text/html")
        return "folder" if info["type"] == "directory" or is_page else "file"

    def stat(self, path: str) -> Stat:
        try:
            system, name = file_system(path)
            info = system.info(name, **_more(system, expand_info=True))
        except Exception:
            return UNKNOWN
        return _described(info)

    def walk(self, folder: str, troubles: Troubles, first: Sequence[str] = ()) -> Walk:
        """Listings are forgotten as soon as they are used."""
        system, root = file_system(folder)
        waiting = [("", root)]
        while waiting:
            prefix, here = waiting.pop()
            try:
                entries = system.ls(here, detail=True, **_more(system, expand_info=True))
                system.invalidate_cache(here)
            except Exception as error:
                if not prefix:
                    raise LanitError(f"cannot list {folder}: {reason_of(error)}", _REACH_HINT) from error
                troubles.add("folder cannot be listed", "folders cannot be listed", f"{here} ({reason_of(error)})")
                troubles.unlisted.append(prefix)
                continue
            folders: list[tuple[str, str]] = []
            for info in sorted(entries, key=lambda info: file_name(info["name"]) not in first):
                base = file_name(info["name"])
                if not _lies_in(info["name"], here):
                    continue
                if info["type"] != "directory":
                    yield prefix + base, partial(_described, info)
                elif is_system_folder(base):
                    troubles.pass_over(info["name"])
                elif not base.startswith("."):
                    folders.append((f"{prefix}{base}/", info["name"]))
            waiting.extend(sorted(folders, reverse=True))

    def open(self, path: str) -> BinaryIO:
        """Errors while reading are OSErrors."""
        system, name = file_system(path)
        try:
            size = system.info(name)["size"]
            if size is None or size <= _BUFFER_BYTES:
                return io.BytesIO(system.cat_file(name))
        except Exception as error:
            raise LanitError(f"cannot read {path}: {reason_of(error)}", _REACH_HINT) from error
        return io.BufferedReader(_RangeFile(system, name, size), _BUFFER_BYTES)

    def read(self, path: str) -> bytes:
        return self._fetch(path, lambda system, name: system.cat_file(name))

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        if not size:
            return b""
        data = self._fetch(path, lambda system, name: _range(system, name, offset, offset + size))
        if len(data) > size:
            raise ImageError(_NO_RANGES, path)
        if len(data) < size:
            raise ImageError("the file has become shorter since it was listed", path)
        return data

    def glob(self, pattern: str) -> list[str]:
        """URLs of the files that fit a pattern. Raises LanitError where it cannot be listed."""
        system, inner = file_system(pattern)
        try:
            names = sorted(system.glob(inner))
        except Exception as error:
            raise LanitError(f"cannot list {pattern}: {reason_of(error)}", _REACH_HINT) from error
        if pattern.endswith(inner):
            return [pattern.removesuffix(inner) + name for name in names]
        return [str(system.unstrip_protocol(name)) for name in names]

    def _fetch(self, path: str, get: Callable[[Any, str], bytes]) -> bytes:
        try:
            return get(*file_system(path))
        except LanitError as error:
            raise ImageError(str(error), path) from error
        except Exception as error:
            raise ImageError(reason_of(error), path) from error

    def _info(self, path: str) -> dict[str, Any] | None:
        system, name = file_system(path)
        try:
            info: dict[str, Any] = system.info(name)
        except FileNotFoundError as error:
            trouble = error.__cause__  # fsspec says of every trouble of the web that the file was not found
            if scheme_of(path) == "hf" and isinstance(trouble, HfHubHTTPError):
                raise hub_error(f"cannot read {path}", trouble) from error
            is_web = scheme_of(path) in ("http", "https")
            if is_web and trouble is not None and getattr(trouble, "status", None) not in _GONE:
                _unreachable(path, trouble)
            return None
        except Exception as error:
            _unreachable(path, error)
        return info


class _RangeFile(io.RawIOBase):
    """A remote file read by ranges, each with a request of its own: fsspec's own files are not safe in threads where
    they lie in memory, and raise whatever their storage raises."""

    def __init__(self, system: Any, name: str, size: int) -> None:
        self._system, self._name, self._size, self._position = system, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        end = self._position + wanted
        try:
            data = _range(self._system, self._name, self._position, end)
        except Exception as error:
            raise OSError(reason_of(error)) from error
        if len(data) != wanted:
            raise OSError(_NO_RANGES if len(data) > wanted else "the file has become shorter")
        buffer[:wanted] = data
        self._position = end
        return wanted


def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and its name for the file. Raises LanitError: unknown, or not installed."""
    scheme = scheme_of(url)
    try:
        system, name = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise LanitError(f"{scheme}:// needs a package that is not installed", _missing(scheme, error)) from error
    except Exception as error:
        if scheme not in known_implementations:
            hint = "Use one that fsspec knows, such as https, s3, gs, hf or sftp."
            raise LanitError(f"URLs cannot begin with {scheme}://", hint) from error
        raise LanitError(f"cannot open {url}: {reason_of(error)}", _REACH_HINT) from error
    return system, str(name)


def _missing(scheme: str, error: ImportError) -> str:
    if scheme in _EXTRAS:
        return f"Run: {install(_EXTRAS[scheme])}"
    return f"Run: pip install {_PACKAGES[scheme]}" if scheme in _PACKAGES else f"{reason_of(error)}."


def hub_trouble() -> str:
    """Why the Hugging Face hub cannot be asked, found out in seconds; empty where it can."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return "" if hub_answers() else "Hugging Face cannot be reached from here"


def _range(system: Any, name: str, start: int, end: int) -> bytes:
    data: bytes = system.cat_file(name, start=start, end=end, **_more(system, cache_type="none"))
    return data


def _more(system: Any, **options: object) -> dict[str, object]:
    """Options that the hub's file system alone has: ``expand_info``, or it tells no times; ``cache_type``, or each
    range comes with the five megabytes behind it."""
    return options if "hf" in (system.protocol, *system.protocol) else {}


def reason_of(error: BaseException) -> str:
    """One line that says what went wrong behind a URL."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return " ".join(str(error).split()) or type(error).__name__


def _unreachable(path: str, error: BaseException) -> NoReturn:
    raise LanitError(f"cannot reach {path}: {reason_of(error)}", _REACH_HINT) from error


def _lies_in(name: str, folder: str) -> bool:
    """Not so: the folder itself, which object stores list among its files, and links of a web page to elsewhere."""
    if scheme_of(folder) in ("http", "https"):
        return name.startswith(f"{folder.rstrip('/')}/") and "?" not in name and bool(file_name(name))
    return name.rstrip("/") != folder.rstrip("/")


def _described(info: dict[str, Any]) -> Stat:
    if info.get("type") == "directory":
        return UNKNOWN
    size = info.get("size")
    time = next((info[key] for key in _MODIFIED_KEYS if info.get(key) is not None), None)
    time = getattr(info.get("last_commit"), "date", time)  # of the hub
    return Stat(int(size) if size is not None else None, nanoseconds(time))


def nanoseconds(time: Any) -> int | None:
    """Since 1970, of what file systems give as times: datetimes, ISO 8601 texts, or seconds. None for anything else."""
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time)
        except ValueError:
            return None
    if isinstance(time, datetime):
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    return round(time * 1_000_000) * 1000 if isinstance(time, int | float) else None
