"""What a language model may ask of a store and of runs: the ``--json`` of three commands, by reading alone.

A tool takes words and numbers, never a path: nothing can be read but the store and the runs that were named at the
start, and nothing is written.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanit.errors import LanitError, UsageError, listed
from pipeline.commands import DEFAULT_STORE
from pipeline.files import read_json
from pipeline.models.run_folder import RESULT_NAME, find_run
from pipeline.store.store import Store

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel

MOST_HITS = 200


@dataclass(frozen=True)
class AgentOptions:
    """runs: folders of runs whose evaluations may be read. store: that is searched and inspected. clip,
    clip_architecture: the store's CLIP, where it is to be found elsewhere."""

    runs: tuple[str, ...] = ()
    store: Path = DEFAULT_STORE
    clip: str | None = None
    clip_architecture: str | None = None
    device: str = "auto"


class Tools:
    """The tools, over one store as it was when they began. Raises LanitError where the store, its index, or a run is
    missing or damaged."""

    def __init__(self, options: AgentOptions) -> None:
        from pipeline.store.index import index_state

        self._options = options
        self._store = Store.open(options.store)
        if index_state(self._store) != "current":
            typed = shlex.quote(str(options.store))
            raise LanitError(f"the index of {options.store} does not fit it", f"Run: lanit index --store {typed}")
        self._runs = {name: _run_folder(name) for name in options.runs}
        self._clip: ClipModel | None = None
        self._loading = threading.Lock()

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(self._runs)

    def search(self, text: str, top: int, labels: Sequence[str]) -> dict[str, Any]:
        """``lanit search TEXT --json``. top: at most :data:`MOST_HITS`."""
        from pipeline.searching.search import check_query, search
        from pipeline.store.index import index_state

        check_query(text, None)
        if not 1 <= top <= MOST_HITS:
            raise UsageError(f"top is 1 to {MOST_HITS}, not {top}", "Ask for fewer.")
        if index_state(self._store) != "current":  # to build it would be to write
            raise LanitError("the store has changed since lanit mcp began", "Start lanit mcp again.")
        return search(self._store, self._labeller(), text=text, top=top, labels=labels).to_json()

    def inspect_labels(self, revision: int | None, rules: str | None) -> dict[str, Any]:
        """``lanit inspect-labels --json``."""
        from pipeline.inspection.inspect_labels import InspectOptions, inspect_store

        return inspect_store(self._store, InspectOptions(revision=revision, rules=rules)).to_json()

    def evaluation(self, run: str) -> dict[str, Any]:
        """What ``lanit evaluate`` last found of a run: nothing is measured here, which would write."""
        if run not in self._runs:
            known = f"Choose one of {listed(self.runs, 20)}." if self._runs else "Start it so: lanit mcp RUN"
            raise UsageError(f"lanit mcp was given no run called '{run}'", known)
        path = self._runs[run] / RESULT_NAME
        if not path.is_file():
            raise LanitError(f"{run} has not been evaluated", f"Run: lanit evaluate {shlex.quote(run)}")
        return dict(read_json(path, f"Run: lanit evaluate {shlex.quote(run)}"))

    def _labeller(self) -> ClipModel:
        from pipeline.store.store_clip import clip_of

        with self._loading:
            if self._clip is None:
                options = self._options
                self._clip = clip_of(self._store, options.clip, options.clip_architecture, options.device, keeps=False)
            return self._clip


def _run_folder(name: str) -> Path:
    folder = find_run(name)
    if folder is None:
        raise LanitError(f"{name} is no folder of a training run", "Name one that lanit train wrote.")
    return folder
