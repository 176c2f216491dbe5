"""The folder of results: whose run it holds, what an interrupted run left there, the tables that end a run."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.files import (
    LOCK_NAME,
    is_temporary,
    read_json,
    sealed,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
)
from pipeline.folders import check_folder, locked_folder, plain_file
from pipeline.translating.announcements import Announcements
from pipeline.translating.naming import SCRATCH_NAME
from pipeline.translating.results import (
    LABELS_NAME,
    PARQUET_NAME,
    TABLE_NAME,
    Tables,
    identity_of,
    is_intact,
    outputs_of,
    to_table,
    write_results,
)
from pipeline.translating.source_images import SourceImage
from pipeline.translating.worklist import Worklist

_IDENTITY_NAME = "run.json"
_ANNOUNCED_NAME = "announced.jsonl"
_PART = re.compile(r"part-\d{6,}-(?P<digest>[0-9a-f]{8})\.parquet")
_OF_RUN = re.compile(rf"{_PART.pattern}|run\.json|announced\.jsonl")
_PASSING = re.compile(r"\.lock|(worklist|catalogue)\.sqlite(-journal)?|[0-9a-f]{8}-\d+\.tmp")
"""Files of the scratch folder that no later run needs, some of them as lanit once called them."""

_RESULTS = (TABLE_NAME, LABELS_NAME, PARQUET_NAME)


class TranslationsFolder:
    """Where results go. identity: what they are made of and how, as JSON; equal identities give equal results.

    Files of ours are those that an earlier table of this folder names, and those that a run which is not finished has
    announced; nothing else there is replaced or removed.
    """

    def __init__(self, out: Path, identity: dict[str, Any], domains: Sequence[str]) -> None:
        self.out = out
        self.identity = json.loads(json.dumps(identity))
        self.domains = domains
        self.scratch = out / SCRATCH_NAME
        self.announced = Announcements(self.scratch / _ANNOUNCED_NAME)
        self.notes: list[str] = []
        self._parts: list[Path] = []

    def check(self, overwrite: bool) -> None:
        """Raises LanitError where the folder holds anything but results of this very run."""
        check_folder(self.out, "--out", "folder of translations", lambda folder: self._is_ours())
        if not overwrite and any(identity != self.identity for identity in self._held()):
            raise LanitError(
                f"--out {self.out} holds translations of another request, model or input",
                "Give another folder, or add --overwrite to replace them.",
            )

    def _is_ours(self) -> bool:
        if self._held():
            return True
        if (self.out / PARQUET_NAME).is_file() and (self.out / TABLE_NAME).is_file():
            raise LanitError(f"{self.out / PARQUET_NAME} is damaged", "Give a new or empty folder: --out DIR")
        others = (path.name for path in self.out.iterdir() if path.name not in (SCRATCH_NAME, LOCK_NAME))
        return self._has_scratch() and all(is_temporary(name) for name in others)  # killed at its beginning

    def _has_scratch(self) -> bool:
        return self.scratch.is_dir() and not self.scratch.is_symlink()

    def _held(self) -> list[Any]:
        """The runs that the folder holds results of: a finished one, and one that was interrupted."""
        found = [identity_of(path) for path in self._tables()]
        if self._has_scratch():
            with contextlib.suppress(LanitError):
                found.append(read_json(self.scratch / _IDENTITY_NAME))
        return [identity for identity in found if isinstance(identity, dict)]

    def _tables(self) -> list[Path]:
        """The table of a finished run, and the parts of an interrupted one, in order."""
        finished = [self.out / PARQUET_NAME] if plain_file(self.out, PARQUET_NAME) else []
        return [*finished, *self._parts_there()]

    def _parts_there(self) -> list[Path]:
        if not self._has_scratch():
            return []
        return sorted(path for path in self.scratch.iterdir() if _PART.fullmatch(path.name) and not path.is_symlink())

    @contextlib.contextmanager
    def opened(self, overwrite: bool) -> Iterator[None]:
        """Hold the folder. What an interrupted run made stays for the next; where nothing was made, nothing stays."""
        with locked_folder(self.out, "--out", passing=True):
            self.check(overwrite)
            if self.scratch.is_symlink():
                raise LanitError(f"{self.scratch} is a link", "Remove it, or give a new or empty folder: --out DIR")
            self.scratch.mkdir(exist_ok=True)
            try:
                self._clear(_is_passing)
                yield
            finally:
                if not self._parts_there() and not self.announced.path.exists():
                    self._clear_all()
                with contextlib.suppress(OSError):
                    self.scratch.rmdir()

    def begin(self, worklist: Worklist, overwrite: bool) -> Tables:
        """Tell ``worklist``, in which every result has its name, which of them are there, of this run: rows of the
        tables returned. An earlier run is removed where ``overwrite`` says so.

        A table that is not as it was written is not trusted: its results are made again.
        Raises LanitError where something that is not ours is in the way; nothing is then changed.
        """
        for path in self._tables():
            worklist.own(output for output, _ in outputs_of(path))
            if path.parent == self.out and identity_of(path) is not None:
                worklist.own(_RESULTS)
        worklist.own(self.announced.names())
        foreign = worklist.foreign(self.out, _RESULTS)
        if foreign is not None:
            raise LanitError(
                f"--out {self.out} holds {foreign}, which lanit did not write there, in the way of a result",
                "Move it away, or give a new or empty folder: --out DIR",
            )
        if overwrite and self._is_other_run():
            self._empty()
        write_json(self.scratch / _IDENTITY_NAME, sealed(self.identity))
        intact = [path for path in self._tables() if self._is_intact(path) and identity_of(path) == self.identity]
        for path in intact:
            worklist.learn(path, self.out)
        return Tables(intact)

    def _is_other_run(self) -> bool:
        """Whether there is anything to replace: a finished run, or another; an interrupted one is continued."""
        return identity_of(self.out / PARQUET_NAME) is not None or any(held != self.identity for held in self._held())

    def _is_intact(self, path: Path) -> bool:
        part = _PART.fullmatch(path.name)
        intact = is_intact(path, self.domains) if part is None else sha256_file(path).startswith(part["digest"])
        if not intact:
            self.notes.append(f"{path} was changed since it was written: its images are translated again")
        return intact

    def add(self, part: Sequence[SourceImage], earlier: Tables) -> pa.Table:
        """Write down the rows of the next part: new ones, and those that earlier tables hold. Returns all of them."""
        number, path = len(self._parts), None
        table = self._together(part, earlier)
        files = {image.done[0] for image in part if image.done}
        if len(files) == 1 and all(image.done for image in part):
            (file,) = files
            candidate = earlier.files[file]
            if candidate.name.startswith(f"part-{number:06d}-") and pq.read_metadata(candidate).num_rows == len(table):
                path = candidate
        if path is None:
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
            data = sink.getvalue().to_pybytes()
            path = self.scratch / f"part-{number:06d}-{sha256_bytes(data)[:8]}.parquet"
            write_bytes(path, data)
        self._parts.append(path)
        return table

    def _together(self, part: Sequence[SourceImage], earlier: Tables) -> pa.Table:
        if not any(image.done for image in part):
            return to_table(part, self.domains, self.identity)
        pieces = [
            earlier.rows(*image.done) if image.done else to_table([image], self.domains, self.identity)
            for image in part
        ]
        return pa.concat_tables(pieces).combine_chunks()

    def commit(self) -> None:
        """Write the tables; from then on the run is finished."""
        self.announced.add(_RESULTS)
        write_results(self.out, self._parts, self.domains, self.identity)
        self._clear_all()

    def discard(self) -> None:
        """Leave nothing of a run that made nothing."""
        self._clear_all()

    def _empty(self) -> None:
        """Remove an earlier run: results that its tables name and that have their size still, those that it announced
        and no table names, then the tables. What was changed since, or lies behind a link, stays."""
        named = set()
        for table in self._tables():
            if identity_of(table) is None:
                continue
            for output, size in outputs_of(table):
                named.add(output)
                status = plain_file(self.out, output)
                if status is not None and status.st_size == size:
                    (self.out / output).unlink()
            if table.parent == self.out:
                self.announced.add(_RESULTS)
            table.unlink()
        for name in self.announced.names():
            if name not in named and plain_file(self.out, name) is not None:
                (self.out / name).unlink()
        self._clear(_OF_RUN.fullmatch)

    def _clear_all(self) -> None:
        self._clear(_OF_RUN.fullmatch)
        self._clear(_is_passing)

    def _clear(self, chosen: Callable[[str], object]) -> None:
        """Remove the files of the scratch folder whose names are ``chosen``."""
        for path in self.scratch.iterdir():
            if chosen(path.name):
                path.unlink()


def _is_passing(name: str) -> bool:
    return is_temporary(name) or _PASSING.fullmatch(name) is not None
