"""The finished parts of a run that has not committed, a line each, so that the next run goes on from them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lanit.errors import cannot_write
from pipeline.files import write_bytes
from pipeline.store.schemas import PART_NAME
from pipeline.store.store_folder import UNFINISHED_NAME, json_lines


class Journal:
    """``images/unfinished.jsonl``: a header that says what the parts are made with, then their names.

    It is begun before the first part is written, so that a killed run leaves nothing that no line tells of.
    """

    def __init__(self, root: Path, header: dict[str, Any]) -> None:
        self._path, self._header = root / UNFINISHED_NAME, header
        self._begun = False

    def read(self) -> list[str]:
        """Parts of an interrupted run that this one may go on from, in order: same model, same intent.

        A journal that does not fit counts for nothing; a last line that was cut off is left out.
        """
        header, *lines = list(json_lines(self._path)) or [None]
        if header not in (self._header, self._header | {"overwrite": True}):  # what began anew may go on plainly
            return []
        files = [line.get("file") for line in lines if isinstance(line, dict)]
        return [file for file in files if isinstance(file, str) and PART_NAME.fullmatch(file)]

    def begin(self, files: Iterable[str]) -> None:
        """Write the header and the parts that are there already, unless this run did."""
        if not self._begun:
            lines = [self._header, *({"file": file} for file in files)]
            write_bytes(self._path, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
            self._begun = True

    def append(self, file: str) -> None:
        try:
            with self._path.open("ab") as journal:
                journal.write(f"{json.dumps({'file': file})}\n".encode())
                journal.flush()
                os.fsync(journal.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
