"""The folder of results: whose run it holds, what an interrupted run left there, the tables that end a run."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lanit.errors import LanitError
from pipeline.files import exclusive_lock, read_json, sha256_bytes, write_bytes, write_json
from pipeline.translating.results import (
    LABELS_NAME,
    PARQUET_NAME,
    TABLE_NAME,
    Row,
    Tables,
    identity_of,
    to_table,
    write_results,
)
from pipeline.translating.worklist import Item

SCRATCH_NAME = ".lanit-translate"
_IDENTITY_NAME = "run.json"


class Destination:
    """Where results go. identity: what they are made of and how, as JSON; equal identities give equal results."""

    def __init__(self, out: Path, identity: dict[str, Any], domains: Sequence[str]) -> None:
        self.out = out
        self.identity = json.loads(json.dumps(identity))
        self.domains = domains
        self.scratch = out / SCRATCH_NAME
        self._parts: list[Path] = []

    def check(self, overwrite: bool) -> None:
        """Raises LanitError where the folder holds anything but results of this very run."""
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return
        if not self.out.is_dir():
            raise LanitError(f"--out {self.out} is a file", "Give a folder.")
        held = self._held()
        if not held and [path.name for path in self.out.iterdir()] != [SCRATCH_NAME]:  # else killed at its beginning
            raise LanitError(
                f"--out {self.out} is a folder that holds other files",
                "Give a new folder; only earlier translations are added to or replaced.",
            )
        if not overwrite and any(identity != self.identity for identity in held):
            raise LanitError(
                f"--out {self.out} holds translations of another request, model or input",
                "Give another folder, or add --overwrite to replace them.",
            )

    def _held(self) -> list[Any]:
        """The runs that the folder holds results of: a finished one, and one that was interrupted."""
        found: list[Any] = []
        if (self.scratch / _IDENTITY_NAME).is_file():
            with contextlib.suppress(LanitError):
                found.append(read_json(self.scratch / _IDENTITY_NAME))
        finished = identity_of(self.out / PARQUET_NAME)
        return found if finished is None else [*found, finished]

    @contextlib.contextmanager
    def opened(self, overwrite: bool) -> Iterator[None]:
        """Hold the folder. What an interrupted run made stays for the next; where nothing was made, nothing stays."""
        existed = self.out.exists()
        busy = LanitError(
            f"another lanit command is writing to {self.out}", "Wait for it to end, or use another --out."
        )
        with exclusive_lock(self.scratch / ".lock", busy):
            try:
                if overwrite:
                    self._empty()
                write_json(self.scratch / _IDENTITY_NAME, self.identity)
                yield
            finally:
                self._tidy(existed)

    def earlier(self) -> list[Path]:
        """Tables of results that are there, of this run."""
        parts = sorted(self.scratch.glob("part-*.parquet"))
        finished = self.out / PARQUET_NAME
        return [path for path in [finished, *parts] if identity_of(path) == self.identity]

    def add(self, part: Sequence[Item], rows: Sequence[Row], earlier: Tables) -> pa.Table:
        """Write down the next part: ``rows``, new, and those that earlier tables hold. Returns all of them."""
        number, path = len(self._parts), None
        table = self._together(part, rows, earlier)
        files = {item.done[0] for item in part if item.done}
        if len(files) == 1 and not rows and all(item.done for item in part):
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

    def _together(self, part: Sequence[Item], rows: Sequence[Row], earlier: Tables) -> pa.Table:
        if not any(item.done for item in part):
            return to_table(rows, self.domains, self.identity)
        of_item: dict[Item, list[Row]] = {}
        for row in rows:
            of_item.setdefault(row.item, []).append(row)
        pieces = []
        for item in part:
            if item.done is not None:
                pieces.append(earlier.rows(*item.done))
            else:
                pieces.append(to_table(of_item[item], self.domains, self.identity))
        return pa.concat_tables(pieces).combine_chunks()

    def commit(self) -> None:
        """Write the tables; from then on the run is finished."""
        write_results(self.out, self._parts, self.domains, self.identity)
        self._clear()

    def discard(self) -> None:
        """Leave nothing of a run that made nothing."""
        self._clear()

    def _empty(self) -> None:
        """Remove an earlier run: the results that its tables name, then the tables."""
        root = self.out.resolve()
        for table in [self.out / PARQUET_NAME, *self.scratch.glob("part-*.parquet")]:
            if identity_of(table) is None:
                continue
            for output in pq.read_table(table, columns=["output"], partitioning=None)["output"].to_pylist():
                if output is not None and (root / output).resolve().is_relative_to(root):
                    (root / output).unlink(missing_ok=True)
            table.unlink()
        for name in (TABLE_NAME, LABELS_NAME):
            (self.out / name).unlink(missing_ok=True)

    def _tidy(self, existed: bool) -> None:
        others = [path for path in self.out.iterdir() if path != self.scratch]
        if not others and not any(self.scratch.glob("part-*.parquet")):
            self._clear()
        if self.scratch.is_dir() and {path.name for path in self.scratch.iterdir()} <= {".lock"}:
            shutil.rmtree(self.scratch, ignore_errors=True)
        if not existed and not any(self.out.iterdir()):
            self.out.rmdir()

    def _clear(self) -> None:
        for path in self.scratch.iterdir():
            if path.name != ".lock":
                path.unlink()
