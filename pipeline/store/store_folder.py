"""The folder of a store: whether one is ours to write to, its lock, and ``store.json``."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.files import read_json, sealed, sweep_folder, write_json
from pipeline.folders import check_folder, is_free, locked_folder
from pipeline.store.schemas import METADATA_KEY, PART_NAME, Manifest

MANIFEST_NAME = "store.json"
IMAGES_FOLDER = "images"
LABELS_FOLDER = "labels"
INDEX_FOLDER = "index"
CACHE_FOLDER = "cache"
UNFINISHED_NAME = f"{IMAGES_FOLDER}/unfinished.jsonl"

_FOLDERS = (IMAGES_FOLDER, LABELS_FOLDER, INDEX_FOLDER, CACHE_FOLDER)


def claim_store(root: Path) -> None:
    """Raise LanitError where ``root`` holds anything and is no store: no command writes there."""
    check_folder(root, "--store", "store", _is_store)


@contextlib.contextmanager
def lock_store(root: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """The lock that every writer of the store holds; what killed ones left half-made goes.

    Raises LanitError where another process keeps it for ``wait_seconds``, and where ``root`` is another's folder.
    """
    claim_store(root)
    with locked_folder(root, "--store", wait_seconds):
        claim_store(root)  # another command may have filled it meanwhile
        sweep_folder(root / IMAGES_FOLDER)
        for name in (LABELS_FOLDER, INDEX_FOLDER, CACHE_FOLDER):
            sweep_folder(root / name, spare_living=True)
        yield


def read_manifest(root: Path) -> Manifest | None:
    """``store.json``; none where there is no such file.

    Raises LanitError where it is damaged, of another version, or not of a store at all.
    """
    path = root / MANIFEST_NAME
    if not path.exists():
        return None
    hint = f"Run: lanit embed DIR --store {shlex.quote(str(root))} --overwrite"
    try:
        return Manifest.from_json(read_json(path, hint), str(path))
    except LanitError as error:
        claim_store(root)
        raise LanitError(error.message, hint) from error


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Replace ``store.json``: the one commit of the images table."""
    write_json(root / MANIFEST_NAME, sealed(manifest.to_json()))


def mending_hint(root: Path, manifest: Manifest) -> str:
    """The command that writes damaged or missing parts of the images table again, for a message.

    One input is enough: ``lanit embed`` looks through the others too where a damaged part had images of them.
    """
    from pipeline.inputs.storage import is_url  # Pillow comes with it: reports do without

    entries = sorted(manifest.sources, key=lambda entry: is_url(entry.source) + 2 * (not _may_be_there(entry.source)))
    words = ["lanit", "embed", entries[0].source if entries else "DIR", "--store", str(root)]
    if entries and entries[0].image_column is not None:
        words += ["--image-column", entries[0].image_column]
    return f"Run: {shlex.join(words)}"


def parts_in_force(root: Path) -> set[str] | None:
    """Parts that ``store.json``, of whatever version, names; none where there is one that cannot be read."""
    if not (root / MANIFEST_NAME).exists():
        return set()
    manifest = _lenient(root / MANIFEST_NAME)
    entries = manifest.get("parts") if isinstance(manifest, dict) else None
    return _files_of(entries) if isinstance(entries, list) else None


def parts_of_journal(root: Path) -> set[str]:
    """Parts that the journal of an interrupted run names, whatever it was made with."""
    return _files_of(json_lines(root / UNFINISHED_NAME)) if _is_journal(root / UNFINISHED_NAME) else set()


def json_lines(path: Path) -> Iterator[Any]:
    """The lines of a file that are whole and JSON; none of a file that cannot be read."""
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                with contextlib.suppress(ValueError, RecursionError):
                    yield json.loads(line)


def is_parquet_of_lanit(path: Path) -> bool:
    """Whether the footer says that ``lanit`` wrote it for a store."""
    try:
        return METADATA_KEY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _is_store(root: Path) -> bool:
    """A store of any version, a damaged one, or what a run left that was killed before its first commit."""
    manifest = _lenient(root / MANIFEST_NAME)
    if isinstance(manifest, dict) and {"schema_version", "fingerprint", "parts"} <= manifest.keys():
        return True
    if _is_journal(root / UNFINISHED_NAME):
        return True
    others = [path for path in root.iterdir() if path.name not in _FOLDERS]
    bare = is_free(root, besides=_FOLDERS)
    if (root / MANIFEST_NAME) in others or bare:  # else somebody's folder, in which there may well be copies of parts
        files = [*(root / IMAGES_FOLDER).glob("part-*.parquet"), *(root / LABELS_FOLDER).glob("r*.parquet")]
        if any(is_parquet_of_lanit(path) for path in files):
            return True
    return bare and all(is_free(root / name) for name in _FOLDERS)


def _files_of(entries: Iterable[Any]) -> set[str]:
    named = [entry.get("file") for entry in entries if isinstance(entry, dict)]
    return {file for file in named if isinstance(file, str) and PART_NAME.fullmatch(file)}


def _is_journal(path: Path) -> bool:
    header = next(json_lines(path), None)
    return isinstance(header, dict) and {"schema_version", "overwrite", "storage", "fingerprint"} <= header.keys()


def _lenient(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _may_be_there(source: str) -> bool:
    from pipeline.inputs.storage import is_url

    return is_url(source) or Path(source).exists()
