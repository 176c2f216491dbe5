"""Near-duplicates in the report on labels: copies, and images that lie in two splits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.inspection.duplicates import with_duplicates
from pipeline.inspection.inspect_labels import InspectOptions, inspect_store
from pipeline.inspection.label_statistics import Leak
from pipeline.searching import duplicates
from pipeline.searching.duplicates import find_duplicates
from pipeline.store.label_revisions import LabelRevision
from pipeline.store.store import Store
from tests.label_builders import add_labels
from tests.pixel_builders import ByCosine


def unit(count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture
def labelled(
    make_store: Callable[..., Store], make_revision: Callable[..., LabelRevision], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Store]:
    monkeypatch.setattr(duplicates, "read_miniatures", ByCosine)

    def make(groups: list[list[str]], sources: dict[str, str] | None = None) -> Store:
        """A store in which the images of each group have the same embedding."""
        paths = [path for group in groups for path in group]
        embeddings = np.repeat(unit(len(groups)), [len(group) for group in groups], axis=0)
        kinds = None if sources is None else [sources[path] for path in paths]
        store = make_store(embeddings, paths=paths, sources=kinds)
        revision = make_revision(np.ones((len(paths), 1)), domains=("cat",))
        add_labels(store, revision.active, revision.margin, prompts=revision.prompt_set)
        return store

    return make


def test_copies_and_leaks_are_counted(labelled: Callable[..., Store]) -> None:
    store = labelled(
        [
            ["train/1", "a/Test/1", "a/Test/2"],
            ["train/2", "train/3"],
            ["train/4", "val/x/4"],
            ["a/Test/5"],
            ["train/6"],
            ["train/7", "a/Test/7"],
        ]
    )
    statistics = inspect_store(store, InspectOptions(duplicates=True)).statistics
    found = statistics.duplicates
    assert found is not None
    assert (found.groups, found.exact_copies, found.near_copies) == (4, 0, 5)
    assert found.share == pytest.approx(5 / 11)
    assert {(leak.first, leak.second): leak.groups for leak in found.leaks} == {
        ("a/Test", "train"): 2,
        ("train", "val"): 1,
    }
    assert any("near-duplicates have images in both 'a/Test' and 'train'" in warning for warning in statistics.warnings)
    assert find_duplicates(store, between=("a/Test", "train")).group_count == 2, "as the warning says to ask"
    assert any("45.5 % of the images are near-duplicates" in warning for warning in statistics.warnings)


def test_sources_are_splits_where_there_are_several(labelled: Callable[..., Store]) -> None:
    store = labelled([["1", "2"], ["3", "4"], ["5"]], {"1": "/a", "2": "/b", "3": "/b", "4": "/b", "5": "/a"})
    found = inspect_store(store, InspectOptions(duplicates=True)).statistics.duplicates
    assert found is not None
    assert found.leaks == (Leak("/a", "/b", 1),)


def test_folders_that_are_no_splits_leak_nothing(labelled: Callable[..., Store]) -> None:
    store = labelled([["cats/1", "dogs/2"], ["cats/3"], ["train/4", "5"]])
    statistics = inspect_store(store, InspectOptions(duplicates=True)).statistics
    assert statistics.duplicates is not None
    assert statistics.duplicates.groups == 2
    assert statistics.duplicates.leaks == ()


def test_without_duplicates_nothing_is_warned_of(labelled: Callable[..., Store]) -> None:
    store = labelled([["train/1"], ["test/2"], ["train/3"]])
    plain = inspect_store(store, InspectOptions()).statistics
    found = with_duplicates(plain, find_duplicates(store))
    assert found.duplicates is not None
    assert (found.duplicates.groups, found.duplicates.share, found.duplicates.leaks) == (0, 0, ())
    assert found.warnings == plain.warnings
