"""Labels from Python, as a pandas table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lanit
from lanit.errors import LanitError
from pipeline.prompts.prompt_sets import PromptSet
from tests.label_builders import add_labels
from tests.store_builders import store_of_embeddings


def test_labels_are_a_pandas_table(tmp_path: Path) -> None:
    values = np.eye(5, dtype=np.float32)
    store = store_of_embeddings(tmp_path, values, part_rows=2)
    with pytest.raises(LanitError, match="has no labels"):
        lanit.read_labels(store.root)
    active = np.array([[1, 0], [0, 0], [1, 1], [0, 1], [1, 0]], bool)
    margin = np.arange(10, dtype=np.float32).reshape(5, 2) / 10
    add_labels(store, active, margin, prompts=PromptSet(("path", "smiling"), ("a {}.",), ("a.",), "made up"))
    table = lanit.read_labels(store.root, margins=True)
    assert list(table) == ["image_id", "lanit_path", "source", "width", "height", "path", "smiling", "margin:path",
                           "margin:smiling"]  # fmt: skip
    assert table["lanit_path"].tolist() == [f"{number:07d}.jpg" for number in range(5)]
    assert table[["path", "smiling"]].to_numpy().tolist() == active.tolist()
    assert table["smiling"].dtype == bool
    np.testing.assert_array_equal(table[["margin:path", "margin:smiling"]].to_numpy(), margin)
    assert list(lanit.read_labels(str(store.root), 1)) == list(table)[:7]
    with pytest.raises(LanitError, match="no label revision 2"):
        lanit.read_labels(store.root, 2)
