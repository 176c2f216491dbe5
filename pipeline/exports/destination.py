"""The folder of an export: filled beside its final place, continued after an interruption, there only when whole."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lanit.errors import LanitError
from pipeline.exports.selection import Missing
from pipeline.files import exclusive_lock, read_json, write_json

MARKER_NAME = "lanit-export.json"
MISSING_NAME = "missing.csv"
_JOURNAL_NAME = "unfinished.json"
_LOCK_NAME = ".lock"


@dataclass
class Progress:
    """How far an export has come. stop: rows of the selection that are settled; files: written; missing: images that
    could not be read again; missing_bytes: size of their list; counts: exported images of each group."""

    stop: int = 0
    files: int = 0
    exported: int = 0
    missing: int = 0
    missing_bytes: int = 0
    counts: tuple[int, ...] = ()


class Destination:
    """Where an export goes. identity: what it is made of and how, as JSON; equal identities give equal files."""

    def __init__(self, out: Path, identity: dict[str, Any]) -> None:
        self.out = out.resolve()
        self.identity = identity

    @property
    def folder(self) -> Path:
        """The folder to fill, which takes the name of ``out`` at the end."""
        return self.out.with_name(f".{self.out.name}.exporting")

    @property
    def _replaced(self) -> Path:
        return self.out.with_name(f".{self.out.name}.replaced")

    def earlier(self, overwrite: bool) -> dict[str, Any] | None:
        """The marker of a complete export of the same identity that is already there.

        Raises LanitError where something else is, but for an export that ``overwrite`` allows to replace.
        """
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return None
        if not (self.out / MARKER_NAME).is_file():
            what = "a folder that holds other files" if self.out.is_dir() else "a file"
            raise LanitError(f"--out {self.out} is {what}", "Give a new folder; only an earlier export is replaced.")
        if overwrite:
            return None
        marker = read_json(self.out / MARKER_NAME, "Add --overwrite to write the export anew.")
        if not isinstance(marker, dict) or marker.get("identity") != self.identity:
            raise LanitError(f"--out {self.out} holds another export", "Add --overwrite to replace it.")
        return marker

    @contextlib.contextmanager
    def unfinished(self) -> Iterator[Progress]:
        """Hold the folder to fill, with what an interrupted run of the same identity left in it.

        Where a LanitError ends the run before anything is exported, nothing is left behind.
        """
        busy = LanitError(
            f"another lanit command is writing to {self.out}", "Wait for it to end, or use another --out."
        )
        with exclusive_lock(self.folder / _LOCK_NAME, busy):
            progress = self._continued()
            try:
                yield progress
            except LanitError:
                if not progress.exported:  # nothing to continue
                    _remove(self.folder)
                raise

    def _continued(self) -> Progress:
        journal = self.folder / _JOURNAL_NAME
        with contextlib.suppress(LanitError, KeyError, TypeError):
            document = read_json(journal)
            if document["identity"] == self.identity:
                progress = Progress(**document["progress"] | {"counts": tuple(document["progress"]["counts"])})
                if progress.missing:
                    os.truncate(self.folder / MISSING_NAME, progress.missing_bytes)
                return progress
        for path in self.folder.iterdir():
            if path.name != _LOCK_NAME:
                _remove(path)
        return Progress()

    def note(self, progress: Progress, missing: tuple[Missing, ...]) -> None:
        """Record that ``progress`` is reached, and the images that were missing on the way."""
        if missing:
            progress.missing_bytes = self._list_missing(missing, first=progress.missing == len(missing))
        write_json(self.folder / _JOURNAL_NAME, {"identity": self.identity, "progress": asdict(progress)})

    def _list_missing(self, missing: tuple[Missing, ...], first: bool) -> int:
        path = self.folder / MISSING_NAME
        with path.open("w" if first else "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if first:
                writer.writerow(("image_id", "path", "source", "error_message"))
            for one in missing:
                writer.writerow((one.record.image_id, one.record.path, one.record.source, one.reason))
            file.flush()
            os.fsync(file.fileno())
        return path.stat().st_size

    def commit(self, marker: dict[str, Any]) -> None:
        """Give the filled folder its name, in place of an earlier export."""
        write_json(self.folder / MARKER_NAME, {"identity": self.identity, **marker})
        (self.folder / _JOURNAL_NAME).unlink()
        if self._replaced.exists():  # of a run that was killed just here
            _remove(self._replaced)
        if self.out.exists():
            self.out.rename(self._replaced)
        (self.folder / _LOCK_NAME).unlink(missing_ok=True)
        self.folder.rename(self.out)
        if self._replaced.exists():
            _remove(self._replaced)


def flush_to_disk(path: Path) -> None:
    """Make sure that a file survives a loss of power before anything says that it is there."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
