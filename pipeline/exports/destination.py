"""The folder of an export: filled beside its final place, continued after an interruption, there only when whole."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lanit.errors import LanitError, cannot_write
from pipeline.exports.inventory import Log, LogState, Writes, Written, entries, lines, read_inventory, remove
from pipeline.exports.selection import Missing
from pipeline.files import (
    LOCK_NAME,
    read_json,
    sealed,
    sweep_beside,
    sweep_folder,
    sync_folder,
    temporary_name,
    write_json,
)
from pipeline.folders import check_folder, is_passing, locked_beside, plain_file, restore_folder

MARKER_NAME = "lanit-export.json"
INVENTORY_NAME = "lanit-export.jsonl"
MISSING_NAME = "missing.csv"
_JOURNAL_NAME = "unfinished.json"
OWN_NAMES = (MARKER_NAME, INVENTORY_NAME, MISSING_NAME, _JOURNAL_NAME, LOCK_NAME)
"""Beside what a layout writes."""

_MISSING_COLUMNS = ("image_id", "path", "source", "error_message")
_NEW_FOLDER = "Give a new or empty folder: --out DIR"


@dataclass
class Reached:
    """How far an export has come. stop: rows of the selection that are settled; files: written; missing: images that
    could not be read again; listed, inventory: how much of the lists of these and of the files counts; counts: exported
    images of each group."""

    stop: int = 0
    files: int = 0
    exported: int = 0
    missing: int = 0
    listed: LogState = field(default_factory=LogState)
    inventory: LogState = field(default_factory=LogState)
    counts: tuple[int, ...] = ()

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Reached:
        logs = {name: LogState(**document[name]) for name in ("listed", "inventory")}
        return cls(**document | logs | {"counts": tuple(document["counts"])})


class Destination:
    """Where an export goes. identity: what it is made of and how, as JSON; equal identities give equal files. writes:
    what it may write.

    notes: what a person should know.
    """

    def __init__(self, out: Path, identity: dict[str, Any], writes: Writes) -> None:
        self.out = out.resolve()
        self.identity, self.writes = identity, writes
        self.notes: list[str] = []

    @property
    def folder(self) -> Path:
        """The folder to fill, which takes the name of ``out`` at the end."""
        return self.out.with_name(f".{self.out.name}.exporting")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the only writer of ``out``; what a killed one was just replacing comes back. Raises LanitError where
        another writes there, and where the disk refuses."""
        with locked_beside(self.out, "--out"):
            try:
                restore_folder(self.out)
                sweep_beside(self.out)
                yield
            except OSError as error:
                raise cannot_write(error.filename or self.out, error) from error

    def earlier(self, overwrite: bool) -> dict[str, Any] | None:
        """The marker of a complete export of the same identity that is already there, as it was written.

        Raises LanitError where something else is, but for an export that ``overwrite`` allows to replace, and where
        that was changed, or holds anything that it did not write.
        """
        check_folder(self.out, "--out", "export", lambda folder: plain_file(folder, MARKER_NAME) is not None)
        marker = self._marker()
        if marker is None or overwrite:
            self._replaceable(marker)
            return None
        if marker["identity"] != self.identity:
            raise LanitError(f"--out {self.out} holds another export", "Add --overwrite to replace it.")
        for each in self._inventory(marker):
            if not each.is_there(self.out):
                path = self.out / each.name
                first = "Move it away, then add" if path.exists() or path.is_symlink() else "Add"
                raise LanitError(
                    f"{path} is not as the export wrote it", f"{first} --overwrite to write the export anew."
                )
        (self.out / _JOURNAL_NAME).unlink(missing_ok=True)  # of a run killed as it ended
        return marker

    def _marker(self) -> dict[str, Any] | None:
        """None where there is no export."""
        if plain_file(self.out, MARKER_NAME) is None:
            return None
        marker = read_json(self.out / MARKER_NAME, _NEW_FOLDER)
        if not isinstance(marker, dict) or not {"identity", "result"} <= marker.keys():
            raise LanitError(f"{self.out / MARKER_NAME} is damaged", _NEW_FOLDER)
        return marker

    def _inventory(self, marker: dict[str, Any]) -> list[Written]:
        if "inventory" not in marker:
            message = f"--out {self.out} holds an export of an older lanit, which did not list its files"
            raise LanitError(message, _NEW_FOLDER)
        try:
            return read_inventory(self.out / INVENTORY_NAME, LogState(**marker["inventory"]))
        except (OSError, ValueError, TypeError) as error:
            message = f"{self.out / INVENTORY_NAME} is damaged: it does not fit {MARKER_NAME}"
            raise LanitError(message, _NEW_FOLDER) from error

    def _replaceable(self, marker: dict[str, Any] | None) -> list[str]:
        """Names of all files in ``out``, which are ours, and as they were written. Raises LanitError for others."""
        if not self.out.exists():
            return []
        known = {} if marker is None else {each.name: each for each in self._inventory(marker)}
        found = list(entries(self.out))
        for name in found:
            if not (is_passing(name) or (marker is not None and name in OWN_NAMES)):
                each = known.get(name)
                if each is None or not each.is_there(self.out):
                    what = "did not write there" if each is None else "wrote, but which was changed since"
                    raise LanitError(
                        f"--out {self.out} holds {name}, which lanit {what}",
                        "Move it away, or give a new or empty folder: --out DIR",
                    )
        return found

    @contextlib.contextmanager
    def unfinished(self) -> Iterator[Reached]:
        """What an interrupted run of the same identity left in the folder to fill, which is made where it is missing.

        Where a LanitError ends the run before anything is exported, nothing is left behind.
        """
        progress = self._continued()
        try:
            yield progress
        except LanitError:
            if not progress.exported:  # nothing to continue
                self._remove_unfinished(self.writes)
            raise

    def _continued(self) -> Reached:
        """Raises LanitError where the folder to fill holds anything that no export of lanit wrote."""
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise LanitError(f"{self.folder} is in the way", "Move it away, or give another folder: --out DIR")
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep_folder(self.folder)
        progress = None
        if any(not is_passing(name) for name in entries(self.folder)):
            document = self._journal()
            progress = self._taken_up(document) if document["identity"] == self.identity else None
            if progress is None:
                self._remove_unfinished(Writes(**document["writes"]))
                self.folder.mkdir(exist_ok=True)
        if progress is None:
            progress = Reached()
            self._open_logs(progress)
            self._write_journal(progress)
        return progress

    def _journal(self) -> dict[str, Any]:
        """Of the folder to fill. Raises LanitError where it has none, or holds anything that it does not tell of."""
        hint = "Move the folder away, or give another one: --out DIR"
        document = read_json(self.folder / _JOURNAL_NAME, hint)
        try:
            writes, _ = Writes(**document["writes"]), Reached.from_json(document["progress"])
        except (KeyError, TypeError) as error:
            raise LanitError(f"{self.folder / _JOURNAL_NAME} is damaged, or of an older lanit", hint) from error
        for name in entries(self.folder):
            is_own = name in OWN_NAMES and plain_file(self.folder, name) is not None
            if not (is_passing(name) or is_own or writes.has(self.folder, name)):
                raise LanitError(f"{self.folder} holds {name}, which lanit did not write there", hint)
        return dict(document)

    def _taken_up(self, document: dict[str, Any]) -> Reached | None:
        """None where what is there is not as it was written."""
        progress = Reached.from_json(document["progress"])
        try:
            self._open_logs(progress)
            listed = read_inventory(self.folder / INVENTORY_NAME, progress.inventory) if progress.files else []
            first = next((each.name for each in listed if not each.is_there(self.folder)), None)
        except (OSError, ValueError, TypeError) as error:
            first = str(error)
        if first is None:
            return progress
        self.notes.append(f"what an interrupted export left was changed since ({first}): it is begun anew")
        return None

    def _open_logs(self, progress: Reached) -> None:
        self._missing = Log(self.folder / MISSING_NAME, progress.listed)
        self._files = Log(self.folder / INVENTORY_NAME, progress.inventory)

    def _remove_unfinished(self, writes: Writes) -> None:
        ours = [n for n in entries(self.folder) if is_passing(n) or n in OWN_NAMES or writes.has(self.folder, n)]
        remove(self.folder, sorted(ours, key=_JOURNAL_NAME.__eq__))  # what tells whose they are goes last

    def note(self, progress: Reached, files: Sequence[Written], missing: Sequence[Missing]) -> None:
        """Record that ``progress`` is reached, the files written and the images missing on the way."""
        self._missing.add(_rows_of(missing, first=progress.missing == len(missing)))
        self._files.add(lines(files))
        progress.listed, progress.inventory = self._missing.state, self._files.state
        self._write_journal(progress)

    def _write_journal(self, progress: Reached) -> None:
        document = {"identity": self.identity, "writes": asdict(self.writes), "progress": asdict(progress)}
        write_json(self.folder / _JOURNAL_NAME, sealed(document))

    def commit(self, files: Sequence[Written], result: dict[str, Any]) -> None:
        """Give the filled folder its name, in place of an earlier export. files: written last."""
        self._files.add(lines(files))
        document = {"identity": self.identity, "result": result, "inventory": asdict(self._files.state)}
        write_json(self.folder / MARKER_NAME, sealed(document))
        replaced = self._replaceable(self._marker())
        retired = temporary_name(self.out, "old")
        try:
            if self.out.exists():
                self.out.replace(retired)
            self.folder.replace(self.out)
        finally:
            restore_folder(self.out)
        sync_folder(self.out.parent)
        if retired.exists():
            remove(retired, replaced)
        (self.out / _JOURNAL_NAME).unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Make sure that a file survives a loss of power before anything says that it is there."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _rows_of(missing: Sequence[Missing], *, first: bool) -> str:
    """Lines of the list of missing images; nothing for none."""
    if not missing:
        return ""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink)
    if first:
        writer.writerow(_MISSING_COLUMNS)
    writer.writerows((one.record.image_id, one.record.path, one.record.source, one.reason) for one in missing)
    return sink.getvalue()
