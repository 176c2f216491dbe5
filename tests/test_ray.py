"""On Ray, embedding, labelling and translating give what this machine alone gives, on a cluster of two processors."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import pipeline.computing.ray_engine
import pipeline.computing.ray_tasks
import pipeline.embedding.ray_embed
from lanit.errors import LanitError, UsageError
from lanit.labels import EmbeddedPrompts, Rule
from pipeline.clip.models import ClipModel
from pipeline.computing.ray_cluster import Node, Workforce, import_ray, share_out, workforce
from pipeline.computing.ray_tasks import Attempts, TaskProcess, run_tasks
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.embedding.ray_embed import embed_job, embed_worker, held, ray_engine, task_rows
from pipeline.labelling.label import label_blocks
from pipeline.labelling.ray_label import LabelWorker, ray_decider
from pipeline.settings import workforce_of
from pipeline.store.store import Store
from pipeline.translating.requests import TranslateRequest
from pipeline.translating.translation import TranslateOptions, translate
from tests.translation_world import files, make_model, make_source, pictures, pixels, table

OPTIONS = EmbedOptions(batch_size=2, part_rows=7)
ADD = TranslateRequest(add=("hat",), styles=2)
IN_PARTS = TranslateOptions(batch_size=3, part_images=14)  # two styles: parts of seven images
COLUMNS = ["image_id", "path", "source", "offset", "modified_ns", "width", "height", "bytes", "sha256", "status",
           "error_message"]  # fmt: skip
OF_THE_RUN = ("store", "device", "seconds", "images_per_second", "waiting", "model", "writing", "workers",
              "more_workers")  # fmt: skip
NOBODY = Workforce(2, 1, gpu=False)
ONE = Workforce(1, 2, gpu=False)  # takes the whole cluster, too, and imports half as much
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")


@pytest.fixture(scope="module")
def two_processes(request: pytest.FixtureRequest) -> Iterator[Workforce]:
    """A Ray cluster of this machine with two processors, whatever it has, and hardly any shared memory: a Workforce.

    One for all tests: it costs seconds to start, and each of its processes imports torch anew.
    """
    ray = import_ray()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # it would write a token to the home folder
        patch.setenv("RAY_worker_niceness", "0")  # its processes would starve beside those of the other tests
        for left in (2, 1, 0):
            try:
                ray.init(address="local", num_cpus=2, num_gpus=0, object_store_memory=80 * 2**20,
                         include_dashboard=False, log_to_driver=False, logging_level="ERROR")  # fmt: skip
                break
            except Exception:  # on a busy machine its daemons wait in vain for each other
                ray.shutdown()
                if not left:
                    raise
    ray.cloudpickle.register_pickle_by_value(request.module)  # the workers cannot import the tests
    try:
        with workforce(actors=2) as force:
            yield force
        assert ray.is_initialized(), "what was there before stays"
    finally:
        ray.shutdown()


@pytest.fixture
def alarm() -> Iterator[None]:
    """A cluster that waits for something waits for ever."""

    def ring(*_: object) -> None:
        raise TimeoutError("ten minutes have passed")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(600)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def dying_once(marker: Path, at: int) -> type[TaskProcess]:
    """A process that dies, once on the whole cluster, in the middle of task ``at``."""

    class Dying(TaskProcess):
        def _do(self, number: int, task: Any) -> Any:
            if number == at and not marker.exists():
                self._get(self._attempts.begin.remote(number))
                marker.touch()
                os._exit(1)
            return super()._do(number, task)

    return Dying


def stop_after(rows: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, shares: str) -> None:
        if done >= rows:
            raise KeyboardInterrupt

    return progress


@needs_ray
@pytest.mark.cluster
def test_the_same_rows_and_embeddings_after_an_interruption_and_the_death_of_a_worker(
    make_images: Callable[..., Path],
    tiny_clip: ClipModel,
    tmp_path: Path,
    two_processes: Workforce,
    alarm: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """New, changed, moved, copied, deleted and broken files, over several parts; against an uninterrupted local run.

    Begun here, continued on the cluster: the store does not tell who computes.
    """
    folder, local, ray = make_images(19), tmp_path / "local", tmp_path / "ray"
    embed([folder], local, tiny_clip, OPTIONS)
    (folder / "a" / "001.png").unlink()
    (folder / "a" / "003.png").rename(folder / "zzz.png")
    shutil.copy(folder / "b" / "000.png", folder / "copy.png")
    (folder / "b" / "002.png").write_bytes(b"not an image")
    more = make_images(24, "more", seed=5)
    shutil.move(more, folder / "more")
    Image.new("RGB", (30, 20), (9, 2, 3)).save(folder / "b" / "004.png")
    shutil.copytree(local, ray)
    expected = embed([folder], local, tiny_clip, OPTIONS)

    with pytest.raises(KeyboardInterrupt):
        embed([folder], ray, tiny_clip, OPTIONS, progress=stop_after(21))
    assert len((ray / "images" / "unfinished.jsonl").read_text().splitlines()) > 1

    monkeypatch.setattr(pipeline.computing.ray_tasks, "TaskProcess", dying_once(tmp_path / "died", 2))
    engine = ray_engine(tiny_clip, OPTIONS, two_processes, least_rows=2)
    done: list[int] = []
    report = embed([folder], ray, tiny_clip, OPTIONS, engine=engine, progress=lambda *call: done.append(call[0]))
    assert (tmp_path / "died").exists()
    assert report.ok < expected.ok, "finished parts are not embedded again"
    assert (report.found, report.failed, report.stored) == (expected.found, expected.failed, expected.stored)
    assert done[-1] == report.found == 19 - 1 + 1 + 24
    assert report.device == "Ray, 2 processes with 1 processor each"
    assert any("died; another did it" in warning for warning in report.warnings)

    one, other = Store.open(local), Store.open(ray)
    assert other.images(COLUMNS) == one.images(COLUMNS)
    np.testing.assert_allclose(other.embeddings(), one.embeddings(), atol=1e-5)
    names = one.images(["path", "status"]).to_pylist()
    row = [name["path"] for name in names if name["status"] == "ok"].index("zzz.png")
    np.testing.assert_array_equal(other.embeddings()[row], one.embeddings()[row], "taken over, not computed")
    assert not list((ray / "images").glob("*sqlite*"))


class Dividing:
    """A worker that needs nothing."""

    def __call__(self, task: int) -> int:
        if task == 5:
            raise LanitError("five is too much", "Try four.")
        return 100 // (task - 6)

    def describe(self, task: int) -> str:
        return f"divided by {task}"


@needs_ray
@pytest.mark.slow
def test_results_come_in_order_and_what_a_worker_raises_as_one_line(two_processes: Workforce, alarm: None) -> None:
    interrupted = run_tasks(partial(range, 7, 99), Dividing, two_processes, print)
    assert [next(interrupted) for _ in range(9)] == [100, 50, 33, 25, 20, 16, 14, 12, 11]
    interrupted.close()  # sets the processors free, or what follows would wait for ever
    with pytest.raises(LanitError, match=r"^Ray gave up \(ZeroDivisionError: .*by zero\)\. The same command") as caught:
        list(run_tasks(partial(list, [7, 6]), Dividing, ONE, print))
    assert "\n" not in str(caught.value)


@needs_ray
@pytest.mark.cluster
def test_the_same_labels(make_store: Callable[..., Store], two_processes: Workforce, alarm: None) -> None:
    vectors = F.normalize(torch.randn(31, 12, generator=torch.Generator().manual_seed(3)), dim=1)
    store = make_store(vectors[:26].numpy(), part_rows=7)
    prompts = EmbeddedPrompts(vectors[26:30], vectors[30], offsets=torch.zeros(4), weights=torch.ones(4))
    blocks = partial(label_blocks, store, prompts, Rule())
    done: list[int] = []
    remarks: list[str] = []
    decide = ray_decider(ONE, remarks.append)
    found = list(blocks(decide=decide, progress=lambda *call: done.append(call[0])))
    expected = list(blocks())
    assert done == [7, 14, 21, 26]
    assert not remarks
    for one, other in zip(expected, found, strict=True):
        assert (other.start, other.rows, other.image_ids, other.paths) == (
            one.start,
            one.rows,
            one.image_ids,
            one.paths,
        )
        np.testing.assert_array_equal(other.active, one.active)
        np.testing.assert_allclose(other.margin, one.margin, atol=1e-6)
        np.testing.assert_allclose(other.similarity_base, one.similarity_base, atol=1e-6)


@needs_ray
@pytest.mark.cluster
def test_the_same_files_after_an_interruption(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path, two_processes: Workforce, alarm: None
) -> None:
    """Begun here, continued on the cluster: the folder does not tell who computes. The death of a worker is met by what
    embedding uses too, above."""
    source = make_images(23, make_source(make_images).name)
    model = make_model(tmp_path / "model", source, tiny_clip)

    def stop(done: int, of: int, shares: str) -> None:
        if done >= 7:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    translate(source, out, model, ADD, IN_PARTS)
    expected = files(out)
    out.rename(tmp_path / "reference")
    with pytest.raises(KeyboardInterrupt):
        translate(source, out, model, ADD, IN_PARTS, progress=stop)
    report = translate(source, out, model, ADD, IN_PARTS, workforce=ONE)
    assert report.device == "Ray, 1 process with 2 processors"
    assert (report.found, report.ok, report.results) == (24, 23, 46)
    assert sorted(files(out)) == sorted(expected)
    for name in pictures(out):
        assert np.abs(pixels(out / name) - pixels(tmp_path / "reference" / name)).max() <= 1
    for row, same in zip(table(out), table(tmp_path / "reference"), strict=True):
        assert {name: row[name] for name in ("path", "output", "status", "requested", "before")} == {
            name: same[name] for name in ("path", "output", "status", "requested", "before")
        }


def test_a_node_that_does_not_see_the_store_says_so(make_store: Callable[..., Store], tmp_path: Path) -> None:
    store = make_store(np.eye(4, dtype=np.float32))
    worker = LabelWorker(Store(tmp_path / "elsewhere", store.manifest), None)  # type: ignore[arg-type]
    with pytest.raises(LanitError, match="elsewhere") as caught:
        worker(store.manifest.parts[0])
    assert "under the same path" in caught.value.hint


def test_a_run_with_nothing_to_read_needs_no_cluster(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, root = make_images(5), tmp_path / "store"
    embed([folder], root, tiny_clip, OPTIONS)
    monkeypatch.setattr(pipeline.computing.ray_engine, "run_tasks", None)
    report = embed([folder], root, tiny_clip, OPTIONS, engine=ray_engine(tiny_clip, OPTIONS, NOBODY))
    assert (report.found, report.skipped) == (5, 5)


def test_tasks_are_whole_batches_and_do_not_depend_on_the_cluster() -> None:
    for part_rows, batch_size, expected in [(2048, 64, 1024), (32768, 64, 8192), (2048, 300, 1200), (7, 2, 1024)]:
        assert task_rows(part_rows, batch_size) == expected
        assert expected % batch_size == 0


@pytest.fixture
def without_cluster(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An Attempts actor of this process, for workers that run in it."""
    same = SimpleNamespace(get=lambda found: found, put=lambda value: value)
    for module in (pipeline.embedding.ray_embed, pipeline.computing.ray_tasks):
        monkeypatch.setattr(module, "import_ray", lambda: same)
    counts = Attempts()
    return SimpleNamespace(begin=SimpleNamespace(remote=counts.begin), end=SimpleNamespace(remote=counts.end))


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_processes_write_whole_parts_and_the_planning_one_gives_them_their_names(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path, without_cluster: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch, storage: Any,
) -> None:  # fmt: skip
    """To the same store as here, known rows, damaged images and the short part at the end among them."""
    options, sent = replace(OPTIONS, storage=storage), []

    def here(tasks: Any, make: Any, force: Any, remark: Any) -> Iterator[Any]:
        worker = make()
        for task in tasks():
            sent.append(pickle.loads(pickle.dumps(worker(pickle.loads(pickle.dumps(task))))))
            yield sent[-1]

    monkeypatch.setattr(pipeline.computing.ray_engine, "run_tasks", here)
    monkeypatch.setattr(pipeline.embedding.ray_embed, "_WHOLE_PARTS", 2)
    folder = make_images(19)
    (folder / "a" / "002.png").write_bytes(b"not an image")
    local, ray = tmp_path / "local", tmp_path / "ray"
    for change in (lambda: None, lambda: shutil.move(make_images(23, "more", seed=5), folder / "more")):
        change()
        sent.clear()
        threads = torch.get_num_threads()
        expected = embed([folder], local, tiny_clip, options)
        report = embed([folder], ray, tiny_clip, options, engine=ray_engine(tiny_clip, options, NOBODY))
        torch.set_num_threads(threads)
        kinds = [type(done.packed).__name__ for done in sent]
        assert "PackedPart" in kinds
        assert kinds[-1] == "PackedRows", "the last part is short"
        assert replace(report, **{name: getattr(expected, name) for name in OF_THE_RUN}) == expected
        one, other = (json.loads((root / "store.json").read_text()) for root in (local, ray))
        assert one == other
        for part in one["parts"]:
            assert (local / part["file"]).read_bytes() == (ray / part["file"]).read_bytes()


def test_a_task_that_kills_every_process_is_given_up(without_cluster: SimpleNamespace) -> None:
    process = TaskProcess(Dividing, without_cluster)
    for _ in range(3):
        without_cluster.begin.remote(0)
    outcome = process._do(0, 8)
    assert (outcome.result, outcome.remark) == (50, "the process that divided by 8 died; another did it")
    assert process._do(0, 8).remark == "", "a task that is done counts from the start"
    for _ in range(4):
        without_cluster.begin.remote(1)
    failures = [process._do(number, task).failure for number, task in [(1, 8), (2, 5)]]
    assert list(map(str, failures)) == [
        "the process that divided by 8 died 4 times. Is its memory full?",
        "five is too much. Try four.",
    ]


def test_workers_refuse_another_clip_and_know_contents_by_their_beginning(
    tiny_clip: ClipModel, make_clip: Callable[..., Path], without_cluster: SimpleNamespace
) -> None:
    reader: Any = SimpleNamespace(inputs={}, max_pixels=10**6, decode=True, frame=None)
    job = embed_job(tiny_clip, OPTIONS, NOBODY, reader, "float32")
    digests = sorted([bytes(16), bytes([7] * 15 + [0]), bytes([7] * 16), bytes([255] * 16)])
    contents, threads = np.array(digests, "S16"), torch.get_num_threads()
    try:
        embed_worker(job, 7, contents)
        with pytest.raises(LanitError, match="weights_sha256 differ"):
            embed_worker(replace(job, clip=str(make_clip(seed=5))), 7, np.empty(0, "S16"))
    finally:
        torch.set_num_threads(threads)
    for digest in digests:
        found = held(contents, digest.hex() + "ab" * 16)
        assert found is not None
        assert found.sha256 == digest.hex() + "ab" * 16
    for digest in (bytes([7] * 14 + [0, 0]), bytes([7] * 15 + [1]), bytes([254] * 16)):
        assert held(contents, digest.hex() + "ab" * 16) is None


@pytest.mark.parametrize(
    ("nodes", "actors", "device", "expected"),
    [
        ([(8, 0)], None, "auto", (1, 8, False)),
        ([(8, 0), (4, 0), (0, 0)], None, "auto", (2, 4, False)),
        ([(8, 0), (4, 0)], 3, "auto", (3, 4, False)),
        ([(8, 0), (4, 0)], 4, "cpu", (4, 2, False)),
        ([(2, 0)], 2, "auto", (2, 1, False)),
        ([(4, 0), (32, 8), (26, 2)], None, "auto", (10, 4, True)),
        ([(32, 8)], 3, "cuda", (3, 4, True)),
        ([(32, 8)], None, "cpu", (1, 32, False)),
    ],
)
def test_processors_and_gpus_are_shared_out(
    nodes: list[tuple[int, int]], actors: int | None, device: str, expected: tuple[int, int, bool]
) -> None:
    assert share_out([Node(*node) for node in nodes], actors, device) == Workforce(*expected)


def test_what_a_cluster_has_not_is_refused() -> None:
    two = [Node(2, 0)]
    for nodes, actors, device, message in [
        (two, 3, "auto", "2 processors for 3 processes"),
        (two, None, "cuda", "no GPU"),
        ([Node(8, 2)], 3, "auto", "2 GPUs for 3 processes"),
        ([Node(8, 2)], None, "cuda:1", "hands out the GPUs"),
        ([Node(0, 0)], None, "cpu", "0 processors"),
    ]:
        with pytest.raises(LanitError, match=message) as caught:
            share_out(nodes, actors, device)
        assert caught.value.hint


@needs_ray
def test_addresses_that_cannot_serve_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_ray(), "is_initialized", lambda: False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{free.getsockname()[1]}"
    for address, message, hint in [
        ("ray://10.0.0.1:10001", "inside a Ray cluster", "ray job submit"),
        ("http://127.0.0.1:8265", "inside a Ray cluster", "ray job submit"),
        ("head", "not HOST:PORT", "--address auto"),
        (closed, "no Ray cluster answers", "ray start"),
    ]:
        for given in (address, None):
            monkeypatch.setenv("RAY_ADDRESS", address if given is None else "")
            with pytest.raises(LanitError, match=message) as caught, workforce(given):
                pass
            assert hint in caught.value.hint


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LanitError, match=r'not installed\. Run: pip install "ray\[data\]>=2\.60"'), workforce():
        pass


def test_options_of_a_cluster_need_the_engine() -> None:
    with workforce_of("local", None, None, "auto") as force:
        assert force is None
    for address, actors, name in [("auto", None, "--address"), (None, 2, "--actors")]:
        with pytest.raises(UsageError, match=name) as caught, workforce_of("local", address, actors, "auto"):
            pass
        assert "--engine ray" in caught.value.hint
