"""``lanit train --log``: what watches a run is told of every line and grid that the run writes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lanit.errors import LanitError
from pipeline.store.store import Store
from pipeline.training.logs import LOGS, numbers
from tests.training_world import TINY, changed, copy_of, draw_store, go, labelled, metrics

OPTIONS = changed(TINY, steps=6, log_every=1, evaluate_every=3, sample_every=3, checkpoint_every=3, prompts_from=1.0)


@pytest.fixture
def store(tmp_path: Path, tiny_clip: Any) -> Store:
    return labelled(copy_of(draw_store(tmp_path, tiny_clip), tmp_path / "runs" / "store"))


def test_tensorboard_reads_every_number_that_the_run_wrote(store: Store, tmp_path: Path, tiny_clip: Any) -> None:
    """Interrupted between two checkpoints and continued: what was done again stands once."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "runs" / "run"

    def stop(done: int, planned: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(run, tiny_clip, OPTIONS, log="tensorboard", progress=stop)
    assert go(run, tiny_clip, OPTIONS, log="tensorboard").started_at == 3
    found = reader.EventAccumulator(str(run / "tensorboard"), {reader.SCALARS: 0, reader.IMAGES: 0})
    found.Reload()
    written = {(line["step"], name): value for line in metrics(run) for name, value in numbers(line).items()}
    read = {
        (event.step, name): event.value for name in found.Tags()["scalars"] for event in found.Scalars(name)
    }  # fmt: skip
    assert read.keys() == written.keys()
    for key, value in written.items():
        assert read[key] == pytest.approx(value, rel=1e-6), key
    pictures = found.Images("sample")
    assert [event.step for event in pictures] == [0, 3, 6]
    (tmp_path / "shown.png").write_bytes(pictures[-1].encoded_image_string)
    drawn = [np.asarray(Image.open(path)) for path in (tmp_path / "shown.png", run / "samples" / "00000006.png")]
    np.testing.assert_array_equal(*drawn)


def test_a_line_is_numbers_under_its_kind_and_texts_are_left_out() -> None:
    line = {
        "step": 4,
        "images": 8,
        "seconds": 1.0,
        "kind": "refresh",
        "flips": {"hat": 3},
        "took": 0.5,
        "judge": "clip",
    }
    assert numbers(line) == {"refresh/flips/hat": 3.0, "refresh/took": 0.5}


@pytest.mark.parametrize("name", LOGS)
def test_a_package_that_is_missing_is_named_before_any_step(
    store: Store, tmp_path: Path, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in [known for known in sys.modules if known.split(".")[0] == name or "utils.tensorboard" in known]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LanitError) as caught:
        go(tmp_path / "runs" / "run", tiny_clip, OPTIONS, log=name)
    assert f'pip install "{name}>=' in caught.value.hint
    assert name in caught.value.message
    assert not list((tmp_path / "runs" / "run").glob("checkpoints/*"))
