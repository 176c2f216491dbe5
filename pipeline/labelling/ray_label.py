"""Labels of a store on a Ray cluster: other processes read the embeddings and decide, this one writes the revision."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from lanit.errors import LanitError
from pipeline.computing.ray_cluster import Workforce
from pipeline.computing.ray_tasks import run_tasks
from pipeline.labelling.label_decisions import Decided, DecidedPart, Decider, Decision
from pipeline.store.store import Store

if TYPE_CHECKING:
    from pipeline.store.schemas import Part


class LabelWorker:
    """Decides the labels of one part after another: :class:`pipeline.computing.ray_tasks.Worker`."""

    def __init__(self, store: Store, decision: Decision) -> None:
        self._store, self._decision = store, decision

    def __call__(self, task: Part) -> list[Decided]:
        """Raises LanitError where this node does not see the store."""
        try:
            _, embeddings = self._store.labelled_part(task)
        except LanitError as error:
            hint = "Every node of the cluster must see the store, under the same path."
            raise LanitError(error.message, hint) from error
        return list(self._decision.of(embeddings))

    def describe(self, task: Part) -> str:
        return f"labelled {task.file}"


def ray_decider(force: Workforce, remark: Callable[[str], None]) -> Decider:
    """What :func:`pipeline.labelling.label.label` decides with where a cluster is to do the work.

    The store lies where every node sees it. remark: called with what a person should know.
    """

    def decide(store: Store, decision: Decision) -> Iterator[DecidedPart]:
        bare = Store(store.root.resolve(), replace(store.manifest, parts=()))
        make = functools.partial(LabelWorker, bare, decision)
        decided = run_tasks(functools.partial(tuple, store.manifest.parts), make, force, remark)
        return zip(store.ok_parts(["image_id", "path"]), decided, strict=True)

    return decide
