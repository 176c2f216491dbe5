"""A sequence of tasks on the processes of a Ray cluster, in order, by Ray Data.

Apart from what the tasks do, because the processes that only hand them out should not load torch.
"""

from __future__ import annotations

import functools
import importlib
import pickle
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from lanit.errors import LanitError
from pipeline.computing.ray_cluster import Workforce, import_ray

_MOST_ATTEMPTS = 4  # times that a task is begun: Ray itself would begin it anew for as long as the process dies
_AGAIN = "The same command goes on where it stopped."
_LOGS = f"{_AGAIN} Why it did, the logs in /tmp/ray/session_latest tell."


class Worker(Protocol):
    """Does one task after another. Raises LanitError for what makes all of them pointless."""

    def __call__(self, task: Any) -> Any: ...

    def describe(self, task: Any) -> str: ...


@dataclass(frozen=True)
class _Outcome:
    """What a process returns for a task. remark: what a person should know of it, or nothing."""

    result: Any
    failure: LanitError | None = None
    remark: str = ""


def run_tasks(
    tasks: Callable[[], Iterable[Any]],
    make: Callable[[], Worker],
    workforce: Workforce,
    remark: Callable[[str], None],
) -> Generator[Any]:
    """The results of the tasks, in their order. A task whose process or node is lost is done again by another.

    tasks: gives the same tasks whenever it is called, in another process of this machine, which is as far ahead as
    there is room for. make: makes a worker, in each process of ``workforce``. Both are sent, and so are tasks and
    results. remark: called with what a person should know. Raises what a worker raises, and LanitError where Ray gives
    up.
    """
    ray = import_ray()
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # bytes: every task travels on its own
    context.execution_no_progress_timeout_s = -1  # a large model on a CPU may well be silent for half an hour
    context.enable_progress_bars = context.print_on_execution_start = False
    device = {"num_gpus": 1} if workforce.gpu else {"num_cpus": workforce.processors}
    try:
        attempts = _actor_here(ray, Attempts)
        with ray.data.DataContext.current(context):
            listed = ray.data.read_datasource(_source(ray, tasks), override_num_blocks=1, num_cpus=0)
            done = listed.map_batches(
                TaskProcess,
                batch_size=1,
                batch_format="numpy",
                compute=ray.data.ActorPoolStrategy(size=workforce.actors),
                fn_constructor_args=(make, attempts),
                **device,
            )
        for number, row in enumerate(done.iter_rows()):
            if row["number"] != number:
                raise LanitError(f"Ray returned task {row['number']} for task {number}", _AGAIN)
            outcome: _Outcome = pickle.loads(row["outcome"])
            if outcome.failure is not None:
                raise outcome.failure
            if outcome.remark:
                remark(outcome.remark)
            yield outcome.result
    except ray.exceptions.RayError as error:
        reason = _reason(str(error))
        other_code = re.match("(ModuleNotFound|Import|Attribute)Error", reason)
        hint = "Install the same lanit on every node." if other_code else _LOGS
        raise LanitError(f"Ray gave up ({reason})", hint) from error


def _reason(text: str) -> str:
    """The one line that matters of Ray's many: the last that names an exception not of its own, else the first."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"(?!ray\.)[\w.]*(Error|Exception)\b", line)]
    return named[-1] if named else next(iter(lines), "it does not say why")


class TaskProcess:
    """An actor with a worker."""

    def __init__(self, make: Callable[[], Worker], attempts: Any) -> None:
        """attempts: handle of an :class:`Attempts` actor."""
        self._attempts, self._get = attempts, import_ray().get
        self._made: Worker | LanitError
        try:
            self._made = make()
        except LanitError as error:  # raised here, Ray would wrap it in pages of its own
            self._made = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """batch: ``number`` and ``task``, pickled. Returns ``number`` and ``outcome``, pickled."""
        numbered = zip(batch["number"], batch["task"], strict=True)
        outcomes = [self._do(int(number), pickle.loads(task)) for number, task in numbered]
        return {"number": batch["number"], "outcome": [pickle.dumps(outcome, protocol=5) for outcome in outcomes]}

    def _do(self, number: int, task: Any) -> _Outcome:
        if isinstance(self._made, LanitError):
            return _Outcome(None, self._made)
        what, begun = self._made.describe(task), self._get(self._attempts.begin.remote(number))
        if begun > _MOST_ATTEMPTS:
            return _Outcome(None, LanitError(f"the process that {what} died {begun - 1} times", "Is its memory full?"))
        try:
            result = self._made(task)
        except LanitError as error:
            return _Outcome(None, error)
        self._attempts.end.remote(number)
        return _Outcome(result, remark=f"the process that {what} died; another did it" if begun > 1 else "")


class Attempts:
    """An actor that counts how often each unfinished task was begun."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        self._counts[number] += 1
        return self._counts[number]

    def end(self, number: int) -> None:
        del self._counts[number]


def _actor_here(ray: Any, kind: type[Any]) -> Any:
    """An actor on this node, which takes none of its processors."""
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    place = strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(kind).options(scheduling_strategy=place).remote()


def _source(ray: Any, tasks: Callable[[], Iterable[Any]]) -> Any:
    """``tasks`` as Ray Data reads them: one stream, on the node of this process."""
    unknown = importlib.import_module("ray.data.block").BlockMetadata(None, None, None, None)
    stream = ray.data.ReadTask(functools.partial(_tables, tasks), unknown)

    class Tasks(ray.data.Datasource):  # type: ignore[misc]
        supports_distributed_reads = False

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, per_task_row_limit: Any = None, data_context: Any = None) -> Any:
            return [stream]

    return Tasks()


def _tables(tasks: Callable[[], Iterable[Any]]) -> Iterator[pa.Table]:
    for number, task in enumerate(tasks()):
        yield pa.table({"number": [number], "task": [pickle.dumps(task, protocol=5)]})
