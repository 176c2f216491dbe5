"""A run that is killed, interrupted or repeated loses nothing and doubles nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lanit.errors import LanitError
from pipeline.folders import locked_folder
from pipeline.translating.naming import SCRATCH_NAME
from pipeline.translating.recipe import BatchTranslator
from pipeline.translating.requests import TranslateRequest
from pipeline.translating.translation import TranslateOptions, translate
from tests.children import child
from tests.translation_world import TABLES, files, make_model, make_source, pictures, table

ADD = TranslateRequest(add=("hat",), styles=2)
OPTIONS = TranslateOptions(batch_size=2, part_images=8)  # two styles: parts of four images


@pytest.fixture
def source(make_images: Callable[..., Path]) -> Path:
    folder = make_source(make_images)
    return make_images(31, folder.name)


@pytest.fixture
def model(source: Path, tiny_clip: Any, tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", source, tiny_clip)


def translate_slowly(source: Path, out: Path, model: Path) -> None:
    work = BatchTranslator.__call__

    def slowly(self: BatchTranslator, images: Any) -> Any:
        time.sleep(0.05)
        return work(self, images)

    BatchTranslator.__call__ = slowly  # type: ignore[method-assign]
    torch.set_num_threads(1)
    translate(source, out, model, ADD, OPTIONS)


def killed(source: Path, out: Path, model: Path, parts: int) -> int:
    """Start the run in a process of its own and kill it once so many parts more are written; returns those there."""
    before = len(list(out.glob(f"{SCRATCH_NAME}/part-*.parquet")))
    process = child(translate_slowly, source, out, model)
    deadline = time.monotonic() + 300
    while (there := len(list(out.glob(f"{SCRATCH_NAME}/part-*.parquet")))) < before + parts:
        if not process.is_alive() or time.monotonic() > deadline:
            process.kill()
            pytest.fail("the run ended by itself, or never came so far")
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return there


def test_after_two_kills_the_same_call_ends_in_the_same_bytes(source: Path, model: Path, tmp_path: Path) -> None:
    """Finished parts are not done again, and what a kill left half done is."""
    out = tmp_path / "out"
    reference = translate(source, out, model, ADD, OPTIONS)
    expected = files(out)
    assert (reference.found, reference.ok, reference.results) == (32, 31, 62)
    out.rename(tmp_path / "reference")
    there = killed(source, out, model, 2)
    there = max(there, killed(source, out, model, 2))
    assert there >= 4
    assert not set(TABLES) & set(files(out)), "no table before the run is finished"
    done = {path: (out / path).stat().st_mtime_ns for part in out.glob(f"{SCRATCH_NAME}/part-*.parquet")
            for path in pq.read_table(part)["output"].to_pylist() if path}  # fmt: skip
    report = translate(source, out, model, ADD, OPTIONS)
    assert report.done_before == len(done) // 2 >= 15
    assert all((out / path).stat().st_mtime_ns == when for path, when in done.items())
    assert files(out) == expected
    rows = table(out)
    assert len({(row["path"], row["style"]) for row in rows}) == len(rows) == 63
    assert (report.found, report.ok, report.failed, report.results) == (32, 31, 1, 62)


@pytest.mark.parametrize("after", [0, 1, 9, 30])
def test_an_interrupted_run_is_continued(source: Path, model: Path, tmp_path: Path, after: int) -> None:
    def stop(done: int, of: int, shares: str) -> None:
        if done >= after:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        translate(source, out, model, ADD, OPTIONS, progress=stop)
    assert not set(TABLES) & set(files(out) if out.exists() else ())
    seen: list[int] = []
    report = translate(source, out, model, ADD, OPTIONS, progress=lambda done, of, shares: seen.append(done))
    assert report.done_before >= after // 4 * 4 - 5
    assert seen[-1] == 32
    assert not (out / SCRATCH_NAME).exists()
    out.rename(tmp_path / "continued")
    translate(source, out, model, ADD, OPTIONS)
    assert files(out) == files(tmp_path / "continued")


def test_a_finished_run_takes_up_what_is_new_changed_or_spoilt(source: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    translate(source, out, model, ADD, OPTIONS)
    before = {path: (out / path).stat().st_mtime_ns for path in pictures(out)}
    again = translate(source, out, model, ADD, OPTIONS)
    assert (again.done_before, again.ok) == (31, 31)
    assert {path: (out / path).stat().st_mtime_ns for path in pictures(out)} == before
    rng = np.random.default_rng(5)
    for name in ("a/000-new.png", "b/004.png"):
        Image.fromarray(rng.integers(0, 256, (33, 41, 3), dtype=np.uint8)).save(source / name)
    (out / "b" / "006-style2.png").write_bytes(b"cut sh")
    (source / "a" / "009.png").unlink()
    third = translate(source, out, model, ADD, OPTIONS)
    assert (third.found, third.ok, third.done_before) == (32, 31, 28)
    redone = {path for path in pictures(out) if before.get(path) != (out / path).stat().st_mtime_ns}
    assert redone == {f"{name}-style{style}.png" for name in ("a/000-new", "b/004", "b/006") for style in (1, 2)}
    named = {row["output"] for row in table(out)} - {""}
    assert named == set(pictures(out)) - {"a/009-style1.png", "a/009-style2.png"}
    out.rename(tmp_path / "mended")
    translate(source, out, model, ADD, OPTIONS)
    for path, data in pictures(out).items():
        with Image.open(out / path) as one, Image.open(tmp_path / "mended" / path) as other:
            difference = np.abs(np.asarray(one).astype(int) - np.asarray(other))
        assert difference.max() <= 1, (path, len(data))  # other batches, other last bits


def test_another_request_needs_another_folder_or_overwrite(source: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    translate(source, out, model, ADD, OPTIONS)
    before, other = files(out), TranslateRequest(add=("hat",), seed=9)
    for request, inputs in [(other, source), (ADD, source / "a")]:
        with pytest.raises(LanitError, match="another request") as caught:
            translate(inputs, out, model, request, OPTIONS)
        assert "--overwrite" in caught.value.hint
    assert files(out) == before
    (out / "notes.txt").write_text("mine")
    report = translate(source, out, model, other, TranslateOptions(overwrite=True))
    assert report.done_before == 0
    assert set(pictures(out)) == {row["output"] for row in table(out)} - {""} | {"notes.txt"}


def test_two_runs_do_not_write_to_one_folder(source: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        locked_folder(out, "--out"),
        pytest.raises(LanitError, match="another lanit command"),
    ):
        translate(source, out, model, ADD, OPTIONS)
