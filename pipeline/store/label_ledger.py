"""``labels/ledger.json``: the digests of the footers of the files beside it, so that one of another store is noticed.

Described in manifests/README.md. Writers hold the lock of the store; a file that the ledger lacks is taken as it is.
"""

from __future__ import annotations

import contextlib
import functools
import re
from pathlib import Path

from lanit.errors import LanitError
from pipeline.files import publish, read_json, sealed, write_json
from pipeline.parquet_seals import footer_sha256
from pipeline.store.schemas import SCHEMA_VERSION

LEDGER_NAME = "ledger.json"
_ENTERED = re.compile(r"r\d{4,}\.parquet|people\.parquet")


def check_entered(path: Path) -> None:
    """Raise ValueError where the ledger beside ``path`` knows the file, and it is another; OSError if it is gone."""
    for _ in range(2):  # a writer may replace file and entry between the two readings
        footer = footer_sha256(path)
        if _read(path.parent).get(path.name, footer) == footer:
            return
    raise ValueError(f"it is another file than {LEDGER_NAME} beside it says")


def publish_entered(temporary: Path, path: Path) -> None:
    """Give ``temporary`` the name of ``path``, and enter it. Killed in between, the file has no entry."""
    entries = _read(path.parent)
    if entries.pop(path.name, None) is not None:
        _write(path.parent, entries)
    publish(temporary, path)
    enter_all(path.parent)


def is_complete(folder: Path) -> bool:
    """Whether the ledger of ``folder`` has an entry for each file there, and for no other."""
    return _read(folder).keys() == _names(folder)


def enter_all(folder: Path) -> None:
    """Enter what the ledger lacks, as far as it can be read and the disk allows; what is gone goes.

    A file that is another than the entry says keeps its entry.
    """
    known = _read(folder)
    entries = {}
    for name in sorted(_names(folder)):
        with contextlib.suppress(OSError, ValueError):
            entries[name] = known.get(name) or footer_sha256(folder / name)
    if entries != known:
        with contextlib.suppress(LanitError):  # the next writer does it
            _write(folder, entries)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.parquet") if _ENTERED.fullmatch(path.name)}


def _read(folder: Path) -> dict[str, str]:
    """Digest of each file entered; empty where there is no ledger, or one that is damaged, of which a warning tells.

    So is one of another store, which fits none of several files.
    """
    path = folder / LEDGER_NAME
    if not path.exists():
        return {}
    try:
        value = read_json(path)
        entries = value.get("footers_sha256") if isinstance(value, dict) else None
        if not isinstance(entries, dict) or not all(isinstance(each, str) for each in entries.values()):
            raise LanitError(f"{path} is damaged: it is no list of files")
        present = [name for name in entries if (folder / name).exists()]
        if len(present) > 1 and not any(_has_footer(folder / name, entries[name]) for name in present):
            raise LanitError(f"{path} is damaged: it fits none of the files beside it")
    except LanitError as error:
        _warn(f"{error.message}; label files are taken as they are until lanit label writes it anew")
        return {}
    return entries


def _has_footer(path: Path, footer: str) -> bool:
    try:
        return footer_sha256(path) == footer
    except (OSError, ValueError):
        return False


def _write(folder: Path, entries: dict[str, str]) -> None:
    document = {"schema_version": SCHEMA_VERSION, "footers_sha256": entries}
    write_json(folder / LEDGER_NAME, sealed(document))


@functools.cache
def _warn(text: str) -> None:
    """Once in a process."""
    from pipeline.showing import console  # rich comes with it

    console.warn(text)
