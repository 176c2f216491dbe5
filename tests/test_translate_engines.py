"""Whatever does the work, a CPU or a GPU's engine, makes the same files and rows; a Ray cluster: see test_ray.py."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lanit.errors import LanitError
from pipeline.computing.engines import PipelinedEngine, ThreadedEngine
from pipeline.translating import translating_steps
from pipeline.translating.naming import SCRATCH_NAME
from pipeline.translating.recipe import BatchTranslator, Translations
from pipeline.translating.requests import TranslateRequest
from pipeline.translating.translation import TranslateOptions, translate
from tests.translation_world import files, make_model, make_source, pictures, pixels

ADD = TranslateRequest(add=("hat",), styles=2)
OPTIONS = TranslateOptions(batch_size=3, part_images=14)  # two styles: parts of seven images


@pytest.fixture
def source(make_images: Callable[..., Path]) -> Path:
    folder = make_source(make_images)
    return make_images(23, folder.name)


@pytest.fixture
def model(source: Path, tiny_clip: Any, tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", source, tiny_clip)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_engine_of_a_gpu_and_any_number_of_threads_make_the_same_bytes(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """On the CPU, where both can run; threads of the caller keep the processors that they had."""
    out, options, threads = tmp_path / "out", replace(OPTIONS, workers=workers), torch.get_num_threads()
    translate(source, out, model, ADD, OPTIONS)
    expected = files(out)
    seen: list[int] = []
    for number, kind in enumerate((ThreadedEngine, PipelinedEngine)):
        out.rename(tmp_path / str(number))
        monkeypatch.setattr(translating_steps, "ThreadedEngine", kind)
        seen.clear()
        report = translate(source, out, model, ADD, options, progress=lambda done, of, shares: seen.append(done))
        assert files(out) == expected
        assert seen == sorted(seen)
        assert seen[-1] == report.found == 24
    assert torch.get_num_threads() == threads


def test_where_the_gpu_is_full_fewer_images_are_made_at_once(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, sizes, lock = BatchTranslator.__call__, list[int](), threading.Lock()

    def narrow(self: BatchTranslator, images: torch.Tensor) -> Translations:
        with lock:
            sizes.append(len(images))
        if len(images) > 4:
            raise torch.OutOfMemoryError("full")
        return work(self, images)

    monkeypatch.setattr(BatchTranslator, "__call__", narrow)
    monkeypatch.setattr(translating_steps, "ThreadedEngine", PipelinedEngine)
    report = translate(source, tmp_path / "out", model, ADD, TranslateOptions(batch_size=12))
    assert sizes[:3] == [11, 6, 3], "the broken one is not among the first twelve"
    assert max(sizes[3:]) <= 3
    assert any("out of memory with 11 images at once: going on with 6" in warning for warning in report.warnings)
    monkeypatch.setattr(BatchTranslator, "__call__", work)
    translate(source, tmp_path / "wide", model, ADD, TranslateOptions(batch_size=12))
    for name in pictures(tmp_path / "wide"):
        assert np.abs(pixels(tmp_path / "out" / name) - pixels(tmp_path / "wide" / name)).max() <= 1


@pytest.mark.parametrize("refused", ["a picture", "a table"])
def test_a_disk_that_refuses_ends_the_run_with_one_line_and_the_same_call_goes_on(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    write, count = Path.write_bytes, list[str]()

    def full(self: Path, data: bytes) -> int:
        is_table = ".parquet" in self.name
        if self.parent.name == SCRATCH_NAME and is_table == (refused == "a table"):
            count.append(self.name)
            if len(count) > (1 if is_table else 30):
                raise OSError(28, "No space left on device")
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(LanitError, match="No space left on device") as caught:
            translate(source, tmp_path / "out", model, ADD, OPTIONS)
    assert caught.value.hint == "Free some space and run the same command again: it goes on."
    report = translate(source, tmp_path / "out", model, ADD, OPTIONS)
    assert (report.found, report.ok, report.results) == (24, 23, 46)
    assert report.done_before > 0


def test_a_node_with_another_model_or_without_the_folder_says_so(source: Path, model: Path, tmp_path: Path) -> None:
    from pipeline.files import sha256_file
    from pipeline.models.bundle import load_bundle
    from pipeline.models.translator import Translator
    from pipeline.translating.ray_translate import translate_worker
    from pipeline.translating.recipe import Resolver
    from pipeline.translating.translating_steps import TranslateJob

    translator = Translator(load_bundle(model), torch.device("cpu"))
    recipe = Resolver(translator, lambda: pytest.fail("no CLIP is needed"), print).resolve(
        TranslateRequest(to=(("hat", 1.0),))
    )
    job = TranslateJob(
        str(model), sha256_file(model / "model.safetensors"), recipe, None, "needed", None, ((str(source), None),),
        str(tmp_path / "out"), ("",), 4, 10**6, 1, torch.get_num_threads(), "cpu",
    )  # fmt: skip
    with pytest.raises(LanitError, match="does not see") as caught:
        translate_worker(job)
    assert "shared file system" in caught.value.hint
    with pytest.raises(LanitError, match="not the same on every node"):
        translate_worker(replace(job, model_sha256="0" * 64))
