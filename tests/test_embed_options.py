"""Options of embedding: what is tried again, where it stops, how embeddings are stored, what a full GPU does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

import pipeline.embedding.embedding_steps
from lanit.errors import LanitError, UsageError
from pipeline.clip.models import ClipModel, load_clip
from pipeline.clip.towers import Towers
from pipeline.computing.devices import emulates_bf16
from pipeline.embedding import embedding_steps
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.embedding.parts import PART_ROWS, rows_of_a_part
from pipeline.embedding.terminal_tables import tell_model
from pipeline.store.store import Store


@pytest.mark.parametrize(("emulated", "precision"), [(True, "bf16"), (True, "fp32"), (False, "bf16")])
def test_bf16_is_warned_of_where_it_is_emulated(
    tiny_clip_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    emulated: bool,
    precision: Literal["fp32", "bf16"],
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: not emulated)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    tell_model(load_clip(str(tiny_clip_folder), precision=precision), None, Path("store"))
    said = "only emulates bfloat16" in capsys.readouterr().err
    assert said == (emulated and precision == "bf16")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not emulates_bf16(torch.device("cpu")), "of other processors it is not known"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the images that were read."""
    found: list[str] = []
    real = pipeline.embedding.embedding_steps.RowReader.__call__

    def read(self: Any, row: Any) -> Any:
        found.append(row.path)
        return real(self, row)

    monkeypatch.setattr(pipeline.embedding.embedding_steps.RowReader, "__call__", read)
    return found


def test_what_has_not_changed_is_not_even_read(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path, reads: list[str]
) -> None:
    folder, root = make_images(5), tmp_path / "store"
    embed([folder], root, tiny_clip)
    assert len(reads) == 5
    written = {path: path.stat().st_mtime_ns for path in (root / "images").iterdir()}
    report = embed([folder], root, tiny_clip)
    assert (report.skipped, len(reads)) == (5, 5)
    assert {path: path.stat().st_mtime_ns for path in (root / "images").iterdir()} == written
    (folder / "a" / "001.png").touch()
    report = embed([folder], root, tiny_clip)
    assert (report.skipped, report.ok, reads[5:]) == (5, 0, ["a/001.png"])


def test_failures_are_tried_again_only_if_asked(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path, reads: list[str]
) -> None:
    folder, root = make_images(2), tmp_path / "store"
    (folder / "x.png").write_bytes(b"")
    embed([folder], root, tiny_clip)
    del reads[:]
    report = embed([folder], root, tiny_clip)
    assert (report.failed, report.failed_before, reads) == (1, 1, [])
    assert any("--retry-failed" in warning for warning in report.warnings)
    report = embed([folder], root, tiny_clip, EmbedOptions(retry_failed=True))
    assert (report.failed, report.failed_before, reads) == (1, 0, ["x.png"])
    assert report.found == report.ok + report.failed + report.skipped


def test_too_many_failures_stop_the_run_and_the_work_is_kept(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path, reads: list[str]
) -> None:
    folder, root = make_images(6), tmp_path / "store"
    for number in range(3):
        (folder / f"z{number}.png").write_bytes(b"")
    with pytest.raises(
        LanitError, match=r"2 images failed, more than --max-failures 1 .*z0\.png: the file is empty"
    ) as caught:
        embed([folder], root, tiny_clip, EmbedOptions(max_failures=1, part_rows=4))
    assert "the same command then goes on" in caught.value.hint
    del reads[:]
    report = embed([folder], root, tiny_clip, EmbedOptions(max_failures=3, part_rows=4))
    assert (report.ok + report.skipped, report.failed) == (6, 3)
    assert "a/001.png" not in reads, "the first part was kept"


def test_embeddings_may_be_stored_in_half_precision_and_are_read_in_single(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    folder = make_images(5)
    embed([folder], tmp_path / "single", tiny_clip)
    embed([folder], tmp_path / "half", tiny_clip, EmbedOptions(storage="float16"))
    single, half = Store.open(tmp_path / "single").embeddings(), Store.open(tmp_path / "half").embeddings()
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, single.astype(np.float16).astype(np.float32))
    assert embed([folder], tmp_path / "half", tiny_clip).skipped == 5, "the store's own type is the default"
    Image.new("RGB", (9, 9)).save(folder / "new.png")
    assert embed([folder], tmp_path / "half", tiny_clip).ok == 1
    np.testing.assert_array_equal(Store.open(tmp_path / "half").embeddings()[:5], half)
    with pytest.raises(LanitError, match="as float16, not float32") as caught:
        embed([folder], tmp_path / "half", tiny_clip, EmbedOptions(storage="float32"))
    assert "--overwrite" in caught.value.hint


def test_another_precision_is_another_store(
    make_images: Callable[..., Path], tiny_clip_folder: Path, tiny_clip: ClipModel, tmp_path: Path
) -> None:
    folder = make_images(4)
    half = load_clip(str(tiny_clip_folder), precision="bf16")
    embed([folder], tmp_path / "store", half)
    single = embed([folder], tmp_path / "single", tiny_clip).store
    with pytest.raises(LanitError, match="precision differ"):
        embed([folder], tmp_path / "store", tiny_clip)
    stored = Store.open(tmp_path / "store")
    cosines = (stored.embeddings() * Store.open(Path(single)).embeddings()).sum(axis=1)
    assert (cosines > 0.99).all()
    assert (cosines < 1 - 1e-7).any()
    stored.check_fingerprint(tiny_clip.fingerprint)  # the text tower, always single, fits both


@pytest.fixture
def a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a CLIP that is not small, whose batches this thread runs one after another."""
    monkeypatch.setattr(embedding_steps, "_SMALL", -1)


@pytest.mark.usefixtures("a_batch_at_a_time")
def test_a_full_gpu_halves_the_batch_and_goes_on(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[int] = []
            self.register_parameter("where", torch.nn.Parameter(torch.zeros(1)))

        def encode_image(self, images: torch.Tensor) -> Any:
            if len(images) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            self.sizes.append(len(images))
            return tiny_clip.model.encode_image(images)  # type: ignore[operator]

    model = Small()
    folder = make_images(20)
    report = embed([folder], tmp_path / "store", replace(tiny_clip, towers=Towers(model)), EmbedOptions(batch_size=10))
    assert report.ok == 20
    assert model.sizes == [3, 2, 3, 2, 3, 3, 3, 1]
    assert [warning for warning in report.warnings if "out of memory" in warning] == [
        "the GPU is out of memory with 10 images at once: going on with 5",
        "the GPU is out of memory with 5 images at once: going on with 3",
    ]
    embed([folder], tmp_path / "whole", tiny_clip, EmbedOptions(batch_size=10))
    np.testing.assert_allclose(
        Store.open(tmp_path / "store").embeddings(), Store.open(tmp_path / "whole").embeddings(), atol=1e-5
    )


@pytest.mark.usefixtures("a_batch_at_a_time")
def test_a_run_killed_again_and_again_loses_no_part(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path, reads: list[str]
) -> None:
    class Stops(torch.nn.Module):
        def __init__(self, batches: int) -> None:
            super().__init__()
            self.left = batches
            self.register_parameter("where", torch.nn.Parameter(torch.zeros(1)))

        def encode_image(self, images: torch.Tensor) -> Any:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            return tiny_clip.model.encode_image(images)  # type: ignore[operator]

    folder = make_images(12)
    options = EmbedOptions(batch_size=2, part_rows=2)
    embed([folder], tmp_path / "whole", tiny_clip, options)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            embed([folder], tmp_path / "store", replace(tiny_clip, towers=Towers(Stops(1))), options)
    journal = (tmp_path / "store" / "images" / "unfinished.jsonl").read_text().splitlines()
    assert len(journal) == 1 + 4
    report = embed([folder], tmp_path / "store", tiny_clip, options)
    assert (report.skipped, report.ok) == (8, 4)
    for path in (tmp_path / "whole").rglob("*.*"):
        assert (tmp_path / "store" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_a_torn_line_at_the_end_of_the_journal_costs_one_part(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    folder, root = make_images(9), tmp_path / "store"
    for number in range(3):
        (folder / f"z{number}.png").write_bytes(b"")
    options = EmbedOptions(batch_size=2, part_rows=3, max_failures=0)
    with pytest.raises(LanitError):
        embed([folder], root, tiny_clip, options)
    journal = root / "images" / "unfinished.jsonl"
    assert len(journal.read_bytes().splitlines()) == 1 + 4
    journal.write_bytes(journal.read_bytes()[:-40])
    report = embed([folder], root, tiny_clip, replace(options, max_failures=None))
    assert (report.skipped, report.failed, report.failed_before) == (9, 3, 0)


@pytest.mark.parametrize(("images", "rows"), [(1, 2048), (1_048_576, 2048), (1_048_577, 4096), (10**9, 32768)])
def test_parts_grow_with_the_table(images: int, rows: int) -> None:
    assert rows_of_a_part(images) == rows
    assert rows_of_a_part(images) % PART_ROWS == 0


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": 0}, {"max_failures": -1}, {"max_pixels": 0}])
def test_senseless_options_are_refused_by_name(options: dict[str, int]) -> None:
    (name,) = options
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is at least"):
        EmbedOptions(**options)  # type: ignore[arg-type]


def test_decoding_on_the_models_device_gives_the_same_rows(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    """On the CPU here, by the decoder that takes batches; test_gpu.py has the same for a GPU."""
    folder = make_images(5)
    for number in range(6):
        Image.effect_noise((50 + number, 40), 60).convert("RGB").save(folder / f"photo{number}.jpg")
    (folder / "cut.jpg").write_bytes((folder / "photo0.jpg").read_bytes()[:500])
    reports = {
        decode: embed([folder], tmp_path / decode, tiny_clip, EmbedOptions(batch_size=4, decode=decode))
        for decode in ("cpu", "gpu")
    }
    assert (reports["gpu"].ok, reports["gpu"].failed) == (reports["cpu"].ok, reports["cpu"].failed) == (11, 1)
    columns = ["path", "width", "height", "sha256", "status", "error_message"]
    cpu, gpu = (Store.open(tmp_path / decode) for decode in ("cpu", "gpu"))
    assert cpu.images(columns) == gpu.images(columns)
    assert (cpu.embeddings() * gpu.embeddings()).sum(axis=1).min() > 0.999
